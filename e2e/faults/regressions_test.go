package e2e

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// The faults seen in other programs: section 6 of the contract and the last section of what clients do.

// A lower file held open by one process and appended by another does not change, and the reader sees the append.
func TestFaultHeldLowerFileIsNotWritten(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, e *env) {
		o := e.mounted(t, "file f \"lower\"")
		reader := open(t, o.path("f"), os.O_RDONLY)
		buf := make([]byte, 5)
		_, err := io.ReadFull(reader, buf)
		check(t, err)
		appendTo(t, o.path("f"), "+1")
		again := open(t, o.path("f"), os.O_RDONLY)
		appendTo(t, o.path("f"), "+2")
		sh(t, e.dir, "printf +3 >> mnt/f")
		for name, f := range map[string]*os.File{"before": reader, "after": again} {
			_, err := f.Seek(0, io.SeekStart)
			check(t, err)
			text, err := io.ReadAll(f)
			check(t, err)
			equal(t, "what a reader that opened "+name+" copy-up sees", string(text), "lower+1+2+3")
		}
		wantText(t, filepath.Join(o.lowers[0], "f"), "lower")
		o.unmountBusy(reader, again)
		wantText(t, filepath.Join(o.lowers[0], "f"), "lower")
		wantText(t, filepath.Join(o.upper, "f"), "lower+1+2+3")
	})
}

// unmountBusy closes files and unmounts.
func (o *overlay) unmountBusy(files ...*os.File) {
	o.t.Helper()
	for _, f := range files {
		check(o.t, f.Close())
	}
	o.unmount()
}

// A directory of the lower, removed and made again at the root of the mount, stays empty after a remount.
func TestFaultDirectoryMadeAgainAtRoot(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, e *env) {
		o := e.mounted(t, "file d/low \"x\"\nfile d/sub/low \"x\"\nfile p/d/low \"x\"")
		for _, d := range []string{"d", "p/d"} {
			check(t, os.RemoveAll(o.path(d)))
			check(t, os.Mkdir(o.path(d), 0o755))
			wantNames(t, o.path(d))
		}
		o.remount()
		wantTree(t, "merged", o.mnt, "dir d\ndir p/d")
		o.unmount()
		wantTree(t, "the upper", o.upper, "opaque d\nopaque p/d")
	})
}

// Two lower hard links, one appended: the other is old or the same, never a mix, never NULs, now and later.
func TestFaultTwoLowerHardLinksAppend(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, e *env) {
		for _, first := range []string{"write", "read both, then write"} {
			t.Run(first, func(t *testing.T) {
				o := newEnv(t, e.mode).mounted(t, "file a \"one\"\nlink b a\nlink d/c a")
				if first != "write" {
					for _, name := range []string{"a", "b", "d/c"} {
						wantText(t, o.path(name), "one")
					}
				}
				appendTo(t, o.path("a"), "+two")
				wantText(t, o.path("a"), "one+two")
				now := oldOrSame(t, o)
				o.remount()
				wantText(t, o.path("a"), "one+two")
				if later := oldOrSame(t, o); later != now {
					t.Errorf("b was %q before the remount and is %q after it", now, later)
				}
				appendTo(t, o.path("b"), "+three")
				want := now + "+three"
				wantText(t, o.path("b"), want)
				o.remount()
				wantText(t, o.path("b"), want)
				wantText(t, filepath.Join(o.lowers[0], "a"), "one")
			})
		}
	})
}

func oldOrSame(t *testing.T, o *overlay) string {
	t.Helper()
	b, err := os.ReadFile(o.path("b"))
	check(t, err)
	if string(b) != "one" && string(b) != "one+two" {
		t.Errorf("the other name holds %q", b)
	}
	wantText(t, o.path("d/c"), string(b))
	return string(b)
}

func TestFaultFirstAppendKeepsBytes(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, e *env) {
		o := e.mounted(t, "file f \"abc\"\nfile g \"abc\"\nfile h \"abc\"")
		appendTo(t, o.path("f"), "d")
		sh(t, o.mnt, "echo d >> g")
		f := open(t, o.path("h"), os.O_WRONLY)
		_, err := f.WriteAt([]byte("X"), 5)
		check(t, err)
		for range 2 {
			wantText(t, o.path("f"), "abcd")
			wantText(t, o.path("g"), "abcd\n")
			wantText(t, o.path("h"), "abc\x00\x00X")
			_ = f.Close()
			o.remount()
		}
	})
}

