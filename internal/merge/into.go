package merge

import (
	"errors"
	"fmt"
	"path"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/copyup"
	"github.com/fuse-overlay/fuse-overlay/fs"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/internal/view"
)

// copying is one copy of a merged tree.
type copying struct {
	dresser
	copier copyup.Copier
	links  map[uint64]string // the first path of a file with several names, by its number in the view
	root   *sys.Dir
	late   []late
	done   func()
}

// Into copies the merged tree of the layers to a new directory, and changes nothing in the layers.
// done is called after each object. After an error there is no new directory.
func Into(cfg fs.Config, target string, done func()) error {
	cfg.IDs, cfg.ReadOnly = nil, true
	if cfg.Work != "" {
		if err := findIndex(&cfg); err != nil {
			return fmt.Errorf("workdir %q: %w", cfg.Work, err)
		}
	}
	v, err := view.Open(cfg)
	if err != nil {
		return err
	}
	defer v.Close()
	parent, err := sys.OpenForChanges(filepath.Dir(target))
	if err != nil {
		return fmt.Errorf("%q: %w", filepath.Dir(target), err)
	}
	defer parent.Close()
	name := filepath.Base(target)
	var st sys.Stat
	switch err := parent.At(name).Stat(&st); err {
	case unix.ENOENT:
	case nil:
		return fmt.Errorf("%q: %w", target, unix.EEXIST)
	default:
		return fmt.Errorf("%q: %w", target, err)
	}
	c := copying{dresser: dresser{names: cfg.Features.Names}, links: map[uint64]string{}, done: done}
	return c.copyTo(v, parent, name)
}

// findIndex is useIndex for the index in cfg.Work.
func findIndex(cfg *fs.Config) error {
	work, err := sys.OpenForChanges(cfg.Work)
	if err != nil {
		return err
	}
	defer work.Close()
	index, err := openIndex(work)
	if index == nil {
		return err
	}
	defer index.Close()
	return useIndex(cfg, index)
}

// copyTo copies the tree to a directory with another name, which no other process knows, and
// renames that.
func (c *copying) copyTo(v *view.View, parent *sys.Dir, name string) (err error) {
	build := ".fuse-overlay-merge-" + name
	if err := parent.Mkdir(build, 0o700); err != nil { // EEXIST: another copy is being made, or was killed
		return fmt.Errorf("%q: %w", build, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, copyup.OpenWork(parent).Remove(build))
		}
	}()
	if c.root, err = parent.OpenDir(build); err != nil {
		return err
	}
	defer c.root.Close()
	root, err := v.Root()
	if err != nil {
		return err
	}
	if err := c.dir(c.root, root, ""); err != nil {
		return err
	}
	for _, l := range c.late {
		d, err := c.root.OpenDir(path.Dir(l.Path))
		if err != nil {
			return err
		}
		err = setFlags(d.At(path.Base(l.Path)), flags, l.Flags)
		d.Close()
		if err != nil {
			return at(l.Path, err)
		}
	}
	if err := c.root.SyncFS(); err != nil {
		return err
	}
	if err := parent.RenameNew(build, parent, name); err != nil {
		return err
	}
	return parent.Sync()
}

// dir copies what is in a directory, and then its attributes.
func (c *copying) dir(to *sys.Dir, n *view.Node, dir string) error {
	names, err := n.Names()
	if err != nil {
		return at(dir, err)
	}
	for _, name := range names {
		p := path.Join(dir, name)
		child, err := n.Lookup(name)
		if err == nil && child == nil {
			err = unix.ESTALE // another process has changed the layers
		}
		if err == nil {
			err = c.object(to, child, name, p)
			child.Forget()
		} else {
			err = at(p, err)
		}
		if err != nil {
			return err
		}
	}
	a, err := attributesOf(n)
	if err != nil {
		return at(dir, err)
	}
	if a.Flags&protection != 0 {
		c.late = append(c.late, late{dir, a.Flags})
		a.Flags &^= protection
	}
	return at(dir, explain(&a, c.dress(to.Ref(), &a)))
}

// object copies an object, and what is in it.
func (c *copying) object(to *sys.Dir, n *view.Node, name, p string) error {
	if !n.IsDir() && n.Nlink > 1 {
		if first := c.links[n.Ino]; first != "" {
			return at(p, c.link(to, name, first))
		}
		c.links[n.Ino] = p
	}
	if err := c.copy(to, name, n, &c.copier); err != nil {
		return at(p, explain(&attributes{UID: n.UID, GID: n.GID}, err))
	}
	c.done()
	if !n.IsDir() {
		flags, err := n.InodeFlags()
		if flags&protection != 0 {
			c.late = append(c.late, late{p, flags})
		}
		return at(p, err)
	}
	d, err := to.OpenDir(name)
	if err != nil {
		return at(p, err)
	}
	defer d.Close()
	return c.dir(d, n, p)
}

// link gives a file that was copied another name.
func (c *copying) link(to *sys.Dir, name, first string) error {
	d, err := c.root.OpenDir(path.Dir(first))
	if err != nil {
		return err
	}
	defer d.Close()
	return to.Link(d.At(path.Base(first)), name)
}

// explain returns an error that names an owner that this process cannot give.
func explain(a *attributes, err error) error {
	if err == unix.EPERM {
		return fmt.Errorf("%d:%d: %w", a.UID, a.GID, errNoOwner)
	}
	return err
}
