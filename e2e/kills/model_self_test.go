package kills

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// plainWork makes operations in a folder that is no mount, and returns the tree that must be there.
func plainWork(t *testing.T, dir string, operations int) *tree {
	t.Helper()
	for _, shared := range sharedDirs {
		harness.Mkdir(t, filepath.Join(dir, shared))
	}
	defer unix.Umask(unix.Umask(0))
	p := &policy{Through: true, Redirects: true, Replaces: true, Tmpfiles: true, Trusted: true, Owners: []int{0, 1000}}
	g, made := newGenerator(1, 0, newTree(true, true), p), process{root: dir}
	for range operations {
		o := g.next()
		if err := made.do(&o); err != nil {
			t.Fatalf("%s: %v", o, err)
		}
		g.tree.apply(&o, p, false)
	}
	for i, at := range g.tree.Open {
		if at != notOpen {
			harness.Check(t, unix.Close(made.fds[i]))
		}
	}
	g.tree.daemonReplied()
	g.tree.closeAll()
	return g.tree
}

func compareDir(t *testing.T, model *tree, dir string) []string {
	t.Helper()
	have, err := look(dir, false)
	harness.Check(t, err)
	return compare(model, have["0"])
}

// The operations do in a plain folder what the model has, and the comparison finds each change
// beside them.
func TestModel(t *testing.T) {
	harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		model := plainWork(t, e.Dir, 1000)
		for _, fault := range compareDir(t, model, e.Dir) {
			t.Error(fault)
		}
		file, linked, dir := "", "", ""
		for _, p := range model.paths() {
			switch o := model.at(p); {
			case o.isDir():
				dir = p
			case o.isFile() && model.links(o) > 1:
				linked = p
			case o.isFile() && len(o.Data) > 0:
				file = p
			}
		}
		if file == "" || linked == "" || dir == "" || t.Failed() {
			t.Fatalf("%d names: no file, no linked file or no directory", len(model.Names))
		}
		path := filepath.Join(e.Dir, file)
		model.at(file).Mtime = 1_000_000_000
		for what, damage := range map[string]func(path string) error{
			"content":   func(path string) error { return os.WriteFile(path, make([]byte, len(model.at(file).Data)), 0) },
			"size":      func(path string) error { return os.Truncate(path, 0) },
			"mode":      func(path string) error { return os.Chmod(path, 0o111) },
			"owner":     func(path string) error { return os.Chown(path, 5, 5) },
			"xattr":     func(path string) error { return unix.Setxattr(path, "user.other", []byte("x"), 0) },
			"time":      func(path string) error { return harness.SetTimes(path, time.Unix(999_999_999, 0)) },
			"one less":  os.Remove,
			"one more":  func(string) error { return os.Mkdir(filepath.Join(e.Dir, "s0/w0-z"), 0o755) },
			"broken":    func(string) error { return breakLink(filepath.Join(e.Dir, linked)) },
			"file, dir": func(path string) error { return os.Rename(path, filepath.Join(e.Dir, dir, "w0-x")) },
		} {
			t.Run(what, func(t *testing.T) {
				copied := filepath.Join(t.TempDir(), "copy")
				harness.Shell(t, "", fmt.Sprintf("cp -a %s %s; touch -d @1000000000 %s", e.Dir, copied, path))
				defer harness.Shell(t, "", fmt.Sprintf("rm -rf %[2]s/*; cp -a %[1]s/. %[2]s", copied, e.Dir))
				harness.Check(t, damage(path))
				if faults := compareDir(t, model, e.Dir); len(faults) == 0 {
					t.Error("the comparison does not find it")
				}
			})
		}
	})
}

// breakLink makes one of several names a file of its own.
func breakLink(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := os.Remove(path); err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o644)
}

func TestMayHold(t *testing.T) {
	o := object{Kind: unix.S_IFREG, Data: []byte("old content")}
	o.write([]byte("new"))
	o.write([]byte("new, and much longer"))
	for text, want := range map[string]bool{
		"old content": true, "new": true, "new, and much longer": true, "new content": true, "new, and m": true,
		"old content\x00\x00\x00longer": true, // a later page was stored first
		"":                              false, "ne": false, "old": true, "xld content": false, "new\x00content": false,
		"new, and much longer and more": false,
	} {
		if got := o.mayHold([]byte(text)); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
	o.sync()
	if o.mayHold([]byte("old content")) || !o.mayHold([]byte("new, and much longer")) {
		t.Error("after a sync")
	}
}
