package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// disk makes a file system of its own, of some type, and mounts it.
func (e *env) disk(t *testing.T, fstype string) string {
	t.Helper()
	image, err := os.CreateTemp(e.dir, "image-")
	check(t, err)
	defer image.Close()
	check(t, image.Truncate(320<<20))
	args := []string{"-q", image.Name()}
	if fstype == "ext4" {
		args = append([]string{"-E", "lazy_itable_init=1"}, args...)
	}
	if out, err := runCommand("mkfs."+fstype, args...); err != nil {
		t.Fatalf("mkfs.%s: %v\n%s", fstype, err, out)
	}
	point := image.Name() + ".d"
	mkdir(t, point)
	if out, err := runCommand("mount", "-t", fstype, "-o", "loop", image.Name(), point); err != nil {
		t.Fatalf("mounting the %s: %v\n%s", fstype, err, out)
	}
	t.Cleanup(func() { check(t, unmountAt(point)) })
	return point
}

// mountKernelWith mounts by the kernel's overlayfs, with options of the test's.
func (o *overlay) mountKernelWith(options string) {
	o.t.Helper()
	data := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s,%s", strings.Join(o.lowers, ":"), o.upper, o.work, options)
	if err := mountOverlayfs(o.mnt, 0, data); err != nil {
		o.t.Fatalf("kernel overlayfs (%s): %v", data, err)
	}
	o.pid = 0
	o.t.Cleanup(o.cleanup)
}

