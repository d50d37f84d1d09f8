package check

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/testkit/systest"
	"github.com/fuse-overlay/fuse-overlay/internal/view"
)

// shown returns the tree that a mount of the site shows, one object a line. Inode numbers are left
// out, and "error" stands for what cannot be used. dirTimes: with the times of directories.
func shown(s *site, dirTimes bool) string {
	var b strings.Builder
	systest.WithoutClones(func() {
		v, err := view.Open(s.config().Layers)
		must(s.t, err)
		defer v.Close()
		root, err := v.Root()
		must(s.t, err)
		show(&b, root, "", dirTimes)
	})
	return b.String()
}

func show(b *strings.Builder, d *view.Node, at string, dirTimes bool) {
	names, err := d.Names()
	if err != nil {
		fmt.Fprintf(b, "%s error\n", at)
	}
	for _, name := range names {
		n, err := d.Lookup(name)
		if err != nil || n == nil {
			fmt.Fprintf(b, "%s error\n", path.Join(at, name))
			continue
		}
		fmt.Fprintf(b, "%s %o %d %d %d\n", path.Join(at, name), n.Mode, n.UID, n.GID, n.Rdev)
		if !n.IsDir() || dirTimes {
			fmt.Fprintf(b, "  %v\n", n.Mtime)
		}
		switch n.Type() {
		case unix.S_IFDIR:
			show(b, n, path.Join(at, name), dirTimes)
		case unix.S_IFREG:
			data := make([]byte, n.Size)
			got, err := n.ReadAt(data, 0)
			fmt.Fprintf(b, "  %q %v\n", data[:got], err)
		}
		n.Forget()
	}
}

// dataOf returns the path and data of all files with data in a folder.
func dataOf(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	must(t, filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(p)
		if len(data) > 0 {
			fmt.Fprintf(&b, "%s %q\n", p, data)
		}
		return err
	}))
	return strings.ReplaceAll(b.String(), dir, "")
}
