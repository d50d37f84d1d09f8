package faults

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

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
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

// logged are the lines with a message in the log of a mount.
func logged(o *harness.Overlay, msg string) (lines []logLine) {
	o.T.Helper()
	for text := range strings.Lines(harness.ReadText(o.T, o.Log)) {
		var l logLine
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			o.T.Fatalf("%v: %s", err, text)
		}
		if l.Msg == msg {
			lines = append(lines, l)
		}
	}
	return lines
}

const damagedMessage = "an object of a layer cannot be used"

// A request that fails because a layer is damaged logs a line with layer, path and reason.
func TestDamageIsLogged(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		prefix := "user.overlay."
		if e.Mode == harness.ModeRoot {
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
				harness.Check(t, unix.Setxattr(l+"/d/f", redirect, []byte("a/b"), 0))
			}, []string{"metacopy=on"}, "d/f", unix.EINVAL, "redirect is not a path"},
			{"bad redirect", func(l string) { harness.Check(t, unix.Setxattr(l+"/d", redirect, []byte("/a/../b"), 0)) }, nil,
				"d",
				unix.EINVAL, "redirect is not a path"},
			{"redirect that is not followed", func(l string) {
				harness.Check(t, unix.Setxattr(l+"/d", redirect, []byte("/b"),
					0))
			},
				[]string{"redirect_dir=nofollow"}, "d", unix.EPERM, "redirect is not followed"},
			{"owner of no sense", func(l string) {
				harness.Check(t, unix.Setxattr(l, "user.containers.override_stat", []byte("0:0:755"), 0))
				harness.Check(t, unix.Setxattr(l+"/d/f", "user.containers.override_stat", []byte("zork"), 0))
			}, []string{"xattr_permissions=2"}, "d/f", unix.EIO, "override_stat makes no sense"},
		} {
			t.Run(c.name, func(t *testing.T) {
				o := harness.NewEnv(t, e.Mode).Overlay(t, "dir d\nfile d/f \"12345\"\nfile good \"x\"", "dir b")
				o.T, o.Log = t, filepath.Join(filepath.Dir(o.Point), "log")
				if c.name == "owner of no sense" { // an upper would have to be in the same form
					o.Upper, o.Work = "", ""
				}
				lower := o.Lowers[0]
				c.prepare(lower)
				o.Opts = append(o.Opts, c.opts...)
				o.Mount()
				for range 3 {
					_, err := os.Lstat(o.Path(c.path))
					harness.WantErr(t, c.path, err, c.err)
				}
				lines := logged(o, damagedMessage)
				if len(lines) != 1 {
					t.Fatalf("%d lines: %+v\n%s", len(lines), lines, harness.ReadText(t, o.Log))
				}
				l := lines[0]
				if l.Level != "WARN" || l.Layer != lower || l.Path != c.path || !strings.Contains(l.Reason, c.reason) ||
					l.Error != harness.ErrnoName(c.err) {
					t.Errorf("the line is %+v", l)
				}
				if i == 0 { // the others differ in the reason only
					time.Sleep(1100 * time.Millisecond)
					_, err := os.Lstat(o.Path(c.path))
					harness.WantErr(t, c.path, err, c.err)
					if lines = logged(o, damagedMessage); len(lines) != 2 || lines[1].More != 2 {
						t.Errorf("after a second: %+v", lines)
					}
				}
				harness.WantText(t, o.Path("good"), "x")
				o.Unmount()
			})
		}
	})
}

// damagedFile sets an xattr of a file of a lower.
func damagedFile(t *testing.T, path, attr, value string) {
	t.Helper()
	// A metacopy consists of a hole.
	harness.Check(t, os.Truncate(path, 0))
	harness.Check(t, os.Truncate(path, 5))
	harness.Check(t, unix.Setxattr(path, attr, []byte(value), 0))
}

