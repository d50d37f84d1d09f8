package format

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// If the owner is an xattr, a chown copies no data either: the two xattrs are independent.
func TestMetacopiesWithOwnersInAttributes(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "file d/f \"the data\"\nfile d/g \"more\"")
		o.Opts = append([]string{"metacopy=on", "xattr_permissions=2"}, e.Opts...)
		o.Mount()
		inUpper := func(name string) string { return filepath.Join(o.Upper, "d", name) }
		metacopy := "user.overlay.metacopy"
		if e.Mode == harness.ModeRoot {
			metacopy = "trusted.overlay.metacopy"
		}
		harness.Check(t, os.Chmod(o.Path("d/f"), 0o751))
		want := os.FileMode(0o751)
		if e.Mode != harness.ModeFusermount { // there the kernel does not let a plain user give files away
			harness.Check(t, os.Lchown(o.Path("d/f"), 1234, 1235))
		}
		for range 2 {
			harness.Equal(t, "the mark", harness.XattrOf(inUpper("f"), metacopy), "")
			harness.Equal(t, "the mode on disk", harness.Lstat(t, inUpper("f")).Mode&0o7777, 0o600)
			harness.WantText(t, o.Path("d/f"), "the data")
			info, err := os.Lstat(o.Path("d/f"))
			harness.Check(t, err)
			harness.Equal(t, "the mode", info.Mode().Perm(), want)
			if e.Mode != harness.ModeFusermount {
				st := info.Sys().(*syscall.Stat_t)
				harness.Equal(t, "the owner", [2]uint32{st.Uid, st.Gid}, [2]uint32{1234, 1235})
			}
			o.Remount()
		}
		harness.AppendTo(t, o.Path("d/f"), "+")
		harness.Equal(t, "the mark", harness.XattrOf(inUpper("f"), metacopy), harness.ErrnoName(unix.ENODATA))
		o.Remount()
		harness.WantText(t, o.Path("d/f"), "the data+")
		harness.Equal(t, "the mode", harness.Lstat(t, o.Path("d/f")).Mode&0o7777, 0o751)
	})
}
