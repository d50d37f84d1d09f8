package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// logLine is a line of a log file.
type logLine struct {
	Level, Msg, Layer, Path, Reason, Error, Version string
	MountPoint                                      string `json:"mount point"`
	Layers                                          []string
	Whiteouts                                       string
	CopyUps                                         string `json:"copy-ups"`
	IO                                              string
	Missing                                         []string `json:"not in this kernel"`
	Without                                         []string `json:"done without"`
	More                                            int      `json:"not logged before"`
}

// logged are the lines of the mount's log with a message.
func (o *overlay) logged(msg string) (lines []logLine) {
	o.t.Helper()
	for text := range strings.Lines(readText(o.t, o.log)) {
		var l logLine
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			o.t.Fatalf("%v: %s", err, text)
		}
		if l.Msg == msg {
			lines = append(lines, l)
		}
	}
	return lines
}

const damagedMessage = "an object of a layer cannot be used"

// A request that fails because a layer is damaged leaves a line with layer, path and reason.
func TestDamageIsLogged(t *testing.T) {
	needDaemon(t)
	eachMode(t, allModes, func(t *testing.T, e *env) {
		prefix := "user.overlay."
		if e.mode == modeRoot {
			prefix = "trusted.overlay."
		}
		metacopy, redirect := prefix+"metacopy", prefix+"redirect"
		for i, c := range []struct {
			name    string
			prepare func(lower string)
			opts    []string
			path    string
			err     syscall.Errno
			reason  string
		}{
			{"metacopy without data", func(l string) { damagedFile(t, l+"/d/f", metacopy, "") }, []string{"metacopy=on"}, "d/f",
				unix.EIO, "no layer has its data"},
			{"metacopy that is not followed", func(l string) { damagedFile(t, l+"/d/f", metacopy, "") }, nil, "d/f",
				unix.EPERM, "metacopy=on was not given"},
			{"metacopy of no sense", func(l string) { damagedFile(t, l+"/d/f", metacopy, "xx") }, []string{"metacopy=on"}, "d/f",
				unix.EINVAL, "metacopy makes no sense"},
			{"metacopy with a bad redirect", func(l string) {
				damagedFile(t, l+"/d/f", metacopy, "")
				check(t, unix.Setxattr(l+"/d/f", redirect, []byte("a/b"), 0))
			}, []string{"metacopy=on"}, "d/f", unix.EINVAL, "redirect is not a path"},
			{"bad redirect", func(l string) { check(t, unix.Setxattr(l+"/d", redirect, []byte("/a/../b"), 0)) }, nil, "d",
				unix.EINVAL, "redirect is not a path"},
			{"redirect that is not followed", func(l string) { check(t, unix.Setxattr(l+"/d", redirect, []byte("/b"), 0)) },
				[]string{"redirect_dir=nofollow"}, "d", unix.EPERM, "redirect is not followed"},
			{"owner of no sense", func(l string) {
				check(t, unix.Setxattr(l, "user.containers.override_stat", []byte("0:0:755"), 0))
				check(t, unix.Setxattr(l+"/d/f", "user.containers.override_stat", []byte("zork"), 0))
			}, []string{"xattr_permissions=2"}, "d/f", unix.EIO, "override_stat makes no sense"},
		} {
			t.Run(c.name, func(t *testing.T) {
				o := newEnv(t, e.mode).overlay(t, "dir d\nfile d/f \"12345\"\nfile good \"x\"", "dir b")
				o.t, o.log = t, filepath.Join(filepath.Dir(o.mnt), "log")
				if c.name == "owner of no sense" { // an upper would have to be in the same form
					o.upper, o.work = "", ""
				}
				lower := o.lowers[0]
				c.prepare(lower)
				o.opts = append(o.opts, c.opts...)
				o.mount()
				for range 3 {
					_, err := os.Lstat(o.path(c.path))
					wantErr(t, c.path, err, c.err)
				}
				lines := o.logged(damagedMessage)
				if len(lines) != 1 {
					t.Fatalf("%d lines: %+v\n%s", len(lines), lines, readText(t, o.log))
				}
				l := lines[0]
				if l.Level != "WARN" || l.Layer != lower || l.Path != c.path || !strings.Contains(l.Reason, c.reason) || l.Error != errnoName(c.err) {
					t.Errorf("the line is %+v", l)
				}
				if i == 0 { // the others differ in the reason only
					time.Sleep(1100 * time.Millisecond)
					_, err := os.Lstat(o.path(c.path))
					wantErr(t, c.path, err, c.err)
					if lines = o.logged(damagedMessage); len(lines) != 2 || lines[1].More != 2 {
						t.Errorf("after a second: %+v", lines)
					}
				}
				wantText(t, o.path("good"), "x")
				o.unmount()
			})
		}
	})
}

