package rights

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// Older kernels and versions of this program have set flags on the inode of the upper. Such flags
// hold as well, and can be cleared through the mount.
func TestFlagsOnInodesOfTheUpper(t *testing.T) {
	harness.NeedDaemon(t) // the kernel cannot clear them
	harness.EachIO(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "file dir/low \"low\"")
		harness.Build(t, e, o.Upper, "file a \"abcd\"\nfile i \"abcd\"\nfile dir/in \"in\"")
		setFlags(t, filepath.Join(o.Upper, "a"), "+a")
		setFlags(t, filepath.Join(o.Upper, "i"), "+i")
		setFlags(t, filepath.Join(o.Upper, "dir"), "+i")
		o.Mount()
		wantFlags(t, o.Path("a"), "a")
		wantFlags(t, o.Path("i"), "i")
		wantOnlyAppends(t, o, "a", "abcd")
		wantUnchangeable(t, o, "i")
		wantNoNewEntry(t, o, "dir")
		harness.Check(t, putAt(o.Path("a"), unix.O_WRONLY|unix.O_APPEND, "more", 0))
		harness.Check(t, putAt(o.Path("a"), unix.O_WRONLY|unix.O_APPEND, " and more", 0))
		wantUnchanged(o, "a", "abcdmore and more")
		for _, name := range []string{"a", "i", "dir"} {
			harness.Check(t, harness.Chattr(o.Path(name), "-ia"))
			wantFlags(t, o.Path(name), "")
			wantFlags(t, filepath.Join(o.Upper, name), "")
		}
		harness.Check(t, putAt(o.Path("a"), unix.O_WRONLY, "ABCD", 0))
		harness.Check(t, putAt(o.Path("dir/low"), unix.O_WRONLY, "LOW", 0))
		harness.Check(t, os.RemoveAll(o.Path("dir")))
		harness.WantText(t, o.Path("a"), "ABCDmore and more")
	})
}

// A change of flags changes the change time.
func TestFlagsChangeTheTime(t *testing.T) {
	harness.EachIO(t, harness.RootModes, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, "file low \"low\"\ndir dir")
		harness.Write(t, o.Path("new"), "new")
		for _, name := range []string{"low", "dir", "new"} {
			for _, change := range []string{"+A", "-A", "+i", "-i"} {
				if e.Mode != harness.ModeRoot && change[1] == 'i' {
					continue
				}
				before := harness.Lstat(t, o.Path(name)).Ctim
				time.Sleep(20 * time.Millisecond)
				harness.Check(t, harness.Chattr(o.Path(name), change))
				if after := harness.Lstat(t, o.Path(name)).Ctim; after == before {
					t.Errorf("chattr %s %s: st_ctim is as before", change, name)
				}
			}
		}
	})
}
