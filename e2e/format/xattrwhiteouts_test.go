package format

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// Whiteouts as xattrs are written if devices cannot be made and the option is set. The kernel reads
// them in a lower.
func TestXattrWhiteouts(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, `
			file top "t"
			file a/b/f "1"
			file a/b/g "2"
			file a/dir/x "3"
			file a/gone/y/z "4"
			file a/moved "5"
			file a/again "6"
			file kept "7"`, "file a/b/f \"below\"\nfile a/dir/below\nfile top \"below\"")
		o.Opts = append([]string{"xattr_whiteouts"}, e.Opts...)
		t.Setenv("FUSE_OVERLAYFS_DISABLE_OVL_WHITEOUT", "1") // as on a file system without devices
		o.Mount()
		removed := []string{"top", "a/b/f", "a/b/g", "a/moved"}
		harness.Check(t, os.Remove(o.Path("top")))
		harness.Check(t, os.Remove(o.Path("a/b/f")))
		harness.Check(t, os.Remove(o.Path("a/b/g")))
		harness.Check(t, os.RemoveAll(o.Path("a/gone")))
		harness.Check(t, os.RemoveAll(o.Path("a/dir")))
		harness.Write(t, o.Path("a/dir"), "now a file")
		harness.Check(t, os.Rename(o.Path("a/moved"), o.Path("a/here")))
		harness.Check(t, os.Remove(o.Path("a/again")))
		harness.Check(t, os.Mkdir(o.Path("a/again"), 0o755))
		const want = "dir a/b\nfile a/dir \"now a file\"\nfile a/here \"5\"\ndir a/again\nfile kept \"7\""
		harness.WantTree(t, "the mount", o.Point, want)
		o.Remount()
		harness.WantTree(t, "after a remount", o.Point, want)
		o.Unmount()
		if out := harness.Shell(t, o.Upper, `find . -name '.wh.*' -o -type c`); out != "" {
			t.Errorf("other whiteouts in the upper: %s", out)
		}
		prefix := e.XattrPrefix()
		for _, path := range removed {
			harness.Equal(t, path, harness.XattrOf(filepath.Join(o.Upper, path), prefix+"whiteout"), "")
			harness.Equal(t, "the folder of "+path, harness.XattrOf(filepath.Dir(filepath.Join(o.Upper, path)),
				prefix+"opaque"), "x")
		}

		// A mount that can make devices.
		os.Unsetenv("FUSE_OVERLAYFS_DISABLE_OVL_WHITEOUT")
		o.Opts = e.Opts
		o.Mount()
		harness.WantTree(t, "without the option", o.Point, want)
		o.Unmount()
		view, lowers, upper := harness.FullView, o.Lowers, o.Upper
		o.Lowers, o.Upper = append([]string{o.Upper}, o.Lowers...), ""
		o.Mount()
		ours, err := harness.Snapshot(o.Point, view)
		harness.Check(t, err)
		o.Unmount()
		if e.Mode == harness.ModeFusermount || !kernelReadsXattrWhiteouts(t) {
			return
		}
		harness.Check(t, o.MountKernelWith(kernelReadOnlyOption(e)))
		harness.WantTree(t, "in the kernel, as a lower", o.Point, want)
		theirs, err := harness.Snapshot(o.Point, view)
		harness.Check(t, err)
		if d := harness.DiffLines(theirs, ours); d != "" {
			t.Errorf("the kernel shows something else:\n%s", d)
		}
		harness.Check(t, harness.UnmountAt(o.Point))
		o.Lowers, o.Upper = lowers, upper
		// Which looks for these in lowers only, and may list what is not there.
		harness.Check(t, o.MountKernelWith(e.KernelUserOption()))
		for _, path := range removed {
			_, err := os.Lstat(o.Path(path))
			harness.WantErr(t, path+" in the kernel, as the upper", err, syscall.ENOENT)
		}
	})
}

func kernelReadsXattrWhiteouts(t *testing.T) bool {
	t.Helper()
	return harness.KernelAtLeast(t, escapesSince[0], escapesSince[1])
}

// kernelReadOnlyOption is KernelUserOption for a mount without an upper.
func kernelReadOnlyOption(e *harness.Env) string {
	if e.Mode == harness.ModeRoot {
		return "redirect_dir=follow"
	}
	return "userxattr"
}

// If devices can be made, whiteouts are devices. Whiteouts as xattrs in a lower mean the same to
// both implementations.
func TestXattrWhiteoutsOfOthers(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.RootModes, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "file a/f\nfile a/empty\nfile top\nfile plain/f",
			"file a/f \"1\"\nfile a/g \"2\"\nfile top \"3\"\nfile plain/f \"4\"")
		prefix := e.XattrPrefix()
		for _, dir := range []string{"", "a"} {
			harness.Check(t, unix.Setxattr(filepath.Join(o.Lowers[0], dir), prefix+"opaque", []byte("x"), 0))
		}
		for _, path := range []string{"a/f", "top"} {
			harness.Check(t, unix.Setxattr(filepath.Join(o.Lowers[0], path), prefix+"whiteout", []byte("any"), 0))
		}
		const want = "file a/empty \"\"\nfile a/g \"2\"\nfile plain/f \"\""
		if kernelReadsXattrWhiteouts(t) {
			harness.Check(t, o.MountKernelWith(e.KernelUserOption()))
			harness.WantTree(t, "the kernel", o.Point, want)
			harness.Check(t, harness.UnmountAt(o.Point))
		}
		o.Opts = append([]string{"xattr_whiteouts"}, e.Opts...)
		o.Mount()
		harness.WantTree(t, "this program", o.Point, want)
		harness.Check(t, os.Remove(o.Path("a/g")))
		o.Unmount()
		harness.WantTree(t, "the upper", o.Upper, "white a/g")
	})
}
