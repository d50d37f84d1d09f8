package e2e

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// No two objects of the mount have the same number, even if two directories lead to one of a lower.
// There are three such cases: two redirects, of which one was copied with all attributes; a
// redirect to a directory that still shows under its own name; one layer inside another. The
// kernel's overlayfs refuses the second directory (xfstests overlay/049).
func TestDirectoriesOfOneLower(t *testing.T) {
	needDaemon(t)
	eachMode(t, allModes, func(t *testing.T, e *env) {
		o := e.overlay(t, `
			file origin/file 0644 "0"
			file origin/same 0644 "1"
			file origin/sub/deep 0644 "2"
			file origin/linked 0644 "3"
			link origin/again origin/linked
			file inner/x/y 0644 "4"
			file inner/z 0644 "5"`)
		o.lowers = append([]string{filepath.Join(o.lowers[0], "inner")}, o.lowers...) // also shown as inner, of the other
		o.opts = append(o.opts, "redirect_dir=on")
		o.mount()
		appendTo(t, o.path("origin/file"), "+")
		check(t, os.Rename(o.path("origin"), o.path("redirect1")))
		o.unmount()
		sh(t, o.upper, "cp -a redirect1 redirect2; rm origin; echo right >>redirect1/file; echo wrong >>redirect2/file; touch redirect1/right redirect2/wrong")
		o.mount()
		first := ownNumbers(t, o)
		equal(t, "objects", len(first), 31)
		for _, dir := range []string{"origin", "redirect1", "redirect2"} {
			wantText(t, o.path(dir+"/same"), "1")
			wantText(t, o.path(dir+"/sub/deep"), "2")
		}
		sh(t, e.dir, "cp -a mnt copy")
		shown, err := snapshot(o.mnt, plain)
		check(t, err)
		copied, err := snapshot(filepath.Join(e.dir, "copy"), plain)
		check(t, err)
		if d := diffLines(shown, copied); d != "" {
			t.Errorf("a copy of all differs:\n%s", d)
		}

		// Each goes its own way, and keeps its number.
		appendTo(t, o.path("redirect2/same"), "+")
		check(t, os.Chmod(o.path("redirect1/sub"), 0o700))
		appendTo(t, o.path("inner/x/y"), "+")
		wantText(t, o.path("redirect2/same"), "1+")
		for _, path := range []string{"redirect1/same", "origin/same"} {
			wantText(t, o.path(path), "1")
		}
		wantText(t, o.path("x/y"), "4")
		for path, number := range ownNumbers(t, o) {
			equal(t, "number of "+path, number, first[path])
		}
		o.remount()
		ownNumbers(t, o)
	})
}

// ownNumbers returns the inode numbers of all objects of a mount by their paths. It fails if two
// objects have the same number, or if a listing returns another number than stat.
func ownNumbers(t *testing.T, o *overlay) map[string]uint64 {
	t.Helper()
	if d := identityFaults(o.mnt); d != "" {
		t.Error("what is listed is not what is there: ", d)
	}
	numbers, paths := map[string]uint64{}, map[uint64]string{}
	check(t, filepath.WalkDir(o.mnt, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st := lstat(t, path)
		rel, err := filepath.Rel(o.mnt, path)
		if other, taken := paths[st.Ino]; taken && (entry.IsDir() || st.Nlink == 1) {
			t.Errorf("%s and %s have number %d", rel, other, st.Ino)
		}
		numbers[rel], paths[st.Ino] = st.Ino, rel
		return err
	}))
	return numbers
}
