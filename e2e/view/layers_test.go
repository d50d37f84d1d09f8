package view

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// manyLayers returns n tables, the topmost first, and the table of their merged tree. Every layer
// has a file of its own. A layer above hides half of the files. Some files have whiteouts, and some
// directories are opaque.
func manyLayers(n int) (tables []string, merged string) {
	tree := map[string]string{}
	for i := n - 1; i >= 0; i-- { // from the bottom up
		var b strings.Builder
		file := func(path, text string) {
			fmt.Fprintf(&b, "file %s %q\n", path, text)
			tree[path] = text
		}
		if i%10 == 3 && i+1 < n {
			gone := fmt.Sprintf("own/f%03d", i+1)
			fmt.Fprintf(&b, "white %s\n", gone)
			delete(tree, gone)
		}
		if i%50 == 7 {
			fmt.Fprintf(&b, "opaque stack/d%d\n", i%5)
			for p := range tree {
				if strings.HasPrefix(p, fmt.Sprintf("stack/d%d/", i%5)) {
					delete(tree, p)
				}
			}
		}
		file(fmt.Sprintf("own/f%03d", i), fmt.Sprintf("layer %d", i))
		file(fmt.Sprintf("pairs/p%03d", i/2), fmt.Sprintf("of layer %d", i))
		file(fmt.Sprintf("stack/d%d/f%03d", i%5, i), "x")
		file("top", fmt.Sprintf("layer %d", i))
		tables = append([]string{b.String()}, tables...)
	}
	var b strings.Builder
	for p, text := range tree {
		fmt.Fprintf(&b, "file %s %q\n", p, text)
	}
	return tables, b.String()
}

// Mounts of 128 and 500 lowers.
func TestWalkManyLowers(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		for _, n := range []int{128, 500} {
			t.Run(fmt.Sprint(n), func(t *testing.T) { manyLowers(t, harness.NewEnv(t, e.Mode), n) })
		}
	})
}

func manyLowers(t *testing.T, e *harness.Env, n int) {
	tables, merged := manyLayers(n)
	o := e.Mounted(t, tables...)
	harness.WantTree(t, "merged", o.Point, merged)
	last := fmt.Sprintf("own/f%03d", n-1)
	harness.AppendTo(t, o.Path(last), " changed")
	harness.Check(t, os.Remove(o.Path("pairs/p000")))
	harness.Check(t, os.RemoveAll(o.Path("stack/d1")))
	harness.Check(t, os.Mkdir(o.Path("stack/d1"), 0o755))
	harness.Write(t, o.Path("stack/d1/new"), "new")
	o.Remount()
	harness.WantText(t, o.Path(last), fmt.Sprintf("layer %d changed", n-1))
	harness.WantAbsent(t, o.Path("pairs/p000"))
	harness.WantNames(t, o.Path("stack/d1"), "new")
	o.Unmount()
	harness.WantTree(t, "the upper", o.Upper, fmt.Sprintf(
		"file %s \"layer %d changed\"\nwhite pairs/p000\nopaque stack/d1\nfile stack/d1/new \"new\"", last, n-1))
	harness.WantText(t, filepath.Join(o.Lowers[n-1], last), fmt.Sprintf("layer %d", n-1))
}

