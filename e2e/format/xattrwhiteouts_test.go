package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Whiteouts as attributes: written where devices are refused and it is asked for, read by the kernel where they lie in a lower.
func TestXattrWhiteouts(t *testing.T) {
	needDaemon(t)
	eachMode(t, allModes, func(t *testing.T, e *env) {
		o := e.overlay(t, `
			file top "t"
			file a/b/f "1"
			file a/b/g "2"
			file a/dir/x "3"
			file a/gone/y/z "4"
			file a/moved "5"
			file a/again "6"
			file kept "7"`, "file a/b/f \"below\"\nfile a/dir/below\nfile top \"below\"")
		o.opts = append([]string{"xattr_whiteouts"}, e.opts...)
		t.Setenv("FUSE_OVERLAYFS_DISABLE_OVL_WHITEOUT", "1") // as on a file system without devices
		o.mount()
		removed := []string{"top", "a/b/f", "a/b/g", "a/moved"}
		check(t, os.Remove(o.path("top")))
		check(t, os.Remove(o.path("a/b/f")))
		check(t, os.Remove(o.path("a/b/g")))
		check(t, os.RemoveAll(o.path("a/gone")))
		check(t, os.RemoveAll(o.path("a/dir")))
		write(t, o.path("a/dir"), "now a file")
		check(t, os.Rename(o.path("a/moved"), o.path("a/here")))
		check(t, os.Remove(o.path("a/again")))
		check(t, os.Mkdir(o.path("a/again"), 0o755))
		const want = "dir a/b\nfile a/dir \"now a file\"\nfile a/here \"5\"\ndir a/again\nfile kept \"7\""
		wantTree(t, "the mount", o.mnt, want)
		o.remount()
		wantTree(t, "after a remount", o.mnt, want)
		o.unmount()
		if out := sh(t, o.upper, `find . -name '.wh.*' -o -type c`); out != "" {
			t.Errorf("other whiteouts in the upper: %s", out)
		}
		prefix := strings.TrimSuffix(e.opaqueName(), "opaque")
		for _, path := range removed {
			equal(t, path, xattrOf(filepath.Join(o.upper, path), prefix+"whiteout"), "")
			equal(t, "the folder of "+path, xattrOf(filepath.Dir(filepath.Join(o.upper, path)), prefix+"opaque"), "x")
		}

		// By a mount that could make devices.
		os.Unsetenv("FUSE_OVERLAYFS_DISABLE_OVL_WHITEOUT")
		o.opts = e.opts
		o.mount()
		wantTree(t, "without the option", o.mnt, want)
		o.unmount()
		view, lowers, upper := full, o.lowers, o.upper
		o.lowers, o.upper = append([]string{o.upper}, o.lowers...), ""
		o.mount()
		ours, err := snapshot(o.mnt, view)
		check(t, err)
		o.unmount()
		if e.mode == modeFusermount {
			return
		}
		check(t, o.kernelWith(e.readOnlyOption()))
		wantTree(t, "in the kernel, as a lower", o.mnt, want)
		theirs, err := snapshot(o.mnt, view)
		check(t, err)
		if d := diffLines(theirs, ours); d != "" {
			t.Errorf("the kernel shows something else:\n%s", d)
		}
		check(t, unmountAt(o.mnt))
		o.lowers, o.upper = lowers, upper
		check(t, o.kernelWith(e.userOption())) // which looks for these in lowers only, and may list what is not there
		for _, path := range removed {
			_, err := os.Lstat(o.path(path))
			wantErr(t, path+" in the kernel, as the upper", err, syscall.ENOENT)
		}
	})
}

// readOnlyOption is userOption for a mount without an upper.
func (e *env) readOnlyOption() string {
	if e.mode == modeRoot {
		return "redirect_dir=follow"
	}
	return "userxattr"
}

// Where devices can be made they are, and whiteouts that are attributes in a lower mean the same to both.
func TestXattrWhiteoutsOfOthers(t *testing.T) {
	needDaemon(t)
	eachMode(t, rootModes, func(t *testing.T, e *env) {
		o := e.overlay(t, "file a/f\nfile a/empty\nfile top\nfile plain/f", "file a/f \"1\"\nfile a/g \"2\"\nfile top \"3\"\nfile plain/f \"4\"")
		prefix := strings.TrimSuffix(e.opaqueName(), "opaque")
		for _, dir := range []string{"", "a"} {
			check(t, unix.Setxattr(filepath.Join(o.lowers[0], dir), prefix+"opaque", []byte("x"), 0))
		}
		for _, path := range []string{"a/f", "top"} {
			check(t, unix.Setxattr(filepath.Join(o.lowers[0], path), prefix+"whiteout", []byte("any"), 0))
		}
		const want = "file a/empty \"\"\nfile a/g \"2\"\nfile plain/f \"\""
		check(t, o.kernelWith(e.userOption()))
		wantTree(t, "the kernel", o.mnt, want)
		check(t, unmountAt(o.mnt))
		o.opts = append([]string{"xattr_whiteouts"}, e.opts...)
		o.mount()
		wantTree(t, "this program", o.mnt, want)
		check(t, os.Remove(o.path("a/g")))
		o.unmount()
		wantTree(t, "the upper", o.upper, "white a/g")
	})
}