// damagedFile gives a file of a lower an attribute.
func damagedFile(t *testing.T, path, attr, value string) {
	t.Helper()
	// A file that was copied up without data has holes only.
	check(t, os.Truncate(path, 0))
	check(t, os.Truncate(path, 5))
	check(t, unix.Setxattr(path, attr, []byte(value), 0))
}

// A layer whose file system answers EIO.
func TestUnreadableLayerIsLogged(t *testing.T) {
	needDaemon(t)
	eachMode(t, allModes, func(t *testing.T, e *env) {
		lower := bare(t, e, abilities{xattrs: true})
		mkdir(t, lower+"/d")
		for _, name := range []string{"sick-file", "d/sick", "d/good"} {
			write(t, filepath.Join(lower, name), "x")
		}
		o := e.overlay(t, "file other \"x\"")
		o.lowers, o.log = append(o.lowers, lower), filepath.Join(e.dir, "log")
		o.mount()
		for _, c := range []struct{ path, what string }{{"sick-file", "read"}, {"d/sick", "write"}} {
			var err error
			if c.what == "read" {
				_, err = os.ReadFile(o.path(c.path))
			} else if f, e := os.OpenFile(o.path(c.path), os.O_WRONLY|os.O_APPEND, 0); e == nil {
				_, err = f.WriteString("y")
				if cerr := f.Close(); err == nil {
					err = cerr
				}
			} else {
				err = e
			}
			wantErr(t, c.path, err, unix.EIO)
			lines := o.logged(damagedMessage)
			if len(lines) != 1 || lines[0].Layer != lower || lines[0].Path != c.path || lines[0].Reason != "input/output error" {
				t.Errorf("%s: %+v", c.path, lines)
			}
			time.Sleep(1100 * time.Millisecond)
			check(t, os.Truncate(o.log, 0))
		}
		wantText(t, o.path("d/good"), "x")
		o.unmount()
	})
}

// What callers do wrong is no line, and the mount itself is one.
func TestMountIsLogged(t *testing.T) {
	needDaemon(t)
	eachMode(t, allModes, func(t *testing.T, e *env) {
		o := e.overlay(t, "dir d\nfile f \"x\"", "dir d\nfile d/g \"x\"")
		o.log = filepath.Join(e.dir, "log")
		o.mount()
		for what, err := range map[string]error{
			"whiteout": unix.Mknod(o.path("w"), unix.S_IFCHR, 0), "marker": os.WriteFile(o.path(".wh.x"), nil, 0o600),
			"none": os.Chmod(o.path("none"), 0), "name": os.Mkdir(o.path(strings.Repeat("n", 300)), 0o700),
			"not empty": unix.Rmdir(o.path("d")), "into itself": os.Rename(o.path("d"), o.path("d/e")),
		} {
			if err == nil {
				t.Errorf("%s: no error", what)
			}
		}
		o.unmount()
		lines := o.logged("mounted")
		if len(lines) != 1 {
			t.Fatalf("%d lines:\n%s", len(lines), readText(t, o.log))
		}
		l := lines[0]
		layers := strings.Join(l.Layers, "\n")
		for _, dir := range []string{"upperdir " + o.upper + " (", "lowerdir " + o.lowers[0] + " (", "lowerdir " + o.lowers[1] + " ("} {
			if !strings.Contains(layers, dir) {
				t.Errorf("no %s in %q", dir, l.Layers)
			}
		}
		without := fmt.Sprint(l.Without)
		switch {
		case l.Level != "INFO", l.MountPoint != o.mnt, l.Version == "", l.CopyUps == "":
			t.Errorf("%+v", l)
		case !strings.HasPrefix(l.Whiteouts, "devices 0/0"):
			t.Errorf("whiteouts: %s", l.Whiteouts)
		case !strings.HasPrefix(l.IO, "cached") && !e.has(passthrough):
			t.Errorf("io: %s", l.IO)
		case strings.Contains(without, "clones") != (e.mode == modeFusermount):
			t.Errorf("done without %s", without)
		case strings.Contains(without, "file handles") != (e.mode != modeRoot):
			t.Errorf("done without %s", without)
		}
		for text := range strings.Lines(readText(t, o.log)) {
			if !strings.Contains(text, `"INFO"`) {
				t.Errorf("a line about what callers do wrong: %s", text)
			}
		}
	})
}
