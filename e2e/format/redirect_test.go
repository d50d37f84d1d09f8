package format

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// redirectOf is the redirect of a directory of the upper.
func redirectOf(e *harness.Env, path string) string {
	return harness.XattrOf(path, e.XattrPrefix()+"redirect")
}

// A rename of a directory with lower parts copies nothing of its content. A remount shows the same
// tree.
func TestRedirects(t *testing.T) {
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "file top/a/one \"1\"\nfile top/b/c/two \"2\"\nfile old/f \"hidden\"",
			"file top/a/three \"3\"\nfile top/b/c/four \"4\"\ndir old")
		o.Opts = append(o.Opts, harness.Redirects)
		o.Mount()
		rename := func(from, to string) { harness.Check(t, os.Rename(o.Path(from), o.Path(to))) }
		rename("top/a", "top/x")                           // beside
		rename("top/b", "moved")                           // elsewhere
		rename("moved/c", "moved/d")                       // inside of what was moved
		rename("moved/d", "top/d")                         // out of it
		harness.Write(t, o.Path("moved/new"), "n")         // a change inside
		harness.AppendTo(t, o.Path("top/d/four"), "+")     // a copy-up inside
		harness.Check(t, os.Remove(o.Path("top/x/three"))) // a whiteout inside
		harness.Check(t, os.RemoveAll(o.Path("old")))
		rename("moved", "old") // over a whiteout
		for range 2 {
			harness.WantNames(t, o.Point, "old", "top")
			harness.WantNames(t, o.Path("old"), "new")
			harness.WantNames(t, o.Path("top"), "d", "x")
			harness.WantNames(t, o.Path("top/x"), "one")
			harness.WantNames(t, o.Path("top/d"), "four", "two")
			harness.WantText(t, o.Path("top/x/one"), "1")
			harness.WantText(t, o.Path("top/d/two"), "2")
			harness.WantText(t, o.Path("top/d/four"), "4+")
			harness.WantText(t, o.Path("old/new"), "n")
			o.Remount()
		}
		harness.Equal(t, "redirect of top/x", redirectOf(e, filepath.Join(o.Upper, "top/x")), "a")
		harness.Equal(t, "redirect of top/d", redirectOf(e, filepath.Join(o.Upper, "top/d")), "/top/b/c")
		harness.Equal(t, "redirect of old", redirectOf(e, filepath.Join(o.Upper, "old")), "/top/b")
		harness.WantAbsent(t, filepath.Join(o.Upper, "top/x/one")) // nothing was copied that need not be
		// An exchange, and another one back.
		harness.Check(t, unix.Renameat2(unix.AT_FDCWD, o.Path("top/x"), unix.AT_FDCWD, o.Path("old"), unix.RENAME_EXCHANGE))
		for range 2 {
			harness.WantNames(t, o.Path("old"), "one")
			harness.WantNames(t, o.Path("top/x"), "new")
			o.Remount()
		}
		rename("old", "top/a")
		o.Remount()
		harness.WantNames(t, o.Path("top"), "a", "d", "x")
		harness.WantNames(t, o.Path("top/a"), "one")
		// Without the option renamed directories are found, and no others can be renamed.
		o.Unmount()
		o.Opts = nil
		o.Mount()
		harness.WantNames(t, o.Path("top/d"), "four", "two")
		harness.WantErr(t, "rename without the option", os.Rename(o.Path("top/d"), o.Path("top/e")), syscall.EXDEV)
	})
}

// An upper that the program has written is the same tree in the kernel's overlayfs, and the other
// way round.
func TestRedirectsAndTheKernel(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "file a/b/c/f \"1\"\nfile p/q/g \"2\"\nfile z/f \"z\"",
			"file a/b/h \"3\"\nfile a/b/c/i \"4\"\nfile p/j \"5\"")
		e.Opts = []string{harness.Redirects}
		o.Opts = e.Opts
		steps := [][2]string{{"a/b", "a/x"}, {"a/x/c", "p/c"}, {"p/q", "q"}, {"a", "z/a"}, {"z/a/x", "x"}, {"z", "p/z"},
			{"x", "p/z/a/b"}}
		for i, step := range steps {
			o.Kernel = i%2 == 1
			o.Mount()
			harness.Check(t, os.Rename(o.Path(step[0]), o.Path(step[1])))
			want, err := harness.Snapshot(o.Point, harness.ExactView)
			harness.Check(t, err)
			o.Unmount()
			o.Kernel = !o.Kernel
			o.Mount()
			got, err := harness.Snapshot(o.Point, harness.ExactView)
			harness.Check(t, err)
			o.Unmount()
			if d := harness.DiffLines(want, got); d != "" {
				t.Fatalf("%s to %s, by the kernel: %v, is not what the other shows:\n%s", step[0], step[1], i%2 == 1, d)
			}
		}
	})
}

