package e2e

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Where the owner is an attribute, giving a file away copies no data either: the two attributes know nothing of each other.
func TestMetacopiesWithOwnersInAttributes(t *testing.T) {
	needDaemon(t)
	eachMode(t, allModes, func(t *testing.T, e *env) {
		o := e.overlay(t, "file d/f \"the data\"\nfile d/g \"more\"")
		o.opts = append([]string{"metacopy=on", "xattr_permissions=2"}, e.opts...)
		o.mount()
		inUpper := func(name string) string { return filepath.Join(o.upper, "d", name) }
		metacopy := "user.overlay.metacopy"
		if e.mode == modeRoot {
			metacopy = "trusted.overlay.metacopy"
		}
		check(t, os.Chmod(o.path("d/f"), 0o751))
		want := os.FileMode(0o751)
		if e.mode != modeFusermount { // there the kernel does not let a plain user give files away
			check(t, os.Lchown(o.path("d/f"), 1234, 1235))
		}
		for range 2 {
			equal(t, "the mark", xattrOf(inUpper("f"), metacopy), "")
			equal(t, "the mode on disk", lstat(t, inUpper("f")).Mode&0o7777, 0o600)
			wantText(t, o.path("d/f"), "the data")
			info, err := os.Lstat(o.path("d/f"))
			check(t, err)
			equal(t, "the mode", info.Mode().Perm(), want)
			if e.mode != modeFusermount {
				st := info.Sys().(*syscall.Stat_t)
				equal(t, "the owner", [2]uint32{st.Uid, st.Gid}, [2]uint32{1234, 1235})
			}
			o.remount()
		}
		appendTo(t, o.path("d/f"), "+")
		equal(t, "the mark", xattrOf(inUpper("f"), metacopy), errnoName(unix.ENODATA))
		o.remount()
		wantText(t, o.path("d/f"), "the data+")
		equal(t, "the mode", lstat(t, o.path("d/f")).Mode&0o7777, 0o751)
	})
}
