package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// changedName is the file that the upper mount has and the other has not.
const changedName = "changed"

// compareWorkloads are the comparison that container engines make after each step of a build: the
// mount of the step, with one new file, and a read-only mount of the layers below it.
func compareWorkloads() []workload {
	return []workload{{
		name: "compare", group: containers, layout: (*layouts).shallow, writes: true, without: []kind{plain},
		about: "podman's comparison of a mount with one new file and a mount of the layers below it, on fresh mounts and again",
		gauge: func(ctx context.Context, t *task) (_ []reading, err error) {
			below, err := t.session.below()
			if err != nil {
				return nil, err
			}
			defer func() { err = errors.Join(err, below.detach()) }()
			if err := below.attach(ctx); err != nil {
				return nil, err
			}
			if err := touch(filepath.Join(t.root, changedName)); err != nil {
				return nil, err
			}
			var readings []reading
			for _, name := range []string{"compare, cold", "compare, again"} {
				took, err := elapsed(func() error { return wantOneChange(below.root, t.root) })
				if err != nil {
					return nil, err
				}
				readings = append(readings, reading{name, nanoseconds, float64(took.Nanoseconds())})
			}
			return readings, nil
		},
	}}
}

// wantOneChange compares two trees, and fails unless they differ by changedName alone.
func wantOneChange(old, changed string) error {
	c := comparison{roots: [2]string{old, changed}}
	if err := c.dir(""); err != nil {
		return err
	}
	if len(c.differ) != 1 || c.differ[0] != changedName {
		return fmt.Errorf("the trees differ by %q, not by %s alone", c.differ, changedName)
	}
	return nil
}

// comparison is the comparison of two trees by the calls of containers/storage, in their order:
// collectFileInfoForChanges of pkg/archive/changes_linux.go. On two mounts no object has the device
// and inode number of another one, so none is left out.
type comparison struct {
	roots  [2]string
	differ []string
}

// object is what the comparison reads of one object.
type object struct {
	there      bool
	st         unix.Stat_t
	capability string
	xattrs     string
}

// dir compares the directories at path, as walker.walk does.
func (c *comparison) dir(path string) error {
	var names []string
	for _, root := range c.roots {
		entries, err := os.ReadDir(filepath.Join(root, path))
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
			return err
		}
		for _, e := range entries {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		if err := c.entry(filepath.Join(path, name)); err != nil {
			return err
		}
	}
	return nil
}

func (c *comparison) entry(path string) error {
	var both [2]object
	isDir := false
	for i, root := range c.roots {
		if err := both[i].read(filepath.Join(root, path)); err != nil {
			return fmt.Errorf("%s: %w", filepath.Join(root, path), err)
		}
		isDir = isDir || both[i].st.Mode&unix.S_IFMT == unix.S_IFDIR
	}
	if !both[0].equals(&both[1]) {
		c.differ = append(c.differ, path)
	}
	if isDir {
		return c.dir(path)
	}
	return nil
}

// read reads an object, as walker.walk and walkchunk do.
func (o *object) read(path string) error {
	switch err := unix.Lstat(path, &o.st); err {
	case nil:
		o.there = true
	case unix.ENOENT:
		return nil
	default:
		return err
	}
	var buf [128]byte // as in Lgetxattr and Llistxattr of pkg/system/xattrs_linux.go
	n, err := unix.Lgetxattr(path, "security.capability", buf[:])
	if err != nil && err != unix.ENODATA && err != unix.EOPNOTSUPP {
		return err
	}
	o.capability = string(buf[:max(n, 0)])
	n, err = unix.Llistxattr(path, buf[:])
	if err != nil && err != unix.EOPNOTSUPP {
		return err
	}
	o.xattrs = string(buf[:max(n, 0)])
	return nil
}

// equals reports whether two objects count as equal: statDifferent of pkg/archive/changes_unix.go.
func (o *object) equals(other *object) bool {
	if o.there != other.there || o.capability != other.capability || o.xattrs != other.xattrs {
		return false
	}
	a, b := &o.st, &other.st
	isDir := a.Mode&unix.S_IFMT == unix.S_IFDIR
	return a.Mode == b.Mode && a.Uid == b.Uid && a.Gid == b.Gid && a.Rdev == b.Rdev &&
		(isDir || a.Mtim == b.Mtim && a.Size == b.Size)
}
