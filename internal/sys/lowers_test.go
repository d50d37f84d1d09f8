package sys

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// threeLayers are two on the mount of the test's folder, the second behind a symbolic link, and one
// on a mount between.
func threeLayers(t *testing.T) []string {
	t.Helper()
	path := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(path, "between"), 0o755))
	mountTmpfs(t, filepath.Join(path, "between"))
	layers := []string{filepath.Join(path, "a/one"), filepath.Join(path, "between/two"), filepath.Join(path, "b/c/three")}
	for i, l := range layers {
		write(t, filepath.Join(l, "name"), fmt.Sprint(i))
	}
	link := filepath.Join(path, "link")
	must(t, os.Symlink(layers[2], link))
	layers[2] = link
	return layers
}

func checkLowers(t *testing.T, dirs []*Dir) {
	t.Helper()
	for i, d := range dirs {
		f, err := d.At("name").OpenFile(unix.O_RDONLY)
		must(t, err)
		buf := make([]byte, 8)
		n, err := f.Pread(buf, 0)
		must(t, err)
		f.Close()
		if got := string(buf[:n]); got != fmt.Sprint(i) {
			t.Errorf("layer %d holds what %s should", i, got)
		}
		_, err = d.OpenDir("..")
		want(t, "the way out of a layer", err, unix.EXDEV)
		d.Close()
	}
}

// Layers of one mount share a clone; one on another mount has its own. None can be written.
func TestOpenLowers(t *testing.T) {
	paths := threeLayers(t)
	fds, clones := openFDs(t), 0
	SetFault(func(op Op) error {
		if op.Call == "open_tree" {
			clones++
		}
		return nil
	})
	dirs, _, err := OpenLowers(append(paths, paths[0]))
	SetFault(nil)
	must(t, err)
	if clones != 2 {
		t.Errorf("%d clones", clones)
	}
	for i, d := range dirs {
		want(t, fmt.Sprintf("making something in layer %d", i), d.Mkdir("new", 0o755), unix.EROFS)
	}
	dirs[3].Close()
	checkLowers(t, dirs[:3])
	if now := openFDs(t); now != fds {
		t.Errorf("%d descriptors are left", now-fds)
	}
}

// What is mounted inside a layer later, on a mount whose changes are shared with its copies, does
// not show in the clone.
func TestClonesAreNobodysPeers(t *testing.T) {
	path := t.TempDir()
	mountTmpfs(t, path)
	must(t, unix.Mount("", path, "", unix.MS_SHARED, ""))
	for _, dir := range []string{"one", "two", "upper", "work"} {
		write(t, filepath.Join(path, dir, "sub/below"), dir)
	}
	lowers, _, err := OpenLowers([]string{filepath.Join(path, "one"), filepath.Join(path, "two")})
	must(t, err)
	alone, cloned, err := OpenLower(filepath.Join(path, "one"))
	must(t, err)
	upper, work, err := OpenUpper(filepath.Join(path, "upper"), filepath.Join(path, "work"), 0)
	must(t, err)
	if !cloned {
		t.Error("no clone")
	}
	for i, dir := range []string{"one", "two", "upper", "work"} {
		mountTmpfs(t, filepath.Join(path, dir, "sub"))
		for _, d := range []*Dir{lowers[i%2], alone, upper, work} {
			sub, err := d.OpenDir("sub")
			must(t, err)
			var st Stat
			want(t, dir, sub.At("below").Stat(&st), nil)
			sub.Close()
		}
	}
	for _, d := range []*Dir{lowers[0], lowers[1], alone, upper, work} {
		d.Close()
	}
}

func TestOpenLowersWithoutClones(t *testing.T) {
	paths := threeLayers(t)
	for _, call := range []string{"open_tree", "mount_setattr"} {
		refusing(call, unix.EPERM, func() {
			dirs, _, err := OpenLowers(paths)
			must(t, err)
			checkLowers(t, dirs)
		})
	}
}

func TestOpenLowersFails(t *testing.T) {
	paths := threeLayers(t)
	fds := openFDs(t)
	for i := range paths {
		bad := append([]string{}, paths...)
		bad[i] += "/nothing"
		dirs, failed, err := OpenLowers(bad)
		if dirs != nil || failed != i || err != unix.ENOENT {
			t.Errorf("layer %d is not there: %v, %d, %v", i, dirs, failed, err)
		}
	}
	for n := range 30 { // each call fails once
		i := 0
		SetFault(func(Op) error {
			if i++; i == n+1 {
				return unix.EIO
			}
			return nil
		})
		dirs, _, err := OpenLowers(paths)
		SetFault(nil)
		if err == nil {
			checkLowers(t, dirs)
		}
	}
	if now := openFDs(t); now != fds {
		t.Errorf("%d descriptors are left", now-fds)
	}
}