// The program reads whiteouts and opaque directories in every form that other programs write, in
// any layer.
func TestWhiteoutFormsRead(t *testing.T) {
	harness.NeedDaemon(t) // the kernel does not read the tar forms
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		bottom := `
			file a "a"
			file d/x "x"
			file d/y "y"
			file gone/deep/x "x"
			file op/below "b"
			file aufs/below "b"
			file fuse/below "b"
			file xw/f1 "1"
			file xw/f2 "2"`
		top := `
			file .wh.a ""
			file d/.wh.x ""
			file .wh.gone ""
			file op/own "o"
			xattr op user.overlay.opaque y
			file aufs/.wh..wh..opq ""
			file aufs/own "o"
			file fuse/own "o"
			xattr fuse user.fuseoverlayfs.opaque y
			file xw/f1 ""
			xattr xw/f1 user.overlay.whiteout y
			xattr xw user.overlay.opaque x`
		want := `
			file d/y "y"
			file op/own "o"
			file aufs/own "o"
			file fuse/own "o"
			file xw/f2 "2"`
		t.Run("lower", func(t *testing.T) {
			o := harness.NewEnv(t, e.Mode).Mounted(t, top, bottom)
			harness.WantTree(t, "merged", o.Point, want)
			for _, name := range []string{".wh.a", "a", "d/.wh.x", "d/x", "gone", "aufs/.wh..wh..opq", "xw/f1"} {
				harness.WantAbsent(t, o.Path(name))
			}
			// A name with a whiteout can be made again, and hides the lower then.
			harness.Check(t, os.MkdirAll(o.Path("gone/deep"), 0o755))
			harness.Write(t, o.Path("a"), "new")
			harness.Write(t, o.Path("aufs/below"), "new")
			o.Remount()
			harness.WantTree(t, "after a remount", o.Point, want+"\nfile a \"new\"\ndir gone/deep\nfile aufs/below \"new\"")
		})
		t.Run("upper", func(t *testing.T) {
			e := harness.NewEnv(t, e.Mode)
			o := e.Overlay(t, bottom)
			harness.Build(t, e, o.Upper, top)
			o.Mount()
			harness.WantTree(t, "merged", o.Point, want)
			harness.Write(t, o.Path("a"), "new")
			harness.Check(t, os.Remove(o.Path("op/own")))
			harness.Check(t, os.Remove(o.Path("aufs/own")))
			harness.Check(t, os.Remove(o.Path("aufs")))
			harness.Check(t, os.Remove(o.Path("xw/f2")))
			o.Remount()
			harness.WantTree(t, "after a remount", o.Point,
				"file a \"new\"\nfile d/y \"y\"\ndir op\ndir xw\nfile fuse/own \"o\"")
		})
	})
}

func TestWhiteoutFormsReadTrusted(t *testing.T) {
	harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t,
			"opaque op\nfile op/own \"o\"\nfile xw/f1 \"\"\nxattr xw/f1 trusted.overlay.whiteout y\nxattr xw trusted.overlay.opaque x\nwhite c",
			"file op/below \"b\"\nfile xw/f1 \"1\"\nfile xw/f2 \"2\"\nfile c \"c\"")
		harness.WantTree(t, "merged", o.Point, "file op/own \"o\"\nfile xw/f2 \"2\"")
	})
}

// If 0/0 devices are not allowed, whiteouts are written in the tar form.
func TestWhiteoutWrittenAsTarForm(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		t.Setenv("FUSE_OVERLAYFS_DISABLE_OVL_WHITEOUT", "y")
		o := e.Mounted(t, "file a \"a\"\nfile d/x \"x\"\nfile b \"b\"")
		harness.Check(t, os.Remove(o.Path("a")))
		harness.Check(t, os.RemoveAll(o.Path("d")))
		harness.Check(t, os.Remove(o.Path("b")))
		harness.Write(t, o.Path("b"), "again")
		harness.WantTree(t, "merged", o.Point, "file b \"again\"")
		o.Remount()
		harness.WantTree(t, "merged after a remount", o.Point, "file b \"again\"")
		o.Unmount()
		harness.WantTree(t, "the upper", o.Upper, "file b \"again\"\nfile .wh.a \"\"\nfile .wh.d \"\"")
	})
}

// A FIFO with the name of a whiteout, the name of a whiteout itself and private xattrs are refused
// or hidden.
func TestPrivateNames(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.RootModes, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, "file a \"a\"")
		for _, name := range []string{".wh.a", ".wh.new", ".wh..wh..opq"} {
			if err := os.WriteFile(o.Path(name), nil, 0o644); err == nil {
				t.Errorf("creating %s worked, though it means a whiteout", name)
			}
			if err := os.Mkdir(o.Path(name), 0o755); err == nil {
				t.Errorf("mkdir %s worked, though it means a whiteout", name)
			}
			if err := os.Rename(o.Path("a"), o.Path(name)); err == nil {
				t.Errorf("renaming to %s worked", name)
			}
		}
		harness.WantTree(t, "merged", o.Point, "file a \"a\"")
	})
}
