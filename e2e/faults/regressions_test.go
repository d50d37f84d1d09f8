package faults

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// Each test is a fault of another program.

// A lower file held open by one process and appended by another does not change, and the reader
// sees the append.
func TestFaultHeldLowerFileIsNotWritten(t *testing.T) {
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, "file f \"lower\"")
		reader := harness.Open(t, o.Path("f"), os.O_RDONLY)
		buf := make([]byte, 5)
		_, err := io.ReadFull(reader, buf)
		harness.Check(t, err)
		harness.AppendTo(t, o.Path("f"), "+1")
		again := harness.Open(t, o.Path("f"), os.O_RDONLY)
		harness.AppendTo(t, o.Path("f"), "+2")
		harness.Shell(t, e.Dir, "printf +3 >> mnt/f")
		for name, f := range map[string]*os.File{"before": reader, "after": again} {
			_, err := f.Seek(0, io.SeekStart)
			harness.Check(t, err)
			text, err := io.ReadAll(f)
			harness.Check(t, err)
			harness.Equal(t, "what a reader that opened "+name+" copy-up sees", string(text), "lower+1+2+3")
		}
		harness.WantText(t, filepath.Join(o.Lowers[0], "f"), "lower")
		unmountBusy(o, reader, again)
		harness.WantText(t, filepath.Join(o.Lowers[0], "f"), "lower")
		harness.WantText(t, filepath.Join(o.Upper, "f"), "lower+1+2+3")
	})
}

// unmountBusy closes files and unmounts.
func unmountBusy(o *harness.Overlay, files ...*os.File) {
	o.T.Helper()
	for _, f := range files {
		harness.Check(o.T, f.Close())
	}
	o.Unmount()
}

// A directory of the lower that is removed and made again at the root of the mount is empty after a
// remount too.
func TestFaultDirectoryMadeAgainAtRoot(t *testing.T) {
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, "file d/low \"x\"\nfile d/sub/low \"x\"\nfile p/d/low \"x\"")
		for _, d := range []string{"d", "p/d"} {
			harness.Check(t, os.RemoveAll(o.Path(d)))
			harness.Check(t, os.Mkdir(o.Path(d), 0o755))
			harness.WantNames(t, o.Path(d))
		}
		o.Remount()
		harness.WantTree(t, "merged", o.Point, "dir d\ndir p/d")
		o.Unmount()
		harness.WantTree(t, "the upper", o.Upper, "opaque d\nopaque p/d")
	})
}

// After an append through one of two lower hard links, the other has the old or the new content: no
// mix of both, and no NULs.
func TestFaultTwoLowerHardLinksAppend(t *testing.T) {
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		for _, first := range []string{"write", "read both, then write"} {
			t.Run(first, func(t *testing.T) {
				o := harness.NewEnv(t, e.Mode).Mounted(t, "file a \"one\"\nlink b a\nlink d/c a")
				if first != "write" {
					for _, name := range []string{"a", "b", "d/c"} {
						harness.WantText(t, o.Path(name), "one")
					}
				}
				harness.AppendTo(t, o.Path("a"), "+two")
				harness.WantText(t, o.Path("a"), "one+two")
				now := oldOrSame(t, o)
				o.Remount()
				harness.WantText(t, o.Path("a"), "one+two")
				if later := oldOrSame(t, o); later != now {
					t.Errorf("b was %q before the remount and is %q after it", now, later)
				}
				harness.AppendTo(t, o.Path("b"), "+three")
				want := now + "+three"
				harness.WantText(t, o.Path("b"), want)
				o.Remount()
				harness.WantText(t, o.Path("b"), want)
				harness.WantText(t, filepath.Join(o.Lowers[0], "a"), "one")
			})
		}
	})
}

func oldOrSame(t *testing.T, o *harness.Overlay) string {
	t.Helper()
	b, err := os.ReadFile(o.Path("b"))
	harness.Check(t, err)
	if string(b) != "one" && string(b) != "one+two" {
		t.Errorf("the other name holds %q", b)
	}
	harness.WantText(t, o.Path("d/c"), string(b))
	return string(b)
}