// numbers are the inode numbers and link counts of everything in a tree but directories' link counts (D1). It fails the test
// where a listing tells other numbers, or two objects have one.
func numbers(t *testing.T, root string) map[string]string {
	t.Helper()
	if faults := identityFaults(root); faults != "" {
		t.Error(faults)
	}
	all, of := map[string]string{}, map[uint64]string{}
	check(t, filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st := lstat(t, path)
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

// wantNumbers compares two answers of numbers.
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

// comeUp changes a tree made of originTree. first returns the number that each object had before, by the path that it has then.
func comeUp(t *testing.T, o *overlay) map[string]uint64 {
	t.Helper()
	had := map[string]uint64{}
	for from, to := range map[string]string{
		"d/f": "d/f", "d/g": "e/g", "d/h": "e/x", "d/l": "e/l", "d/p": "d/p", "d/sub": "d/sub", "d/untouched": "d/untouched",
		"r/a": "e/a", "r/a/in": "e/a/in", "r/b": "r/b",
	} {
		had[to] = lstat(t, o.path(from)).Ino
	}
	appendTo(t, o.path("d/f"), "+")
	check(t, os.Rename(o.path("d/g"), o.path("e/g")))
	appendTo(t, o.path("d/h"), "+")
	check(t, os.Rename(o.path("d/h"), o.path("e/x"))) // over another
	check(t, os.Lchown(o.path("d/l"), 5, 5))
	check(t, os.Rename(o.path("d/l"), o.path("e/l")))
	check(t, os.Chmod(o.path("d/p"), 0o600))
	check(t, os.Chmod(o.path("d/sub"), 0o700))
	check(t, os.Rename(o.path("r/a"), o.path("e/a")))
	appendTo(t, o.path("e/a/in"), "+")
	check(t, os.Link(o.path("r/b"), o.path("d/linked")))
	appendTo(t, o.path("two/one"), "+") // one of two links
	write(t, o.path("d/new"), "new")
	return had
}

// An object keeps its st_ino over copy-up, rename and remount, and the kernel's overlayfs and this program give the same
// numbers for an upper that either has written, on one file system and on several.
func TestNumbersAndTheKernel(t *testing.T) {
	needDaemon(t)
	const kernelHas = "index=off,metacopy=off,xino=on,redirect_dir=on"
	for _, layout := range []struct{ upper, lowers []string }{
		{[]string{"ext4"}, []string{""}}, {[]string{"xfs"}, []string{""}}, {[]string{"btrfs"}, []string{""}},
		{[]string{"ext4"}, []string{"xfs"}}, {[]string{"ext4"}, []string{"ext4", "ext4"}}, {[]string{"xfs"}, []string{"btrfs", "ext4"}},
	} {
		for _, first := range []string{"here", "kernel"} {
			t.Run(fmt.Sprint(layout.upper, layout.lowers, " written ", first), func(t *testing.T) {
				eachMode(t, onlyRoot, func(t *testing.T, e *env) {
					o := e.overlay(t)
					o.opts = append(o.opts, redirects, "xino=on")
					disk := e.disk(t, layout.upper[0])
					o.upper, o.work, o.lowers = filepath.Join(disk, "upper"), filepath.Join(disk, "work"), nil
					mkdir(t, o.upper, o.work)
					for i, fstype := range layout.lowers {
						lower := filepath.Join(disk, fmt.Sprint("lower", i))
						if fstype != "" {
							lower = filepath.Join(e.disk(t, fstype), "lower")
						}
						mkdir(t, lower)
						build(t, e, lower, []string{originTree, "dir d\nfile d/deep \"deep\"\nfile d/deeper \"deeper\""}[i])
						o.lowers = append(o.lowers, lower)
					}
					mount := map[string]func(){"here": o.mount, "kernel": func() { o.mountKernelWith(kernelHas) }}
					mount[first]()
					had := comeUp(t, o)
					running := numbers(t, o.mnt)
					for path, ino := range had {
						equal(t, path+" after the copy-up", lstat(t, o.path(path)).Ino, ino)
					}
					o.unmount()
					for _, by := range []string{"kernel", "here", "here", "kernel"} {
						mount[by]()
						wantNumbers(t, "mounted by "+by, numbers(t, o.mnt), running)
						o.unmount()
					}
					// What the one adds is known to the other too.
					second := map[string]string{"here": "kernel", "kernel": "here"}[first]
					mount[second]()
					was := lstat(t, o.path("d/untouched")).Ino
					check(t, os.Rename(o.path("d/untouched"), o.path("r/touched")))
					running = numbers(t, o.mnt)
					equal(t, "r/touched", lstat(t, o.path("r/touched")).Ino, was)
					o.unmount()
					mount[first]()
					wantNumbers(t, "changed by "+second, numbers(t, o.mnt), running)
					o.unmount()
				})
			})
		}
	}
}

// The numbers are the kernel's too without an upper, and with layers that have nothing but data.
func TestNumbersOfLowers(t *testing.T) {
	needDaemon(t)
	eachMode(t, onlyRoot, func(t *testing.T, e *env) {
		disks := []string{e.disk(t, "ext4"), e.disk(t, "ext4"), e.disk(t, "xfs")}
		for i, disk := range disks {
			for _, name := range []string{"lower", "upper", "work"} {
				mkdir(t, filepath.Join(disk, name))
			}
			build(t, e, disk+"/lower", fmt.Sprintf("file d/f%d\ndir d/sub%d", i, i))
		}
		options := "xino=on,index=off,redirect_dir=on,metacopy=on"
		for what, layers := range map[string]string{
			"read-only": "lowerdir=" + disks[0] + "/lower:" + disks[1] + "/lower:" + disks[2] + "/lower",
			"data":      "lowerdir=" + disks[0] + "/lower:" + disks[1] + "/lower::" + disks[2] + "/lower",
			"data, writable": "lowerdir=" + disks[0] + "/lower::" + disks[2] + "/lower,upperdir=" + disks[1] + "/upper,workdir=" +
				disks[1] + "/work",
		} {
			o := e.overlay(t)
			check(t, mountOverlayfs(o.mnt, 0, layers+","+options))
			want := numbers(t, o.mnt)
			check(t, unmountAt(o.mnt))
			out, err := runCommand(binPath, "-o", layers+","+options, o.mnt)
			if err != nil {
				t.Fatalf("%s: %v\n%s", what, err, out)
			}
			wantNumbers(t, what, numbers(t, o.mnt), want)
			check(t, unmountAt(o.mnt))
			for _, pid := range daemonsOf(o.mnt) {
				waitGone(pid, commandLimit)
			}
			check(t, os.RemoveAll(o.upper))
			check(t, os.RemoveAll(o.work))
			check(t, os.RemoveAll(o.mnt))
		}
	})
}

// Every mode keeps numbers over a remount: without the right to open by a handle, of what still has its name.
func TestNumbersOverARemount(t *testing.T) {
	needDaemon(t)
	eachMode(t, allModes, func(t *testing.T, e *env) {
		o := e.mounted(t, "file d/f \"f\"\nfile d/g \"g\"\nfile d/h 0444 \"h\"\ndir d/sub\nfile e/x \"x\"")
		had := map[string]uint64{}
		for _, name := range []string{"d", "d/f", "d/g", "d/h", "d/sub", "e/x"} {
			had[name] = lstat(t, o.path(name)).Ino
		}
		appendTo(t, o.path("d/f"), "+")
		check(t, os.Chmod(o.path("d/g"), 0o600))
		check(t, os.Chmod(o.path("d/h"), 0o444))
		check(t, os.Chmod(o.path("d/sub"), 0o700))
		for range 3 {
			for name, ino := range had {
				equal(t, name, lstat(t, o.path(name)).Ino, ino)
			}
			numbers(t, o.mnt)
			o.remount()
		}
		check(t, os.Rename(o.path("d/f"), o.path("e/f")))
		equal(t, "after a rename", lstat(t, o.path("e/f")).Ino, had["d/f"])
		o.remount()
		if now := lstat(t, o.path("e/f")).Ino; (now == had["d/f"]) != (e.mode == modeRoot) {
			t.Errorf("after a rename and a remount the number is %#x; it was %#x", now, had["d/f"])
		}
		numbers(t, o.mnt)
	})
}

// With uuid=off handles have no number of a file system; each program knows those of the other. A new upper gets a number of
// its own, as the kernel gives it, and with null or off it gets none.
func TestUUIDs(t *testing.T) {
	needDaemon(t)
	eachMode(t, onlyRoot, func(t *testing.T, e *env) {
		for _, c := range []struct {
			uuid  string
			given bool
		}{{"auto", true}, {"on", true}, {"null", false}, {"off", false}} {
			t.Run(c.uuid, func(t *testing.T) {
				e := newEnv(t, modeRoot)
				o := e.overlay(t)
				disk := e.disk(t, "ext4")
				o.lowers, o.upper, o.work = []string{disk + "/lower"}, disk+"/upper", disk+"/work"
				mkdir(t, o.lowers[0], o.upper, o.work)
				build(t, e, o.lowers[0], "file d/f \"f\"\nfile d/g \"g\"")
				o.opts = append(o.opts, "uuid="+c.uuid)
				o.mount()
				appendTo(t, o.path("d/f"), "+")
				was := numbers(t, o.mnt)
				o.unmount()
				number, err := getXattr(o.upper, "trusted.overlay.uuid")
				equal(t, "a number of the upper", err == nil && len(number) == 16, c.given)
				handle := xattrOf(filepath.Join(o.upper, "d/f"), "trusted.overlay.origin")
				equal(t, "a handle without the number of its file system", handle[5:21] == strings.Repeat("\x00", 16), c.uuid == "off")
				o.mountKernelWith("uuid=" + c.uuid)
				wantNumbers(t, "the kernel", numbers(t, o.mnt), was)
				appendTo(t, o.path("d/g"), "+")
				o.unmount()
				now, _ := getXattr(o.upper, "trusted.overlay.uuid")
				equal(t, "the number", now, number)
				o.mount()
				wantNumbers(t, "remounted", numbers(t, o.mnt), was)
				o.unmount()
			})
		}
	})
}

// The kernel's attributes of origin cannot be seen or made through the mount.
func TestOriginsAreNotShown(t *testing.T) {
	eachMode(t, rootModes, func(t *testing.T, e *env) {
		o := e.mounted(t, "file d/f \"f\"")
		appendTo(t, o.path("d/f"), "+")
		for _, path := range []string{"", "d", "d/f"} {
			buf := make([]byte, 4096)
			n, err := unix.Llistxattr(o.path(path), buf)
			check(t, err)
			for name := range strings.SplitSeq(string(buf[:n]), "\x00") {
				if strings.Contains(name, "overlay") {
					t.Errorf("%q shows %s", path, name)
				}
			}
		}
		name := strings.TrimSuffix(e.opaqueName(), "opaque") + "origin"
		check(t, unix.Lsetxattr(o.path("d/f"), name, []byte("mine"), 0))
		if e.mode == modeRoot && xattrOf(filepath.Join(o.upper, "d/f"), name) == "mine" {
			t.Error("the origin was set through the mount")
		}
		_, err := getXattr(filepath.Join(o.upper, "d/f"), name)
		if err != nil && err != syscall.ENODATA {
			t.Error(err)
		}
	})
}
