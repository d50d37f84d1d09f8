package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// userxattr: the marks are user.overlay.*, and nothing else is one, in this program as in the kernel.

// userxattrLower has marks of both namespaces; those of trusted are content.
const userxattrLower = `
	file d/f "1"
	file d/s/g "2"
	file gone "3"
	dir t
	file t/f "4"
	file f "5"
	xattr f user.a 1
	dir stays/in
	file stays/in/h "6"`

// trustedMarks puts attributes in the way that would mean something to another mount.
func trustedMarks(t *testing.T, e *env, dir string) {
	t.Helper()
	if e.mode != modeRoot {
		return
	}
	check(t, unix.Setxattr(dir+"/t", "trusted.overlay.opaque", []byte("y"), 0))
	check(t, unix.Setxattr(dir+"/t", "trusted.overlay.redirect", []byte("/d"), 0))
	check(t, unix.Setxattr(dir+"/t/f", "trusted.overlay.whiteout", nil, 0))
	check(t, unix.Setxattr(dir+"/f", "trusted.overlay.origin", []byte("o"), 0))
	check(t, unix.Setxattr(dir+"/f", "trusted.overlay.overlay.opaque", []byte("y"), 0))
}

// useUserxattr does all that leaves marks, and answers with what it was told on the way.
func useUserxattr(t *testing.T, e *env, o *overlay) string {
	t.Helper()
	var told []string
	tell := func(what string, err error) { told = append(told, what+" "+errnoName(err)) }
	set := func(path, name, value string) {
		tell("set "+name+" "+path, unix.Setxattr(o.path(path), name, []byte(value), 0))
	}
	check(t, os.Remove(o.path("gone")))
	check(t, os.RemoveAll(o.path("d")))
	check(t, os.Mkdir(o.path("d"), 0o755))
	write(t, o.path("d/new"), "n")
	appendTo(t, o.path("f"), "+")
	check(t, os.Remove(o.path("stays/in/h")))
	tell("rename of a directory with lower parts", os.Rename(o.path("stays"), o.path("moved")))
	set("f", "user.overlay.origin", "mine")
	set("stays", "user.overlay.opaque", "y")
	set("f", "user.overlay.overlay.redirect", "r")
	if e.mode == modeRoot {
		set("f", "trusted.overlay.set", "v")
		set("stays", "trusted.overlay.opaque", "y")
	}
	for _, name := range []string{"user.overlay.origin", "user.overlay.opaque", "trusted.overlay.origin", "trusted.overlay.overlay.opaque", "trusted.overlay.opaque"} {
		for _, path := range []string{"f", "d", "t", "stays"} {
			told = append(told, path+" "+name+"="+xattrOf(o.path(path), name))
		}
	}
	return strings.Join(told, "\n")
}

func TestUserxattrAndTheKernel(t *testing.T) {
	needDaemon(t)
	eachMode(t, rootModes, func(t *testing.T, e *env) {
		sides := map[bool]*overlay{}
		mount := func(o *overlay, kernel bool) {
			t.Helper()
			o.kernel = kernel
			if kernel {
				check(t, o.kernelWith("userxattr"))
				return
			}
			o.opts = append([]string{"userxattr"}, e.opts...)
			o.mount()
		}
		unmount := func(o *overlay) {
			t.Helper()
			check(t, o.tryUnmount())
			if !o.kernel {
				o.expectEnd()
			}
		}
		// Which handles are kept, and that the upper has a number of its own, is not the question here.
		marked := full
		marked.xattr = func(_, name string) (string, bool) {
			return name, name != "user.overlay.origin" && name != "user.overlay.uuid"
		}
		told, views, marks := map[bool]string{}, map[bool]map[string]string{}, map[bool]map[string]string{}
		for _, kernel := range []bool{false, true} {
			side := newEnv(t, e.mode)
			o := side.overlay(t, userxattrLower, "file t/below \"7\"")
			trustedMarks(t, e, o.lowers[0])
			sides[kernel] = o
			mount(o, kernel)
			told[kernel] = useUserxattr(t, e, o)
			view, err := snapshot(o.mnt, full)
			check(t, err)
			views[kernel] = view
			unmount(o)
			marks[kernel], err = snapshot(o.upper, marked)
			check(t, err)
		}
		equal(t, "what this program says", told[false], told[true])
		if d := diffLines(views[true], views[false]); d != "" {
			t.Errorf("the trees differ:\n%s", d)
		}
		if d := diffLines(marks[true], marks[false]); d != "" {
			t.Errorf("the uppers differ:\n%s", d)
		}
		for kernel, o := range sides { // each shows what the other has written
			mount(o, !kernel)
			view, err := snapshot(o.mnt, full)
			check(t, err)
			unmount(o)
			if d := diffLines(views[kernel], view); d != "" {
				t.Errorf("written by the kernel: %v, and not what the other shows:\n%s", kernel, d)
			}
		}
	})
}

// A redirect is refused with userxattr, as in the kernel, and so are metacopies.
func TestUserxattrFollowsNoRedirects(t *testing.T) {
	needDaemon(t)
	eachMode(t, rootModes, func(t *testing.T, e *env) {
		o := e.overlay(t, "dir d\nfile e/f \"1\"", "file low/g \"2\"")
		check(t, unix.Setxattr(filepath.Join(o.lowers[0], "d"), "user.overlay.redirect", []byte("/low"), 0))
		check(t, o.kernelWith("userxattr"))
		_, err := os.ReadDir(o.path("d"))
		wantErr(t, "the kernel", err, syscall.EPERM)
		check(t, unmountAt(o.mnt))
		o.opts = append(o.opts, "userxattr")
		o.mount()
		_, err = os.ReadDir(o.path("d"))
		wantErr(t, "this program", err, syscall.EPERM)
		wantNames(t, o.path("e"), "f")
	})
}

// Files of a lower whose data is in a data-only layer are the exception: rootless mounts are made of them.
func TestUserxattrAndDataOnlyLayers(t *testing.T) {
	needDaemon(t)
	eachMode(t, rootModes, func(t *testing.T, e *env) {
		o := e.overlay(t, "file d/f\nfile plain \"p\"", "file objects/f \"data\"")
		f := filepath.Join(o.lowers[0], "d/f")
		check(t, os.Truncate(f, 4))
		check(t, unix.Setxattr(f, "user.overlay.metacopy", nil, 0))
		check(t, unix.Setxattr(f, "user.overlay.redirect", []byte("/objects/f"), 0))
		o.lowers = []string{o.lowers[0] + "::" + o.lowers[1]}
		want := "file d/f \"data\"\nfile plain \"p\""
		check(t, o.kernelWith("userxattr"))
		wantTree(t, "the kernel", o.mnt, want)
		check(t, unmountAt(o.mnt))
		o.opts = append(o.opts, "userxattr")
		o.mount()
		wantTree(t, "this program", o.mnt, want)
		appendTo(t, o.path("d/f"), "+")
		o.remount()
		wantText(t, o.path("d/f"), "data+")
	})
}