// What dpkg does on every purge.
func TestFaultRenameOverThenRemove(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, e *env) {
		o := e.mounted(t, "file f \"lower\"\nfile d/f \"lower\"\nsymlink s f")
		sh(t, o.mnt, "echo n >f.new; mv f.new f; rm f; echo n >d/f.new; mv d/f.new d/f; rm d/f; ln -s x s.new; mv s.new s; rm s")
		wantTree(t, "merged", o.mnt, "dir d")
		o.remount()
		wantTree(t, "merged after a remount", o.mnt, "dir d")
		o.unmount()
		wantTree(t, "the upper", o.upper, "white f\nwhite d/f\nwhite s")
	})
}

func TestFaultAttributesOfLowerSpecialFiles(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, e *env) {
		table, names := "fifo p 0600\nsock s 0600", []string{"p", "s"}
		if e.mode == modeRoot {
			table += "\nchar c 1/3 0600\nblock b 7/250 0600"
			names = append(names, "c", "b")
		}
		o := e.mounted(t, table)
		for _, name := range names {
			before := lstat(t, o.path(name))
			check(t, os.Chmod(o.path(name), 0o640))
			uid, gid := os.Getuid(), os.Getgid()
			if e.mode != modeFusermount {
				uid, gid = 1, 2
			}
			check(t, os.Lchown(o.path(name), uid, gid))
			check(t, setTimes(o.path(name), oldTime))
			for range 2 {
				st := lstat(t, o.path(name))
				equal(t, name+": mode", st.Mode, before.Mode&unix.S_IFMT|0o640)
				equal(t, name+": rdev", st.Rdev, before.Rdev)
				equal(t, name+": owner", fmt.Sprint(st.Uid, st.Gid), fmt.Sprint(uid, gid))
				equal(t, name+": mtime", st.Mtim.Sec, oldTime.Unix())
				o.remount()
			}
			equal(t, name+" in the upper", lstat(t, filepath.Join(o.upper, name)).Mode, before.Mode&unix.S_IFMT|0o640)
		}
	})
}

// steps are the twelve steps of an image build; each becomes a layer.
var steps = []string{
	"mkdir -p bin etc usr/share/doc var; echo sh >bin/sh; for i in a b c; do mkdir usr/share/doc/$i; echo $i >usr/share/doc/$i/copyright; done",
	"echo conf >etc/app.conf; chmod 600 etc/app.conf; mkdir -p opt/app/lib; echo lib >opt/app/lib/x.so",
	"rm -r usr/share/doc/a",
	"mkdir usr/share/doc/a; echo new >usr/share/doc/a/README",
	"rm -rf usr/share/doc opt/app/lib",
	"mkdir -p opt/app/lib; echo lib2 >opt/app/lib/y.so; ln opt/app/lib/y.so opt/app/lib/z.so",
	"echo more >>etc/app.conf; mv etc/app.conf etc/app.conf.old; echo new >etc/app.conf",
	"rm bin/sh; ln -s bash bin/sh; echo bash >bin/bash",
	"rm -r opt/app; echo file-now >opt/app",
	"rm opt/app; mkdir opt/app; echo dir-again >opt/app/f",
	"chmod 700 var; mkdir var/tmp; chmod 1777 var/tmp; touch -d @1000 var/stamp",
	"rm -rf usr; mkdir usr; rm etc/app.conf.old; mkfifo var/pipe",
}

