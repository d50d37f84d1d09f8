package view

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// No two objects of the mount have the same inode number, even if two directories lead to one of a
// lower. There are three such cases: two redirects, of which one was copied with all attributes; a
// redirect to a directory that still shows under its own name; one layer inside another. The
// kernel's overlayfs refuses the second directory (xfstests overlay/049).
func TestDirectoriesOfOneLower(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, `
			file origin/file 0644 "0"
			file origin/same 0644 "1"
			file origin/sub/deep 0644 "2"
			file origin/linked 0644 "3"
			link origin/again origin/linked
			file inner/x/y 0644 "4"
			file inner/z 0644 "5"`)
		o.Lowers = append([]string{filepath.Join(o.Lowers[0], "inner")}, o.Lowers...) // also shown as inner, of the other
		o.Opts = append(o.Opts, "redirect_dir=on")
		o.Mount()
		harness.AppendTo(t, o.Path("origin/file"), "+")
		harness.Check(t, os.Rename(o.Path("origin"), o.Path("redirect1")))
		o.Unmount()
		harness.Shell(t, o.Upper, "cp -a redirect1 redirect2; rm origin; echo right >>redirect1/file; echo wrong >>redirect2/file; touch redirect1/right redirect2/wrong")
		o.Mount()
		first := ownNumbers(t, o)
		harness.Equal(t, "objects", len(first), 31)
		for _, dir := range []string{"origin", "redirect1", "redirect2"} {
			harness.WantText(t, o.Path(dir+"/same"), "1")
			harness.WantText(t, o.Path(dir+"/sub/deep"), "2")
		}
		harness.Shell(t, e.Dir, "cp -a mnt copy")
		shown, err := harness.Snapshot(o.Point, harness.PlainView)
		harness.Check(t, err)
		copied, err := harness.Snapshot(filepath.Join(e.Dir, "copy"), harness.PlainView)
		harness.Check(t, err)
		if d := harness.DiffLines(shown, copied); d != "" {
			t.Errorf("a copy of all differs:\n%s", d)
		}

		// Each can be changed without the other, and keeps its number.
		harness.AppendTo(t, o.Path("redirect2/same"), "+")
		harness.Check(t, os.Chmod(o.Path("redirect1/sub"), 0o700))
		harness.AppendTo(t, o.Path("inner/x/y"), "+")
		harness.WantText(t, o.Path("redirect2/same"), "1+")
		for _, path := range []string{"redirect1/same", "origin/same"} {
			harness.WantText(t, o.Path(path), "1")
		}
		harness.WantText(t, o.Path("x/y"), "4")
		for path, number := range ownNumbers(t, o) {
			harness.Equal(t, "number of "+path, number, first[path])
		}
		o.Remount()
		ownNumbers(t, o)
	})
}

// ownNumbers returns the inode numbers of all objects of a mount by their paths. It fails if two
// objects have the same number, or if a listing returns another number than stat.
func ownNumbers(t *testing.T, o *harness.Overlay) map[string]uint64 {
	t.Helper()
	if d := harness.IdentityFaults(o.Point); d != "" {
		t.Error("what is listed is not what is there: ", d)
	}
	numbers, paths := map[string]uint64{}, map[uint64]string{}
	harness.Check(t, filepath.WalkDir(o.Point, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st := harness.Lstat(t, path)
		rel, err := filepath.Rel(o.Point, path)
		if other, taken := paths[st.Ino]; taken && (entry.IsDir() || st.Nlink == 1) {
			t.Errorf("%s and %s have number %d", rel, other, st.Ino)
		}
		numbers[rel], paths[st.Ino] = st.Ino, rel
		return err
	}))
	return numbers
}
