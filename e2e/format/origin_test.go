package format

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
)

// numbers are the inode numbers and link counts of all objects of a tree, but for the link counts
// of directories (D1). It fails the test if a listing has other numbers, or if two objects have one
// number.
func numbers(t *testing.T, root string) map[string]string {
	t.Helper()
	if faults := harness.IdentityFaults(root); faults != "" {
		t.Error(faults)
	}
	all, of := map[string]string{}, map[uint64]string{}
	harness.Check(t, filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st := harness.Lstat(t, path)
		if other, ok := of[st.Ino]; ok && st.Nlink == 1 {
			t.Errorf("%s and %s have the number %#x", path, other, st.Ino)
		}
		of[st.Ino] = path
		rel := strings.TrimPrefix(path, root)
		all[rel] = fmt.Sprintf("%#x", st.Ino)
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			all[rel] += fmt.Sprintf(" %d", st.Nlink)
		}
		return nil
	}))
	return all
}

// wantNumbers compares two results of numbers.
func wantNumbers(t *testing.T, what string, got, want map[string]string) {
	t.Helper()
	for path, number := range want {
		if got[path] != number {
			t.Errorf("%s: %s is %s, want %s", what, path, got[path], number)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%s: %d objects, want %d", what, len(got), len(want))
	}
}

const originTree = "file d/f \"f\"\nfile d/g \"g\"\nfile d/h \"h\"\nfile d/untouched \"u\"\nsymlink d/l nowhere\nfifo d/p\ndir d/sub\nfile e/x \"x\"\n" +
	"file r/a/in \"in\"\nfile r/b \"b\"\nfile two/one \"links\"\nlink two/other two/one"

// comeUp changes a tree made of originTree, and so copies it up. first is the number of each object
// before, by its later path.
func comeUp(t *testing.T, o *harness.Overlay) map[string]uint64 {
	t.Helper()
	had := map[string]uint64{}
	for from, to := range map[string]string{
		"d/f": "d/f", "d/g": "e/g", "d/h": "e/x", "d/l": "e/l", "d/p": "d/p", "d/sub": "d/sub", "d/untouched": "d/untouched",
		"r/a": "e/a", "r/a/in": "e/a/in", "r/b": "r/b",
	} {
		had[to] = harness.Lstat(t, o.Path(from)).Ino
	}
	harness.AppendTo(t, o.Path("d/f"), "+")
	harness.Check(t, os.Rename(o.Path("d/g"), o.Path("e/g")))
	harness.AppendTo(t, o.Path("d/h"), "+")
	harness.Check(t, os.Rename(o.Path("d/h"), o.Path("e/x"))) // over another
	harness.Check(t, os.Lchown(o.Path("d/l"), 5, 5))
	harness.Check(t, os.Rename(o.Path("d/l"), o.Path("e/l")))
	harness.Check(t, os.Chmod(o.Path("d/p"), 0o600))
	harness.Check(t, os.Chmod(o.Path("d/sub"), 0o700))
	harness.Check(t, os.Rename(o.Path("r/a"), o.Path("e/a")))
	harness.AppendTo(t, o.Path("e/a/in"), "+")
	harness.Check(t, os.Link(o.Path("r/b"), o.Path("d/linked")))
	harness.AppendTo(t, o.Path("two/one"), "+") // one of two links
	harness.Write(t, o.Path("d/new"), "new")
	return had
}

// An object keeps its st_ino over copy-up, rename and remount. The kernel's overlayfs and the
// program show the same numbers of an upper that either has written, on one file system and on
// several.
func TestNumbersAndTheKernel(t *testing.T) {
	harness.NeedDaemon(t)
	const kernelHas = "index=off,metacopy=off,xino=on,redirect_dir=on"
	for _, layout := range []struct{ upper, lowers []string }{
		{[]string{"ext4"}, []string{""}}, {[]string{"xfs"}, []string{""}}, {[]string{"btrfs"}, []string{""}},
		{[]string{"ext4"}, []string{"xfs"}}, {[]string{"ext4"}, []string{"ext4", "ext4"}},
		{[]string{"xfs"}, []string{"btrfs", "ext4"}},
	} {
		for _, first := range []string{"here", "kernel"} {
			t.Run(fmt.Sprint(layout.upper, layout.lowers, " written ", first), func(t *testing.T) {
				harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
					o := e.Overlay(t)
					o.Opts = append(o.Opts, harness.Redirects, "xino=on")
					disk := testkit.MountImage(t, layout.upper[0], "loop")
					o.Upper, o.Work, o.Lowers = filepath.Join(disk, "upper"), filepath.Join(disk, "work"), nil
					harness.Mkdir(t, o.Upper, o.Work)
					for i, fstype := range layout.lowers {
						lower := filepath.Join(disk, fmt.Sprint("lower", i))
						if fstype != "" {
							lower = filepath.Join(testkit.MountImage(t, fstype, "loop"), "lower")
						}
						harness.Mkdir(t, lower)
						harness.Build(t, e, lower, []string{originTree, "dir d\nfile d/deep \"deep\"\nfile d/deeper \"deeper\""}[i])
						o.Lowers = append(o.Lowers, lower)
					}
					mount := map[string]func(){"here": o.Mount, "kernel": func() { harness.Check(t, o.MountKernelWith(kernelHas)) }}
					mount[first]()
					had := comeUp(t, o)
					running := numbers(t, o.Point)
					for path, ino := range had {
						harness.Equal(t, path+" after the copy-up", harness.Lstat(t, o.Path(path)).Ino, ino)
					}
					o.Unmount()
					for _, by := range []string{"kernel", "here", "here", "kernel"} {
						mount[by]()
						wantNumbers(t, "mounted by "+by, numbers(t, o.Point), running)
						o.Unmount()
					}
					// Each shows the new objects of the other with the same numbers.
					second := map[string]string{"here": "kernel", "kernel": "here"}[first]
					mount[second]()
					was := harness.Lstat(t, o.Path("d/untouched")).Ino
					harness.Check(t, os.Rename(o.Path("d/untouched"), o.Path("r/touched")))
					running = numbers(t, o.Point)
					harness.Equal(t, "r/touched", harness.Lstat(t, o.Path("r/touched")).Ino, was)
					o.Unmount()
					mount[first]()
					wantNumbers(t, "changed by "+second, numbers(t, o.Point), running)
					o.Unmount()
				})
			})
		}
	}
}