// The file system of a layer returns EIO.
func TestUnreadableLayerIsLogged(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		lower := bare(t, e, abilities{xattrs: true})
		harness.Mkdir(t, lower+"/d")
		for _, name := range []string{"sick-file", "d/sick", "d/good"} {
			harness.Write(t, filepath.Join(lower, name), "x")
		}
		o := e.Overlay(t, "file other \"x\"")
		o.Lowers, o.Log = append(o.Lowers, lower), filepath.Join(e.Dir, "log")
		o.Mount()
		for _, c := range []struct{ path, what string }{{"sick-file", "read"}, {"d/sick", "write"}} {
			var err error
			if c.what == "read" {
				_, err = os.ReadFile(o.Path(c.path))
			} else if f, e := os.OpenFile(o.Path(c.path), os.O_WRONLY|os.O_APPEND, 0); e == nil {
				_, err = f.WriteString("y")
				if cerr := f.Close(); err == nil {
					err = cerr
				}
			} else {
				err = e
			}
			harness.WantErr(t, c.path, err, unix.EIO)
			lines := logged(o, damagedMessage)
			if len(lines) != 1 || lines[0].Layer != lower || lines[0].Path != c.path || lines[0].Reason != "input/output error" {
				t.Errorf("%s: %+v", c.path, lines)
			}
			time.Sleep(1100 * time.Millisecond)
			harness.Check(t, os.Truncate(o.Log, 0))
		}
		harness.WantText(t, o.Path("d/good"), "x")
		o.Unmount()
	})
}

// The mount is one line in the log. An error of a caller is none.
func TestMountIsLogged(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "dir d\nfile f \"x\"", "dir d\nfile d/g \"x\"")
		o.Log = filepath.Join(e.Dir, "log")
		o.Mount()
		for what, err := range map[string]error{
			"whiteout": unix.Mknod(o.Path("w"), unix.S_IFCHR, 0), "marker": os.WriteFile(o.Path(".wh.x"), nil, 0o600),
			"none": os.Chmod(o.Path("none"), 0), "name": os.Mkdir(o.Path(strings.Repeat("n", 300)), 0o700),
			"not empty": unix.Rmdir(o.Path("d")), "into itself": os.Rename(o.Path("d"), o.Path("d/e")),
		} {
			if err == nil {
				t.Errorf("%s: no error", what)
			}
		}
		o.Unmount()
		lines := logged(o, "mounted")
		if len(lines) != 1 {
			t.Fatalf("%d lines:\n%s", len(lines), harness.ReadText(t, o.Log))
		}
		l := lines[0]
		layers := strings.Join(l.Layers, "\n")
		for _, dir := range []string{"upperdir " + o.Upper + " (", "lowerdir " + o.Lowers[0] + " (", "lowerdir " +
			o.Lowers[1] + " ("} {
			if !strings.Contains(layers, dir) {
				t.Errorf("no %s in %q", dir, l.Layers)
			}
		}
		without := fmt.Sprint(l.Without)
		switch {
		case l.Level != "INFO", l.MountPoint != o.Point, l.Version == "", l.CopyUps == "":
			t.Errorf("%+v", l)
		case !strings.HasPrefix(l.Whiteouts, "devices 0/0"):
			t.Errorf("whiteouts: %s", l.Whiteouts)
		case !strings.HasPrefix(l.IO, "cached") && !e.Has(harness.Passthrough):
			t.Errorf("io: %s", l.IO)
		case strings.Contains(without, "clones") != (e.Mode == harness.ModeFusermount):
			t.Errorf("done without %s", without)
		case strings.Contains(without, "file handles") != (e.Mode != harness.ModeRoot):
			t.Errorf("done without %s", without)
		}
		for text := range strings.Lines(harness.ReadText(t, o.Log)) {
			if !strings.Contains(text, `"INFO"`) {
				t.Errorf("a line about what callers do wrong: %s", text)
			}
		}
	})
}
