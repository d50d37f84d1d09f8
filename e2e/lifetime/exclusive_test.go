package e2e

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// What the kernel's overlayfs has as upper or work directory is refused, by whatever path; and nothing is changed.
func TestUpperInUseByTheKernel(t *testing.T) {
	needDaemon(t)
	eachMode(t, rootModes, func(t *testing.T, e *env) {
		o := e.overlay(t, "file f \"x\"")
		check(t, o.kernelWith(e.userOption()))
		write(t, o.path("g"), "by the kernel")
		mkdir(t, e.dir+"/work2", e.dir+"/upper2", e.dir+"/mnt2", e.dir+"/bound")
		check(t, os.Symlink(o.upper, e.dir+"/link"))
		check(t, unix.Mount(e.dir, e.dir+"/bound", "", unix.MS_BIND, ""))
		defer func() { check(t, unmountAt(e.dir+"/bound")) }()
		before := listed(t, o.upper) + listed(t, o.work)
		for what, c := range map[string]struct{ upper, work string }{
			"both":                  {o.upper, o.work},
			"the upper":             {o.upper, e.dir + "/work2"},
			"the work directory":    {e.dir + "/upper2", o.work},
			"by a symbolic link":    {e.dir + "/link", e.dir + "/work2"},
			"through another mount": {e.dir + "/bound/upper", e.dir + "/bound/work2"},
		} {
			second := &overlay{t: t, env: e, lowers: o.lowers, upper: c.upper, work: c.work, mnt: e.dir + "/mnt2"}
			out, err := second.tryMount()
			if exitCode(err) != 1 || !strings.Contains(out, "in use by the kernel's overlayfs on \""+o.mnt+"\" (EBUSY)") {
				t.Errorf("%s: %v, %q", what, err, out)
			}
		}
		equal(t, "the layers", listed(t, o.upper)+listed(t, o.work), before)
		other := &overlay{t: t, env: e, lowers: []string{o.lowers[0]}, upper: e.dir + "/upper2", work: e.dir + "/work2", mnt: e.dir + "/mnt2"}
		other.mount() // of the same lower
		other.unmount()
		check(t, unmountAt(o.mnt))
		o.mount()
		wantText(t, o.path("g"), "by the kernel")
	})
}

// A mount in another namespace is known too, if it is of this program: the lock is the directory's.
func TestUpperInUseInAnotherNamespace(t *testing.T) {
	needDaemon(t)
	eachMode(t, onlyRoot, func(t *testing.T, e *env) {
		o := e.mounted(t, "file f \"x\"")
		out, err := runCommand("unshare", "-m", binPath, "-o", "lowerdir="+o.lowers[0]+",upperdir="+o.upper+",workdir="+o.work, o.mnt)
		if exitCode(err) != 1 || !strings.Contains(out, "(EBUSY)") {
			t.Errorf("%v, %q", err, out)
		}
		wantText(t, o.path("f"), "x")
	})
}