// The numbers are those of the kernel without an upper too, and with data-only layers.
func TestNumbersOfLowers(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		disks := []string{testkit.MountImage(t, "ext4", "loop"), testkit.MountImage(t, "ext4", "loop"),
			testkit.MountImage(t, "xfs", "loop")}
		for i, disk := range disks {
			for _, name := range []string{"lower", "upper", "work"} {
				harness.Mkdir(t, filepath.Join(disk, name))
			}
			harness.Build(t, e, disk+"/lower", fmt.Sprintf("file d/f%d\ndir d/sub%d", i, i))
		}
		options := "xino=on,index=off,redirect_dir=on,metacopy=on"
		for what, layers := range map[string]string{
			"read-only": "lowerdir=" + disks[0] + "/lower:" + disks[1] + "/lower:" + disks[2] + "/lower",
			"data":      "lowerdir=" + disks[0] + "/lower:" + disks[1] + "/lower::" + disks[2] + "/lower",
			"data, writable": "lowerdir=" + disks[0] + "/lower::" + disks[2] + "/lower,upperdir=" + disks[1] +
				"/upper,workdir=" +
				disks[1] + "/work",
		} {
			if strings.HasPrefix(what, "data") && !harness.KernelAtLeast(t, 6, 5) {
				continue // the kernel's overlayfs has no data-only layers
			}
			o := e.Overlay(t)
			harness.Check(t, harness.MountOverlayfs(o.Point, 0, layers+","+options))
			want := numbers(t, o.Point)
			harness.Check(t, harness.UnmountAt(o.Point))
			out, err := harness.Run(harness.Program, "-o", layers+","+options, o.Point)
			if err != nil {
				t.Fatalf("%s: %v\n%s", what, err, out)
			}
			wantNumbers(t, what, numbers(t, o.Point), want)
			harness.Check(t, harness.UnmountAt(o.Point))
			for _, pid := range harness.DaemonsOf(o.Point) {
				harness.WaitGone(pid, harness.CommandLimit)
			}
			harness.Check(t, os.RemoveAll(o.Upper))
			harness.Check(t, os.RemoveAll(o.Work))
			harness.Check(t, os.RemoveAll(o.Point))
		}
	})
}

