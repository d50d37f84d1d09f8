package view

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit/systest"
)

func TestMain(m *testing.M) { testkit.MainInMemory(m) }

var must = testkit.Must

// open opens a view of the layers that tables describe, the upper first.
func open(t *testing.T, upper string, lowers ...string) *View {
	t.Helper()
	l := testkit.NewLayers(t, upper, lowers...)
	var v *View
	var err error
	systest.WithoutClones(func() {
		v, err = Open(fs.Config{Upper: l.Upper, Work: l.Work, Lowers: l.Lowers, Log: zap.NewNop(), Features: fs.Features{MetaCopy: true}})
	})
	must(t, err)
	t.Cleanup(v.Close)
	return v
}

// tree describes everything below a directory, in the words of tables.
func tree(t *testing.T, at string, n *Node) (lines []string) {
	t.Helper()
	names, err := n.Names()
	must(t, err)
	for _, name := range names {
		child, err := n.Lookup(name)
		must(t, err)
		if child == nil {
			t.Fatalf("%s is listed and not there", name)
		}
		o := testkit.Object{Path: filepath.Join(at, name), Mode: child.Mode, UID: child.UID, GID: child.GID, Rdev: child.Rdev}
		o.Xattrs, err = child.Xattrs()
		must(t, err)
		switch child.Type() {
		case unix.S_IFREG:
			o.Data = make([]byte, child.Size+1)
			got, err := child.ReadAt(o.Data, 0)
			must(t, err)
			o.Data = o.Data[:got]
		case unix.S_IFLNK:
			o.Target, err = child.Readlink()
			must(t, err)
		}
		lines = append(lines, o.String())
		if child.IsDir() {
			lines = append(lines, tree(t, o.Path, child)...)
		}
		child.Forget()
	}
	return lines
}

// The view shows what a mount shows, and the layers stay as they are.
func TestViewShowsTheMergedTree(t *testing.T) {
	long := strings.Repeat("long value ", 200)
	v := open(t, `
		file d/a 0640 "upper"
		own d/a 7 8
		white d/gone
		file .wh.marked
		dir moved
		xattr moved trusted.overlay.redirect /old
		white old
		file meta 0600
		size meta 4
		xattr meta trusted.overlay.metacopy ""
		xattr d trusted.overlay.overlay.opaque y
		symlink l target
		char null 1/3
	`, `
		file d/a "lower"
		file d/b "`+strings.Repeat("0123456789", 100)+`"
		xattr d/b user.long "`+long+`"
		file d/gone
		file marked
		file meta "data"
		dir empty 1777
	`, "file old/x \"moved\"\nfifo p 0600\nfile d/c")
	root, err := v.Root()
	must(t, err)
	got := tree(t, "", root)
	folder := t.TempDir()
	testkit.Build(t, folder, `
		file d/a 0640 "upper"
		own d/a 7 8
		file d/b "`+strings.Repeat("0123456789", 100)+`"
		xattr d/b user.long "`+long+`"
		file d/c
		file moved/x "moved"
		file meta 0600 "data"
		dir empty 1777
		fifo p 0600
		symlink l target
		char null 1/3
		xattr d trusted.overlay.opaque y
	`)
	slices.Sort(got)
	if d := testkit.Diff(testkit.Snapshot(t, folder), strings.Join(got, "\n")); d != "" {
		t.Errorf("the view differs (- want, + have):\n%s", d)
	}
}

func TestLookup(t *testing.T) {
	v := open(t, "white d/gone", "file d/sub/f\nfile d/gone")
	for path, there := range map[string]bool{
		"": true, "d": true, "d/sub/f": true, "d/gone": false, "none": false, "none/f": false, "d/sub/f/x": false,
	} {
		n, err := v.Lookup(path)
		if err != nil || (n != nil) != there {
			t.Errorf("%q: %v, %v", path, n, err)
		}
		n.Forget()
	}
}

// A directory with more names than one reply has room for is listed whole.
func TestManyNames(t *testing.T) {
	var table strings.Builder
	var want []string
	for i := range 3000 {
		name := fmt.Sprintf("%s%04d", strings.Repeat("n", 50), i)
		want = append(want, name)
		fmt.Fprintf(&table, "file d/%s\n", name)
	}
	v := open(t, "", table.String())
	d, err := v.Lookup("d")
	must(t, err)
	if got, err := d.Names(); err != nil || !slices.Equal(got, want) {
		t.Errorf("%d names, %v", len(got), err)
	}
}

// Each error is that of the layer.
func TestErrors(t *testing.T) {
	v := open(t, "", "file f \"x\"\nsymlink l x\ndir d")
	root, err := v.Root()
	must(t, err)
	f, err := v.Lookup("f")
	must(t, err)
	l, err := v.Lookup("l")
	must(t, err)
	for _, tt := range []struct {
		call string
		do   func() error
	}{
		{"fstatat", func() error { _, err := root.Lookup("f"); return err }},
		{"getdents64", func() error { _, err := root.Names(); return err }},
		{"pread64", func() error { _, err := f.ReadAt(make([]byte, 10), 0); return err }},
		{"readlinkat", func() error { _, err := l.Readlink(); return err }},
		{"listxattr", func() error { _, err := f.Xattrs(); return err }},
	} {
		systest.While(systest.Call(tt.call), unix.EIO, func() { testkit.WantError(t, tt.call, tt.do(), unix.EIO) })
	}
	if _, err := f.Names(); err != unix.ENOTDIR {
		t.Errorf("names of a file: %v", err)
	}
	if _, err := Open(fs.Config{Lowers: []string{"/none"}, Log: zap.NewNop()}); err == nil || !strings.Contains(err.Error(), `lowerdir "/none"`) {
		t.Errorf("a lower that does not exist: %v", err)
	}
}