// An image built in twelve steps through the mount is the same as one built with the kernel's overlayfs.
func TestFaultImageInTwelveSteps(t *testing.T) {
	needDaemon(t)
	eachMode(t, rootModes, func(t *testing.T, e *env) {
		ours, theirs := buildImage(t, e, "ours", false), buildImage(t, e, "kernel", true)
		for i := range steps {
			// The layers the one program wrote are read the same way by the other.
			for name, layers := range map[string][]string{"ours": ours, "kernel's": theirs} {
				k := showLayers(t, e, layers[:i+1], true)
				o := showLayers(t, e, layers[:i+1], false)
				if d := diffLines(k, o); d != "" {
					t.Errorf("after step %d, %s layers, the kernel and we see:\n%s", i+1, name, d)
				}
			}
			if d := diffLines(showLayers(t, e, theirs[:i+1], true), showLayers(t, e, ours[:i+1], true)); d != "" {
				t.Fatalf("after step %d the kernel's image and ours differ:\n%s", i+1, d)
			}
		}
	})
}

func buildImage(t *testing.T, e *env, name string, kernel bool) (layers []string) {
	t.Helper()
	root := filepath.Join(e.dir, name)
	mkdir(t, root+"/base", root+"/mnt")
	layers = []string{root + "/base"}
	for i, step := range steps {
		o := &overlay{t: t, env: e, kernel: kernel, mnt: root + "/mnt", log: root + "/log"}
		o.lowers = reversed(layers)
		o.upper, o.work = fmt.Sprintf("%s/diff%d", root, i), fmt.Sprintf("%s/work%d", root, i)
		mkdir(t, o.upper, o.work)
		o.mount()
		sh(t, o.mnt, step)
		o.unmount()
		layers = append(layers, o.upper)
	}
	return layers[1:]
}

func reversed(layers []string) (r []string) {
	for i := len(layers) - 1; i >= 0; i-- {
		r = append(r, layers[i])
	}
	return r
}

// showLayers mounts layers (the lowest first) read-only and answers with what they show.
func showLayers(t *testing.T, e *env, layers []string, kernel bool) map[string]string {
	t.Helper()
	empty := filepath.Join(e.dir, "empty")
	mkdir(t, empty, filepath.Join(e.dir, "show"))
	o := &overlay{t: t, env: e, kernel: kernel, mnt: filepath.Join(e.dir, "show"), lowers: append(reversed(layers), empty)}
	o.mount()
	lines, err := snapshot(o.mnt, full)
	check(t, err)
	o.unmount()
	return lines
}

// Missing pieces are errors, not a mount of something else.
func TestFaultMissingWorkdirOption(t *testing.T) {
	needDaemon(t)
	eachMode(t, allModes, func(t *testing.T, e *env) {
		o := e.overlay(t, "file f \"x\"")
		out, err := runCommand(binPath, "-o", "lowerdir="+o.lowers[0]+",upperdir="+o.upper, o.mnt)
		if err == nil || !strings.Contains(out, "workdir") || o.isMounted() {
			t.Errorf("upperdir without workdir: %v, %q, mounted %v", err, out, o.isMounted())
		}
	})
}

func TestFaultLinkCountAfterLinkOfLowerFile(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, e *env) {
		o := e.mounted(t, "file f \"x\"\nfile g \"x\"\nsymlink s f")
		f := open(t, o.path("f"), os.O_RDONLY)
		for i := 2; i <= 4; i++ {
			name := fmt.Sprintf("link%d", i)
			check(t, os.Link(o.path("f"), o.path(name)))
			for _, n := range []string{"f", name} {
				equal(t, n+": nlink", int(lstat(t, o.path(n)).Nlink), i)
			}
			equal(t, "fstat nlink", int(fstat(t, f).Nlink), i)
			if !oracle { // xino=off
				equal(t, "inode", lstat(t, o.path(name)).Ino, lstat(t, o.path("f")).Ino)
			}
		}
		check(t, os.Remove(o.path("f")))
		equal(t, "nlink after a removal", lstat(t, o.path("link2")).Nlink, 3)
		check(t, syscall.Link(o.path("g"), o.path("g2")))
		check(t, os.Remove(o.path("g")))
		equal(t, "nlink of g2", lstat(t, o.path("g2")).Nlink, 1)
		check(t, f.Close())
		o.remount()
		equal(t, "nlink after a remount", lstat(t, o.path("link3")).Nlink, 3)
		wantText(t, o.path("link4"), "x")
		wantAbsent(t, o.path("f"))
	})
}