// Every mode keeps numbers over a remount. Without the right to open by handle this holds for
// objects that keep their names.
func TestNumbersOverARemount(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, "file d/f \"f\"\nfile d/g \"g\"\nfile d/h 0444 \"h\"\ndir d/sub\nfile e/x \"x\"")
		had := map[string]uint64{}
		for _, name := range []string{"d", "d/f", "d/g", "d/h", "d/sub", "e/x"} {
			had[name] = harness.Lstat(t, o.Path(name)).Ino
		}
		harness.AppendTo(t, o.Path("d/f"), "+")
		harness.Check(t, os.Chmod(o.Path("d/g"), 0o600))
		harness.Check(t, os.Chmod(o.Path("d/h"), 0o444))
		harness.Check(t, os.Chmod(o.Path("d/sub"), 0o700))
		for range 3 {
			for name, ino := range had {
				harness.Equal(t, name, harness.Lstat(t, o.Path(name)).Ino, ino)
			}
			numbers(t, o.Point)
			o.Remount()
		}
		harness.Check(t, os.Rename(o.Path("d/f"), o.Path("e/f")))
		harness.Equal(t, "after a rename", harness.Lstat(t, o.Path("e/f")).Ino, had["d/f"])
		o.Remount()
		if now := harness.Lstat(t, o.Path("e/f")).Ino; (now == had["d/f"]) != (e.Mode == harness.ModeRoot) {
			t.Errorf("after a rename and a remount the number is %#x; it was %#x", now, had["d/f"])
		}
		numbers(t, o.Point)
	})
}

// With uuid=off handles have no UUID of a file system, and each implementation accepts those of the
// other. A new upper gets a UUID of its own, as in the kernel. With null or off it gets none.
func TestUUIDs(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		for _, c := range []struct {
			uuid  string
			given bool
		}{{"auto", true}, {"on", true}, {"null", false}, {"off", false}} {
			t.Run(c.uuid, func(t *testing.T) {
				e := harness.NewEnv(t, harness.ModeRoot)
				o := e.Overlay(t)
				disk := testkit.MountImage(t, "ext4", "loop")
				o.Lowers, o.Upper, o.Work = []string{disk + "/lower"}, disk+"/upper", disk+"/work"
				harness.Mkdir(t, o.Lowers[0], o.Upper, o.Work)
				harness.Build(t, e, o.Lowers[0], "file d/f \"f\"\nfile d/g \"g\"")
				o.Opts = append(o.Opts, "uuid="+c.uuid)
				o.Mount()
				harness.AppendTo(t, o.Path("d/f"), "+")
				was := numbers(t, o.Point)
				o.Unmount()
				number, err := harness.GetXattr(o.Upper, "trusted.overlay.uuid")
				harness.Equal(t, "a number of the upper", err == nil && len(number) == 16, c.given)
				handle := harness.XattrOf(filepath.Join(o.Upper, "d/f"), "trusted.overlay.origin")
				harness.Equal(t, "a handle without the number of its file system", handle[5:21] == strings.Repeat("\x00", 16),
					c.uuid == "off")
				if (c.uuid == "auto" || c.uuid == "null") && !harness.KernelAtLeast(t, 6, 6) {
					return // the kernel's overlayfs has uuid=on and off only
				}
				harness.Check(t, o.MountKernelWith("uuid="+c.uuid))
				wantNumbers(t, "the kernel", numbers(t, o.Point), was)
				harness.AppendTo(t, o.Path("d/g"), "+")
				o.Unmount()
				now, _ := harness.GetXattr(o.Upper, "trusted.overlay.uuid")
				harness.Equal(t, "the number", now, number)
				o.Mount()
				wantNumbers(t, "remounted", numbers(t, o.Point), was)
				o.Unmount()
			})
		}
	})
}

// The origin xattrs cannot be seen or made through the mount.
func TestOriginsAreNotShown(t *testing.T) {
	harness.EachMode(t, harness.RootModes, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, "file d/f \"f\"")
		harness.AppendTo(t, o.Path("d/f"), "+")
		for _, path := range []string{"", "d", "d/f"} {
			buf := make([]byte, 4096)
			n, err := unix.Llistxattr(o.Path(path), buf)
			harness.Check(t, err)
			for name := range strings.SplitSeq(string(buf[:n]), "\x00") {
				if strings.Contains(name, "overlay") {
					t.Errorf("%q shows %s", path, name)
				}
			}
		}
		name := e.XattrPrefix() + "origin"
		harness.Check(t, unix.Lsetxattr(o.Path("d/f"), name, []byte("mine"), 0))
		if e.Mode == harness.ModeRoot && harness.XattrOf(filepath.Join(o.Upper, "d/f"), name) == "mine" {
			t.Error("the origin was set through the mount")
		}
		_, err := harness.GetXattr(filepath.Join(o.Upper, "d/f"), name)
		if err != nil && err != syscall.ENODATA {
			t.Error(err)
		}
	})
}