func TestFaultFirstAppendKeepsBytes(t *testing.T) {
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, "file f \"abc\"\nfile g \"abc\"\nfile h \"abc\"")
		harness.AppendTo(t, o.Path("f"), "d")
		harness.Shell(t, o.Point, "echo d >> g")
		f := harness.Open(t, o.Path("h"), os.O_WRONLY)
		_, err := f.WriteAt([]byte("X"), 5)
		harness.Check(t, err)
		for range 2 {
			harness.WantText(t, o.Path("f"), "abcd")
			harness.WantText(t, o.Path("g"), "abcd\n")
			harness.WantText(t, o.Path("h"), "abc\x00\x00X")
			_ = f.Close()
			o.Remount()
		}
	})
}

// The steps of dpkg at every purge.
func TestFaultRenameOverThenRemove(t *testing.T) {
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, "file f \"lower\"\nfile d/f \"lower\"\nsymlink s f")
		harness.Shell(t, o.Point, "echo n >f.new; mv f.new f; rm f; echo n >d/f.new; mv d/f.new d/f; rm d/f; ln -s x s.new; mv s.new s; rm s")
		harness.WantTree(t, "merged", o.Point, "dir d")
		o.Remount()
		harness.WantTree(t, "merged after a remount", o.Point, "dir d")
		o.Unmount()
		harness.WantTree(t, "the upper", o.Upper, "white f\nwhite d/f\nwhite s")
	})
}

func TestFaultAttributesOfLowerSpecialFiles(t *testing.T) {
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		table, names := "fifo p 0600\nsock s 0600", []string{"p", "s"}
		if e.Mode == harness.ModeRoot {
			table += "\nchar c 1/3 0600\nblock b 7/250 0600"
			names = append(names, "c", "b")
		}
		o := e.Mounted(t, table)
		for _, name := range names {
			before := harness.Lstat(t, o.Path(name))
			harness.Check(t, os.Chmod(o.Path(name), 0o640))
			uid, gid := os.Getuid(), os.Getgid()
			if e.Mode != harness.ModeFusermount {
				uid, gid = 1, 2
			}
			harness.Check(t, os.Lchown(o.Path(name), uid, gid))
			harness.Check(t, harness.SetTimes(o.Path(name), harness.OldTime))
			for range 2 {
				st := harness.Lstat(t, o.Path(name))
				harness.Equal(t, name+": mode", st.Mode, before.Mode&unix.S_IFMT|0o640)
				harness.Equal(t, name+": rdev", st.Rdev, before.Rdev)
				harness.Equal(t, name+": owner", fmt.Sprint(st.Uid, st.Gid), fmt.Sprint(uid, gid))
				harness.Equal(t, name+": mtime", st.Mtim.Sec, harness.OldTime.Unix())
				o.Remount()
			}
			harness.Equal(t, name+" in the upper", harness.Lstat(t, filepath.Join(o.Upper, name)).Mode,
				before.Mode&unix.S_IFMT|0o640)
		}
	})
}

// steps are the twelve steps of an image build. Each makes a layer.
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

// An image built in twelve steps through the mount is the same as one built with the kernel's
// overlayfs.
func TestFaultImageInTwelveSteps(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.RootModes, func(t *testing.T, e *harness.Env) {
		ours, theirs := buildImage(t, e, harness.Ours), buildImage(t, e, harness.Kernel)
		for i := range steps {
			// Both show the same tree of the layers that one of them has written.
			for name, layers := range map[string][]string{"ours": ours, "kernel's": theirs} {
				k := showLayers(t, e, layers[:i+1], harness.Kernel)
				o := showLayers(t, e, layers[:i+1], harness.Ours)
				if d := harness.DiffLines(k, o); d != "" {
					t.Errorf("after step %d, %s layers, the kernel and the program show:\n%s", i+1, name, d)
				}
			}
			if d := harness.DiffLines(showLayers(t, e, theirs[:i+1], harness.Kernel),
				showLayers(t, e, ours[:i+1], harness.Kernel)); d != "" {
				t.Fatalf("after step %d the kernel's image and that of the program differ:\n%s", i+1, d)
			}
		}
	})
}