// Redirects in lowers are followed through the layers below.
func TestRedirectsOfLowers(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		const attr = "trusted.overlay.redirect"
		tables := []string{
			"xattr new trusted.overlay.redirect /mid/x\nxattr p/near trusted.overlay.redirect sub",
			"dir mid\nxattr mid trusted.overlay.redirect /low\nfile mid/x/one \"1\"\nfile p/sub/two \"2\"\nxattr p/sub trusted.overlay.redirect deep",
			"file low/x/three \"3\"\nfile mid/x/hidden\nfile p/deep/four \"4\"\nfile p/sub/hidden\nfile new/hidden\nfile p/near/hidden",
		}
		for i, table := range tables { // xattr makes nothing
			var dirs []string
			for line := range strings.SplitSeq(table, "\n") {
				if words := strings.Fields(line); words[0] == "xattr" {
					dirs = append(dirs, "dir "+words[1])
				}
			}
			tables[i] = strings.Join(append(dirs, table), "\n")
		}
		o := e.Overlay(t, tables...)
		e.Opts = []string{harness.Redirects}
		for _, kernel := range []bool{true, false} {
			o.Kernel, o.Opts = kernel, e.Opts
			o.Mount()
			harness.WantNames(t, o.Path("new"), "one", "three")
			harness.WantNames(t, o.Path("p/near"), "four", "two")
			o.Unmount()
		}
		// Redirects that lead nowhere, that must not be followed, or that any user could have written.
		for value, want := range map[string]syscall.Errno{"../x": syscall.EINVAL, "a/b": syscall.EINVAL,
			"/a//b": syscall.EINVAL, "/..": syscall.EINVAL, "/nothing": 0} {
			harness.Check(t, unix.Lsetxattr(filepath.Join(o.Lowers[0], "new"), attr, []byte(value), 0))
			o.Mount()
			_, err := os.ReadDir(o.Path("new"))
			if want == 0 {
				harness.Check(t, err)
			} else {
				harness.WantErr(t, "redirect "+value, err, want)
			}
			harness.WantNames(t, o.Path("p/near"), "four", "two")
			harness.WantNames(t, o.Point, "low", "mid", "new", "p") // which it does not break
			o.Unmount()
		}
		o.Opts = []string{"redirect_dir=nofollow"}
		o.Mount()
		_, err := os.ReadDir(o.Path("p/near"))
		harness.WantErr(t, "a redirect with nofollow", err, syscall.EPERM)
		o.Unmount()
		o.Opts = nil
		harness.Check(t, unix.Lremovexattr(filepath.Join(o.Lowers[0], "new"), attr))
		harness.Check(t, unix.Lsetxattr(filepath.Join(o.Lowers[0], "new"), "user.overlay.redirect", []byte("/low/x"), 0))
		o.Mount()
		_, err = os.ReadDir(o.Path("new"))
		harness.WantErr(t, "a redirect that any user may write, for root", err, syscall.EPERM)
	})
}

// A rename of a directory of 10,000 lower files is one request and copies nothing.
func TestRenameOfALargeDirectory(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "dir d")
		for i := range 10000 {
			harness.Write(t, fmt.Sprintf("%s/d/file%05d", o.Lowers[0], i), "text")
		}
		o.Opts = append(o.Opts, harness.Redirects)
		o.Mount()
		harness.Lstat(t, o.Path("d"))
		got := o.During(func() { harness.Check(t, os.Rename(o.Path("d"), o.Path("e"))) })
		harness.WantCounts(t, "rename", got, harness.Counts{"RENAME": 1, "LOOKUP": 2}, harness.Counts{"GETATTR": 2})
		harness.WantNames(t, o.Upper, "d", "e")
		harness.WantNames(t, filepath.Join(o.Upper, "e"))
		if used := usedBytes(t, o.Upper); used > 16<<10 { // the root of the upper and the directory, a block each
			t.Errorf("the upper takes up %d bytes", used)
		}
		entries, err := os.ReadDir(o.Path("e"))
		harness.Check(t, err)
		harness.Equal(t, "files", len(entries), 10000)
	})
}
