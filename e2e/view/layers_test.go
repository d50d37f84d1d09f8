package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// manyLayers makes n tables, the topmost first, and what they merge to. Every layer has a file of its own; half of the
// files are overridden from above; some are whited out, some directories are opaque.
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

// (e) 128 and 500 lowers.
func TestWalkManyLowers(t *testing.T) {
	needDaemon(t)
	eachMode(t, allModes, func(t *testing.T, e *env) {
		for _, n := range []int{128, 500} {
			t.Run(fmt.Sprint(n), func(t *testing.T) { manyLowers(t, newEnv(t, e.mode), n) })
		}
	})
}

func manyLowers(t *testing.T, e *env, n int) {
	tables, merged := manyLayers(n)
	o := e.mounted(t, tables...)
	wantTree(t, "merged", o.mnt, merged)
	last := fmt.Sprintf("own/f%03d", n-1)
	appendTo(t, o.path(last), " changed")
	check(t, os.Remove(o.path("pairs/p000")))
	check(t, os.RemoveAll(o.path("stack/d1")))
	check(t, os.Mkdir(o.path("stack/d1"), 0o755))
	write(t, o.path("stack/d1/new"), "new")
	o.remount()
	wantText(t, o.path(last), fmt.Sprintf("layer %d changed", n-1))
	wantAbsent(t, o.path("pairs/p000"))
	wantNames(t, o.path("stack/d1"), "new")
	o.unmount()
	wantTree(t, "the upper", o.upper, fmt.Sprintf(
		"file %s \"layer %d changed\"\nwhite pairs/p000\nopaque stack/d1\nfile stack/d1/new \"new\"", last, n-1))
	wantText(t, filepath.Join(o.lowers[n-1], last), fmt.Sprintf("layer %d", n-1))
}

// Whiteouts and opaque marks in every form that other programs write are read, in any layer.
func TestWhiteoutFormsRead(t *testing.T) {
	needDaemon(t) // the kernel does not read the tar forms
	eachMode(t, allModes, func(t *testing.T, e *env) {
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
			o := newEnv(t, e.mode).mounted(t, top, bottom)
			wantTree(t, "merged", o.mnt, want)
			for _, name := range []string{".wh.a", "a", "d/.wh.x", "d/x", "gone", "aufs/.wh..wh..opq", "xw/f1"} {
				wantAbsent(t, o.path(name))
			}
			// What was whited out can be made again, and hides the lower then.
			check(t, os.MkdirAll(o.path("gone/deep"), 0o755))
			write(t, o.path("a"), "new")
			write(t, o.path("aufs/below"), "new")
			o.remount()
			wantTree(t, "after a remount", o.mnt, want+"\nfile a \"new\"\ndir gone/deep\nfile aufs/below \"new\"")
		})
		t.Run("upper", func(t *testing.T) {
			e := newEnv(t, e.mode)
			o := e.overlay(t, bottom)
			build(t, e, o.upper, top)
			o.mount()
			wantTree(t, "merged", o.mnt, want)
			write(t, o.path("a"), "new")
			check(t, os.Remove(o.path("op/own")))
			check(t, os.Remove(o.path("aufs/own")))
			check(t, os.Remove(o.path("aufs")))
			check(t, os.Remove(o.path("xw/f2")))
			o.remount()
			wantTree(t, "after a remount", o.mnt, "file a \"new\"\nfile d/y \"y\"\ndir op\ndir xw\nfile fuse/own \"o\"")
		})
	})
}

func TestWhiteoutFormsReadTrusted(t *testing.T) {
	eachMode(t, onlyRoot, func(t *testing.T, e *env) {
		o := e.mounted(t,
			"opaque op\nfile op/own \"o\"\nfile xw/f1 \"\"\nxattr xw/f1 trusted.overlay.whiteout y\nxattr xw trusted.overlay.opaque x\nwhite c",
			"file op/below \"b\"\nfile xw/f1 \"1\"\nfile xw/f2 \"2\"\nfile c \"c\"")
		wantTree(t, "merged", o.mnt, "file op/own \"o\"\nfile xw/f2 \"2\"")
	})
}

// Where 0/0 devices are not wanted, whiteouts are written in the tar form.
func TestWhiteoutWrittenAsTarForm(t *testing.T) {
	needDaemon(t)
	eachMode(t, allModes, func(t *testing.T, e *env) {
		t.Setenv("FUSE_OVERLAYFS_DISABLE_OVL_WHITEOUT", "y")
		o := e.mounted(t, "file a \"a\"\nfile d/x \"x\"\nfile b \"b\"")
		check(t, os.Remove(o.path("a")))
		check(t, os.RemoveAll(o.path("d")))
		check(t, os.Remove(o.path("b")))
		write(t, o.path("b"), "again")
		wantTree(t, "merged", o.mnt, "file b \"again\"")
		o.remount()
		wantTree(t, "merged after a remount", o.mnt, "file b \"again\"")
		o.unmount()
		wantTree(t, "the upper", o.upper, "file b \"again\"\nfile .wh.a \"\"\nfile .wh.d \"\"")
	})
}

// A FIFO of that name, a whiteout's own name and private attributes are refused or hidden, never half there.
func TestPrivateNames(t *testing.T) {
	needDaemon(t)
	eachMode(t, rootModes, func(t *testing.T, e *env) {
		o := e.mounted(t, "file a \"a\"")
		for _, name := range []string{".wh.a", ".wh.new", ".wh..wh..opq"} {
			if err := os.WriteFile(o.path(name), nil, 0o644); err == nil {
				t.Errorf("creating %s worked, though it means a whiteout", name)
			}
			if err := os.Mkdir(o.path(name), 0o755); err == nil {
				t.Errorf("mkdir %s worked, though it means a whiteout", name)
			}
			if err := os.Rename(o.path("a"), o.path(name)); err == nil {
				t.Errorf("renaming to %s worked", name)
			}
		}
		wantTree(t, "merged", o.mnt, "file a \"a\"")
	})
}
