package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// redirectOf is the redirect that a directory of the upper has.
func redirectOf(e *env, path string) string {
	return xattrOf(path, strings.TrimSuffix(e.opaqueName(), "opaque")+"redirect")
}

// Directories with lower parts are renamed without copying what is in them, and stay what they are over a remount.
func TestRedirects(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, e *env) {
		o := e.overlay(t, "file top/a/one \"1\"\nfile top/b/c/two \"2\"\nfile old/f \"hidden\"", "file top/a/three \"3\"\nfile top/b/c/four \"4\"\ndir old")
		o.opts = append(o.opts, redirects)
		o.mount()
		rename := func(from, to string) { check(t, os.Rename(o.path(from), o.path(to))) }
		rename("top/a", "top/x")                   // beside
		rename("top/b", "moved")                   // elsewhere
		rename("moved/c", "moved/d")               // inside of what was moved
		rename("moved/d", "top/d")                 // out of it
		write(t, o.path("moved/new"), "n")         // a change inside
		appendTo(t, o.path("top/d/four"), "+")     // a copy-up inside
		check(t, os.Remove(o.path("top/x/three"))) // a whiteout inside
		check(t, os.RemoveAll(o.path("old")))
		rename("moved", "old") // over a whiteout
		for range 2 {
			wantNames(t, o.mnt, "old", "top")
			wantNames(t, o.path("old"), "new")
			wantNames(t, o.path("top"), "d", "x")
			wantNames(t, o.path("top/x"), "one")
			wantNames(t, o.path("top/d"), "four", "two")
			wantText(t, o.path("top/x/one"), "1")
			wantText(t, o.path("top/d/two"), "2")
			wantText(t, o.path("top/d/four"), "4+")
			wantText(t, o.path("old/new"), "n")
			o.remount()
		}
		equal(t, "redirect of top/x", redirectOf(e, filepath.Join(o.upper, "top/x")), "a")
		equal(t, "redirect of top/d", redirectOf(e, filepath.Join(o.upper, "top/d")), "/top/b/c")
		equal(t, "redirect of old", redirectOf(e, filepath.Join(o.upper, "old")), "/top/b")
		wantAbsent(t, filepath.Join(o.upper, "top/x/one")) // nothing was copied that need not be
		// Exchange, and the way back.
		check(t, unix.Renameat2(unix.AT_FDCWD, o.path("top/x"), unix.AT_FDCWD, o.path("old"), unix.RENAME_EXCHANGE))
		for range 2 {
			wantNames(t, o.path("old"), "one")
			wantNames(t, o.path("top/x"), "new")
			o.remount()
		}
		rename("old", "top/a")
		o.remount()
		wantNames(t, o.path("top"), "a", "d", "x")
		wantNames(t, o.path("top/a"), "one")
		// Without the option what was renamed is still found, and no more can be.
		o.unmount()
		o.opts = nil
		o.mount()
		wantNames(t, o.path("top/d"), "four", "two")
		wantErr(t, "rename without the option", os.Rename(o.path("top/d"), o.path("top/e")), syscall.EXDEV)
	})
}

// An upper written here is the same tree in the kernel's overlayfs, and the other way round.
func TestRedirectsAndTheKernel(t *testing.T) {
	needDaemon(t)
	eachMode(t, onlyRoot, func(t *testing.T, e *env) {
		o := e.overlay(t, "file a/b/c/f \"1\"\nfile p/q/g \"2\"\nfile z/f \"z\"", "file a/b/h \"3\"\nfile a/b/c/i \"4\"\nfile p/j \"5\"")
		e.opts = []string{redirects}
		o.opts = e.opts
		steps := [][2]string{{"a/b", "a/x"}, {"a/x/c", "p/c"}, {"p/q", "q"}, {"a", "z/a"}, {"z/a/x", "x"}, {"z", "p/z"}, {"x", "p/z/a/b"}}
		for i, step := range steps {
			o.kernel = i%2 == 1
			o.mount()
			check(t, os.Rename(o.path(step[0]), o.path(step[1])))
			want, err := snapshot(o.mnt, exact)
			check(t, err)
			o.unmount()
			o.kernel = !o.kernel
			o.mount()
			got, err := snapshot(o.mnt, exact)
			check(t, err)
			o.unmount()
			if d := diffLines(want, got); d != "" {
				t.Fatalf("%s to %s, by the kernel: %v, is not what the other shows:\n%s", step[0], step[1], i%2 == 1, d)
			}
		}
	})
}

// Redirects that lie in lowers are followed through the layers below.
func TestRedirectsOfLowers(t *testing.T) {
	needDaemon(t)
	eachMode(t, onlyRoot, func(t *testing.T, e *env) {
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
		o := e.overlay(t, tables...)
		e.opts = []string{redirects}
		for _, kernel := range []bool{true, false} {
			o.kernel, o.opts = kernel, e.opts
			o.mount()
			wantNames(t, o.path("new"), "one", "three")
			wantNames(t, o.path("p/near"), "four", "two")
			o.unmount()
		}
		// Those that lead nowhere, that are not to be followed, or that anybody could have written.
		for value, want := range map[string]syscall.Errno{"../x": syscall.EINVAL, "a/b": syscall.EINVAL, "/a//b": syscall.EINVAL, "/..": syscall.EINVAL, "/nothing": 0} {
			check(t, unix.Lsetxattr(filepath.Join(o.lowers[0], "new"), attr, []byte(value), 0))
			o.mount()
			_, err := os.ReadDir(o.path("new"))
			if want == 0 {
				check(t, err)
			} else {
				wantErr(t, "redirect "+value, err, want)
			}
			wantNames(t, o.path("p/near"), "four", "two")
			wantNames(t, o.mnt, "low", "mid", "new", "p") // which it does not break
			o.unmount()
		}
		o.opts = []string{"redirect_dir=nofollow"}
		o.mount()
		_, err := os.ReadDir(o.path("p/near"))
		wantErr(t, "a redirect with nofollow", err, syscall.EPERM)
		o.unmount()
		o.opts = nil
		check(t, unix.Lremovexattr(filepath.Join(o.lowers[0], "new"), attr))
		check(t, unix.Lsetxattr(filepath.Join(o.lowers[0], "new"), "user.overlay.redirect", []byte("/low/x"), 0))
		o.mount()
		_, err = os.ReadDir(o.path("new"))
		wantErr(t, "a redirect that any user may write, for root", err, syscall.EPERM)
	})
}

// A directory of 10,000 lower files is renamed by one request, and nothing is copied.
func TestRenameOfALargeDirectory(t *testing.T) {
	needDaemon(t)
	eachMode(t, onlyRoot, func(t *testing.T, e *env) {
		o := e.overlay(t, "dir d")
		for i := range 10000 {
			write(t, fmt.Sprintf("%s/d/file%05d", o.lowers[0], i), "text")
		}
		o.opts = append(o.opts, redirects)
		o.mount()
		lstat(t, o.path("d"))
		got := o.during(func() { check(t, os.Rename(o.path("d"), o.path("e"))) })
		wantCounts(t, "rename", got, counts{"RENAME": 1, "LOOKUP": 2}, counts{"GETATTR": 2})
		wantNames(t, o.upper, "d", "e")
		wantNames(t, filepath.Join(o.upper, "e"))
		if used := usedBytes(t, o.upper); used > 16<<10 { // the root of the upper and the directory, a block each
			t.Errorf("the upper takes up %d bytes", used)
		}
		entries, err := os.ReadDir(o.path("e"))
		check(t, err)
		equal(t, "files", len(entries), 10000)
	})
}
