package check

import (
	"path"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/internal/ondisk"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/whiteout"
)

// checkIndex checks the copies of objects with several links.
func (c *Checker) checkIndex(r *report, index *sys.Dir, inUse bool) {
	if c.alone {
		return
	}
	c.checkRoots(r, index)
	names, err := namesIn(index)
	if err != nil {
		r.unreadable(stack.IndexDir, err)
		return
	}
	for _, name := range names {
		if !temporary(name) {
			c.indexEntry(r, index, name)
		} else if !inUse {
			c.leftovers(r, stack.IndexDir, index, []string{name}, inIndex("remove it", func(d *sys.Dir) error { return d.Unlink(name) }))
		}
	}
}

// checkRoots checks that the index belongs to the upper, and both to the first lower.
func (c *Checker) checkRoots(r *report, index *sys.Dir) {
	for _, root := range []struct {
		kind  Kind
		dir   *sys.Dir
		attr  ondisk.Attr
		layer int
	}{{OtherUpper, index, ondisk.Upper, stack.Upper}, {OtherLower, c.root(0), ondisk.Origin, stack.Upper + 1}} {
		o := object{ref: root.dir.Ref()}
		w := layerWalk{Checker: c, report: report{layer: r.layer}}
		if !w.read(&o) {
			r.findings = append(r.findings, w.findings...)
			continue
		}
		ns, has := o.marks[root.attr]
		if !has {
			continue
		}
		switch err := c.stack.HoldsRoot(ns, o.ref, root.layer); err {
		case nil:
		case unix.ESTALE:
			r.add(root.kind, stack.IndexDir, "", nil)
		default:
			r.unreadable(stack.IndexDir, err)
		}
	}
}

// indexEntry checks one copy.
func (c *Checker) indexEntry(r *report, index *sys.Dir, name string) {
	where := path.Join(stack.IndexDir, name)
	h, ok := ondisk.ParseIndexName(name)
	if !ok {
		r.add(UnknownEntry, where, "", nil)
		return
	}
	o := object{path: where, name: name, ref: index.At(name)}
	w := layerWalk{Checker: c, report: report{layer: r.layer}}
	if !w.read(&o) || len(w.findings) > 0 {
		r.findings = append(r.findings, w.findings...)
		return
	}
	if whiteout.IsDevice(&o.st) || o.is(unix.S_IFDIR) { // of an upper that was mounted with nfs_export=on
		return
	}
	ns, has := o.marks[ondisk.Origin]
	if !has {
		ns = c.names.OfRoot()
		r.add(EntryNoOrigin, where, "", inIndex("set "+ns.Name(ondisk.Origin)+" to the handle in the name", func(d *sys.Dir) error {
			return ns.SetHandle(d.At(name), h)
		}))
		return
	}
	own, ok, err := ns.Origin(o.ref)
	switch {
	case err != nil:
		r.unreadable(where, err)
	case !ok || own != h:
		r.add(EntryOtherOrigin, where, "", unlinkNamed(&o))
	default:
		c.indexedObject(r, &o, h)
	}
}

// unlinkNamed returns the repair that removes an index entry whose inode has other names; nil: it
// has none.
func unlinkNamed(o *object) *Repair {
	if o.st.Nlink < 2 {
		return nil
	}
	return inIndex("remove it from the index; its other names stay", func(d *sys.Dir) error { return d.Unlink(o.name) })
}

// indexedObject checks a copy by the object of a lower that it is a copy of.
func (c *Checker) indexedObject(r *report, o *object, h ondisk.Handle) {
	var st sys.Stat
	state, err := c.stack.StatByHandle(h, &st)
	switch {
	case err != nil:
		r.unreadable(o.path, err)
	case state == stack.HandleForeign:
		r.add(EntryForeign, o.path, "", nil)
	case state == stack.HandleStale && o.st.Nlink == 1:
		r.add(EntryOfNothing, o.path, "", nil)
	case state == stack.HandleFound && st.Mode&unix.S_IFMT != o.st.Mode&unix.S_IFMT:
		r.add(EntryOtherType, o.path, "", nil)
	case state == stack.HandleFound:
		c.indexedLinks(r, o, int(st.Nlink))
	}
}

// indexedLinks checks the link count of a copy. lower is that of the lower's object.
func (c *Checker) indexedLinks(r *report, o *object, lower int) {
	ns, has := o.marks[ondisk.Nlink]
	if !has {
		return
	}
	if _, ok, err := ns.LinkCount(o.ref); err != nil || !ok {
		if o.st.Nlink == 1 { // else its names in the upper are reported
			r.add(InvalidNlink, o.path, "", nil)
		}
		return
	}
	links, _, err := stack.LinksOf(ns, o.ref, int(o.st.Nlink), lower)
	if err == nil && links == 0 && o.st.Nlink == 1 {
		r.add(EntryUnnamed, o.path, "", inIndex("remove it", func(d *sys.Dir) error { return d.Unlink(o.name) }))
	}
}

// inIndex returns a repair in the index.
func inIndex(text string, mend func(index *sys.Dir) error) *Repair {
	return &Repair{text, func(to *Writer) error {
		index, err := to.work.OpenDir(stack.IndexDir)
		if err != nil {
			return err
		}
		defer index.Close()
		return mend(index)
	}}
}