// buildImage makes a layer of each step, above those before.
func buildImage(t *testing.T, e *harness.Env, by harness.Implementation) (layers []string) {
	t.Helper()
	root := filepath.Join(e.Dir, string(by))
	harness.Mkdir(t, root+"/base", root+"/mnt")
	layers = []string{root + "/base"}
	for i, step := range steps {
		o := &harness.Overlay{T: t, Env: e, Kernel: by == harness.Kernel, Point: root + "/mnt", Log: root + "/log"}
		o.Lowers = reversed(layers)
		o.Upper, o.Work = fmt.Sprintf("%s/diff%d", root, i), fmt.Sprintf("%s/work%d", root, i)
		harness.Mkdir(t, o.Upper, o.Work)
		o.Mount()
		harness.Shell(t, o.Point, step)
		o.Unmount()
		layers = append(layers, o.Upper)
	}
	return layers[1:]
}

func reversed(layers []string) (r []string) {
	for i := len(layers) - 1; i >= 0; i-- {
		r = append(r, layers[i])
	}
	return r
}

// showLayers is a snapshot of a read-only mount of layers, the lowest first.
func showLayers(t *testing.T, e *harness.Env, layers []string, by harness.Implementation) map[string]string {
	t.Helper()
	empty := filepath.Join(e.Dir, "empty")
	harness.Mkdir(t, empty, filepath.Join(e.Dir, "show"))
	o := &harness.Overlay{T: t, Env: e, Kernel: by == harness.Kernel, Point: filepath.Join(e.Dir, "show"),
		Lowers: append(reversed(layers), empty)}
	o.Mount()
	lines, err := harness.Snapshot(o.Point, harness.FullView)
	harness.Check(t, err)
	o.Unmount()
	return lines
}

// A mount without a workdir fails.
func TestFaultMissingWorkdirOption(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "file f \"x\"")
		out, err := harness.Run(harness.Program, "-o", "lowerdir="+o.Lowers[0]+",upperdir="+o.Upper, o.Point)
		if err == nil || !strings.Contains(out, "workdir") || o.IsMounted() {
			t.Errorf("upperdir without workdir: %v, %q, mounted %v", err, out, o.IsMounted())
		}
	})
}

func TestFaultLinkCountAfterLinkOfLowerFile(t *testing.T) {
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, "file f \"x\"\nfile g \"x\"\nsymlink s f")
		f := harness.Open(t, o.Path("f"), os.O_RDONLY)
		for i := 2; i <= 4; i++ {
			name := fmt.Sprintf("link%d", i)
			harness.Check(t, os.Link(o.Path("f"), o.Path(name)))
			for _, n := range []string{"f", name} {
				harness.Equal(t, n+": nlink", int(harness.Lstat(t, o.Path(n)).Nlink), i)
			}
			harness.Equal(t, "fstat nlink", int(harness.Fstat(t, f).Nlink), i)
			if !harness.Oracle { // xino=off
				harness.Equal(t, "inode", harness.Lstat(t, o.Path(name)).Ino, harness.Lstat(t, o.Path("f")).Ino)
			}
		}
		harness.Check(t, os.Remove(o.Path("f")))
		harness.Equal(t, "nlink after a removal", harness.Lstat(t, o.Path("link2")).Nlink, 3)
		harness.Check(t, syscall.Link(o.Path("g"), o.Path("g2")))
		harness.Check(t, os.Remove(o.Path("g")))
		harness.Equal(t, "nlink of g2", harness.Lstat(t, o.Path("g2")).Nlink, 1)
		harness.Check(t, f.Close())
		o.Remount()
		harness.Equal(t, "nlink after a remount", harness.Lstat(t, o.Path("link3")).Nlink, 3)
		harness.WantText(t, o.Path("link4"), "x")
		harness.WantAbsent(t, o.Path("f"))
	})
}
