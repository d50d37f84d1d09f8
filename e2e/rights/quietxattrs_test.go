package rights

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// Programs that read xattrs work where the kernel requests none any more (D78). Where it still
// requests lists, they print nothing that they do not print on the layer.
func TestProgramsWhereNoXattrsAreRequested(t *testing.T) {
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		for name, what := range map[string]harness.Requested{"values": harness.Capabilities, "values and lists": harness.CapabilitiesAndLists} {
			t.Run(name, func(t *testing.T) {
				o := quietOverlay(t, harness.NewEnv(t, e.Mode), what)
				dir, layer := o.Env.Dir, o.Lowers[1]
				same := func(what, script string) {
					harness.Equal(t, what, harness.Shell(t, o.Point, "{ "+script+"; } 2>&1"), harness.Shell(t, layer, "{ "+script+"; } 2>&1"))
				}
				same("getcap", "getcap -r .")
				same("getfacl", "getfacl -R d00")
				same("ls", "ls -lZR --time-style=full-iso d00 special | grep -v ^total")
				same("stat", "stat -c '%C %n' d00/* 2>&1 | cut -d' ' -f2")
				same("execution", "./special/script")
				copied := filepath.Join(dir, "copied")
				same("cp -a", "rm -rf "+copied+"; cp -a . "+copied)
				harness.Equal(t, "the copy", harness.Shell(t, copied, "find . | sort"), harness.Shell(t, layer, "find . | sort"))
				same("tar --acls --selinux", "tar --acls --selinux --sort=name -cf - d00 special | tar -tv | sort")
				if what == harness.Capabilities {
					same("tar --xattrs", "tar --xattrs --acls --selinux --sort=name -cf - d00 special | tar -tv | sort")
					same("getfattr", "getfattr -h -R -d -m - .")
					return
				}
				same("tar --xattrs, its archive", "tar --xattrs --sort=name -cf - d00 special 2>/dev/null | tar -tv | sort")
				if out, err := harness.Run("getfattr", "-d", o.Path("d00/f00")); err == nil {
					t.Errorf("getfattr of a mount without lists: %q; D78 and its page say that it fails", out)
				}
			})
		}
	})
}

// quietOverlay is a mount of which the kernel requests no xattrs any more.
func quietOverlay(t *testing.T, e *harness.Env, what harness.Requested) *harness.Overlay {
	t.Helper()
	o := e.ReadByEngine(t, harness.ThousandFiles()+`
		file special/script 0755 "#!/bin/sh\necho runs\n"
		symlink special/link d00
		fifo special/fifo`)
	o.Mount()
	harness.Compared(t, o.Point, what)
	if !o.IsQuiet(10 * time.Second) {
		t.Fatal("the kernel goes on to request xattrs")
	}
	harness.Compared(t, o.Point, what)
	return o
}

// Such a mount is a lower of other overlays, of this program and of the kernel, also if it becomes
// so after they were mounted.
func TestOverlaysWhereNoXattrsAreRequested(t *testing.T) {
	harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		for _, kernel := range []bool{false, true} {
			o := harness.NewEnv(t, e.Mode).ReadByEngine(t, harness.ThousandFiles())
			o.Mount()
			upper := harness.NewEnv(t, e.Mode).Overlay(t)
			upper.Lowers, upper.Kernel = []string{o.Point}, kernel
			upper.Mount()
			harness.WantText(t, upper.Path("d00/f00"), "content 0.0")
			harness.Compared(t, o.Point, harness.CapabilitiesAndLists)
			harness.Equal(t, "quiet", o.IsQuiet(10*time.Second), true)
			harness.Compared(t, o.Point, harness.CapabilitiesAndLists)
			harness.AppendTo(t, upper.Path("d00/f00"), "!")
			harness.AppendTo(t, upper.Path("d01/f01"), "!")
			harness.WantText(t, upper.Path("d00/f00"), "content 0.0!")
			harness.Shell(t, upper.Point, "rm d02/f02; rm -r d03; mkdir d03; mv d04/f04 d05/new; chmod 600 d06/f06")
			upper.Remount()
			harness.WantText(t, upper.Path("d01/f01"), "content 1.1!")
			harness.WantText(t, upper.Path("d05/new"), "content 4.4")
			harness.Equal(t, "names", harness.Shell(t, upper.Point, "find . | wc -l; ls d03 | wc -l"), "970\n0\n")
			upper.Unmount()
		}
	})
}
