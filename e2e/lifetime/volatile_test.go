package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// kernelWith mounts the kernel's overlayfs on the layers of o, with options of the kernel's own.
func (o *overlay) kernelWith(options ...string) error {
	data := []string{"lowerdir=" + strings.Join(o.lowers, ":")}
	if o.upper != "" {
		data = append(data, "upperdir="+o.upper, "workdir="+o.work)
	}
	err := mountOverlayfs(o.mnt, 0, strings.Join(append(data, options...), ","))
	if err == nil {
		o.t.Cleanup(o.cleanup)
	}
	return err
}

// userOption is what the kernel's overlayfs needs where it may not use trusted attributes; else nothing that matters.
func (e *env) userOption() string {
	if e.mode == modeRoot {
		return "index=off"
	}
	return "userxattr"
}

// forget removes what a volatile mount leaves, as container engines do before they mount again.
func (o *overlay) forget() {
	o.t.Helper()
	check(o.t, os.RemoveAll(filepath.Join(o.work, "work/incompat")))
}

// What a volatile mount has used is refused, by this program and by the kernel, whichever of them it was; and changes
// nothing.
func TestVolatileIsRemembered(t *testing.T) {
	needDaemon(t)
	eachMode(t, allModes, func(t *testing.T, e *env) {
		o := e.overlay(t, "file f \"x\"")
		volatile, plain := append([]string{"volatile"}, e.opts...), e.opts
		refused := func() {
			t.Helper()
			before := listed(t, o.work) + listed(t, o.upper)
			for _, opts := range [][]string{plain, volatile} {
				o.opts = opts
				out, err := o.tryMount()
				if exitCode(err) != 1 || strings.Count(out, "\n") != 1 || !strings.Contains(out, o.work+"/work/incompat") {
					t.Errorf("%v: %v, %q", opts, err, out)
				}
			}
			equal(t, "the layers", listed(t, o.work)+listed(t, o.upper), before)
			if e.mode != modeFusermount {
				wantErr(t, "the kernel", o.kernelWith(e.userOption()), syscall.EINVAL)
				wantErr(t, "the kernel", o.kernelWith(e.userOption(), "volatile"), syscall.EINVAL)
			}
		}
		o.opts = volatile
		o.mount()
		write(t, o.path("f"), "new")
		equal(t, "the work directory", listed(t, o.work), "work\nwork/incompat\nwork/incompat/volatile\nwork/incompat/volatile/dirty\n")
		o.unmount()
		refused()
		o.forget()
		o.opts = plain
		o.mount()
		wantText(t, o.path("f"), "new")
		o.unmount()

		o.opts = volatile
		o.mount()
		write(t, o.path("g"), "1")
		o.crash()
		refused()
		o.forget()

		if e.mode != modeFusermount {
			check(t, o.kernelWith(e.userOption(), "volatile"))
			check(t, os.Remove(o.path("f")))
			check(t, unmountAt(o.mnt))
			refused()
			o.forget()
			o.opts = plain
			o.mount()
			wantNames(t, o.mnt, "g")
			o.unmount()
		}
		if e.mode != modeRoot { // what has not come to be has left nothing
			o.opts = []string{"volatile", passthrough}
			out, err := o.tryMount()
			if exitCode(err) != 1 || !strings.Contains(out, passthrough) {
				t.Errorf("passthrough: %v, %q", err, out)
			}
			wantNames(t, filepath.Join(o.work, "work"))
		}
		// Called by the name of a program that leaves no note, it goes on.
		compat := filepath.Join(e.dir, "fuse-overlayfs")
		check(t, os.Symlink(binPath, compat))
		o.name, o.opts = compat, volatile
		o.mount()
		o.remount()
		o.unmount()
		if log := readText(t, o.log); strings.Count(log, "was volatile") != 1 {
			t.Errorf("the log:\n%s", log)
		}
		o.name = ""
		refused()
		o.forget()
		o.opts = volatile
		o.upper = ""
		o.mount() // read-only: it means nothing
		if log := readText(t, o.log); !strings.Contains(log, "option volatile is of no use without an upperdir, and is ignored") {
			t.Errorf("the log does not say so:\n%s", log)
		}
		wantNames(t, filepath.Join(o.work, "work"))
		o.unmount()
	})
}

// listed is all that lies below a folder, in a line each.
func listed(t *testing.T, dir string) string {
	t.Helper()
	return sh(t, dir, `find . -mindepth 1 -printf '%P\n' | sort`)
}
