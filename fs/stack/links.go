package stack

import (
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/copyup"
	"github.com/fuse-overlay/fuse-overlay/internal/ondisk"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// With index=on a lower's object with several links stays one object. Its copy is made in the
// directory index beside the staging directory. The copy's name is the handle of the lower's
// object. A name that is changed becomes a link of the copy. A name that only a lower has leads to
// the copy by the handle of its object. Compare fs/overlayfs/copy_up.c, dir.c and util.c
// (ovl_nlink_start).

// Shared is a lower's object with several links. Diff and Recorded are guarded by the caller, all
// else is immutable.
type Shared struct {
	// Dev and Ino are those of the lower's object; 0: it was not found.
	Dev, Ino uint64
	// Diff is how many links the object has more than its copy.
	Diff int
	// Recorded: the nlink xattr of the copy has Diff, relative to the copy's own link count.
	Recorded bool

	name  string // in the index
	links int    // of the lower's object; 0: not known
}

// KeepsLinks reports whether linked objects of lowers stay one object over a copy-up (index=on).
func (s *Stack) KeepsLinks() bool { return s.index != nil }

// Warnings are the options that could not be satisfied, for the log.
func (s *Stack) Warnings() []string { return s.warnings }

// LinksOf returns the link count of an object by the nlink xattr of its copy r. The copy has copied
// links, the lower's object has lower links. Without a usable xattr the count is copied
// (ovl_get_nlink). recorded: the xattr is relative to the copy's own link count.
func LinksOf(ns ondisk.Namespace, r sys.Ref, copied, lower int) (links int, recorded bool, err error) {
	l, ok, err := ns.LinkCount(r)
	if err != nil {
		return 0, false, err
	}
	links = copied + l.Diff
	if l.OfLower {
		links = lower + l.Diff
	}
	if !ok || links < 0 || l.OfLower && lower == 0 {
		return copied, false, nil
	}
	return links, !l.OfLower, nil
}

// share returns the Shared of a lower's object; nil: a copy-up does not keep its links. st has its
// attributes.
func (s *Stack) share(r sys.Ref, st *sys.Stat) (*Shared, error) {
	if s.index == nil || !manyLinks(st) {
		return nil, nil
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG && !s.xattrs.OnAnyType() {
		return nil, nil // the copy could not have an nlink xattr: user.* needs a regular file
	}
	h, ok, err := s.handleOf(r, st.Dev)
	if err != nil || !ok {
		return nil, err
	}
	name := h.IndexName()
	if name == "" {
		return nil, nil
	}
	return &Shared{Dev: st.Dev, Ino: st.Ino, name: name, links: int(st.Nlink)}, nil
}

// lookForCopy replaces f, which a lower has under a name, by the object's copy in the index, if
// another name of the object has been changed.
func (s *Stack) lookForCopy(parts []part, o LayerDirs, name string, layer int, f *Found) error {
	h, err := o.Layer(layer)
	if err != nil {
		return err
	}
	if f.Shared, err = s.share(h.At(name), &f.Stat); err != nil || f.Shared == nil {
		return err
	}
	r := s.Copy(f.Shared)
	var st sys.Stat
	switch err := s.Shown(Upper, r).Stat(&st); {
	case err == unix.ENOENT:
		return nil
	case err != nil:
		return err
	case st.Mode&unix.S_IFMT != f.Stat.Mode&unix.S_IFMT:
		return unix.EIO
	}
	f.Layer, f.Stat = Upper, st
	if err := s.countLinks(r, f); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return err
	}
	return s.readData(parts, o, name, Upper, r, f)
}

// countLinks replaces the link count of a copy by that of the object.
func (s *Stack) countLinks(r sys.Ref, f *Found) error {
	copied := int(f.Stat.Nlink)
	links, recorded, err := LinksOf(s.xattrs, r, copied, f.Shared.links)
	if err != nil {
		return err
	}
	f.Shared.Diff, f.Shared.Recorded = links-copied, recorded
	f.Shared.Count(&f.Stat)
	return nil
}

// Recount reads anew how many links the object has more than its copy, if there is a copy. The
// number of an earlier lookup may have changed since. Precondition: no other goroutine uses x.
func (s *Stack) Recount(x *Shared) error {
	var st sys.Stat
	r := s.Copy(x)
	switch err := r.Stat(&st); err {
	case nil:
	case unix.ENOENT:
		return nil
	default:
		return err
	}
	copied := int(st.Nlink)
	links, recorded, err := LinksOf(s.xattrs, r, copied, x.links)
	if err == nil {
		x.Diff, x.Recorded = links-copied, recorded
	}
	return err
}

// Count replaces the link count of the copy, in st, by that of the object.
func (x *Shared) Count(st *sys.Stat) { addLinks(&st.Nlink, x.Diff) }

// addLinks adds to a link count, whose type depends on the machine.
func addLinks[T uint16 | uint32 | uint64](count *T, diff int) { *count = T(max(0, int(*count)+diff)) }

// Copy is where the copy of the object is, or will be.
func (s *Stack) Copy(x *Shared) sys.Ref { return s.index.At(x.name) }

// isCopy returns the Shared of the upper's object f, whose origin is h, if f is the copy in the
// index.
func (s *Stack) isCopy(h *ondisk.Handle, f *Found) (*Shared, error) {
	if s.index == nil || f.Stat.Nlink < 2 {
		return nil, nil
	}
	x := &Shared{name: h.IndexName()}
	if x.name == "" {
		return nil, nil
	}
	var st sys.Stat
	switch err := s.Copy(x).Stat(&st); {
	case err == unix.ENOENT:
		return nil, nil
	case err != nil:
		return nil, err
	case st.Dev != f.Stat.Dev || st.Ino != f.Stat.Ino:
		return nil, nil // the link was broken, with index=off
	}
	return x, nil
}

// PublishCopy renames a staged copy of the object into the index. From then on all its names lead
// there.
func (s *Stack) PublishCopy(x *Shared, staged *copyup.Staged) error {
	if err := staged.Publish(s.index, x.name); err != nil {
		return err
	}
	x.Diff, x.Recorded = x.links-1, true // see nlinkXattrs
	return nil
}

// nlinkXattrs returns the nlink xattr of a staged copy for the index.
func (s *Stack) nlinkXattrs(x *Shared) []copyup.Xattr {
	if x == nil {
		return nil
	}
	return []copyup.Xattr{{Name: s.xattrs.Name(ondisk.Nlink), Value: ondisk.LinkCount{Diff: x.links - 1}.Encode()}}
}

// LinkUp makes a name that only a lower has a link of the object's copy (ovl_link_up). After each
// step the link count is correct. up is d's directory of the upper. Precondition: no other
// goroutine uses x.
func (s *Stack) LinkUp(d *Dir, up *sys.Dir, name string, x *Shared) error {
	r := s.Copy(x)
	var st, before sys.Stat
	if err := r.Stat(&st); err != nil {
		return err
	}
	if err := up.Ref().Stat(&before); err != nil {
		return err
	}
	if err := s.MarkImpure(d, up); err != nil {
		return err
	}
	if x.links != 0 {
		x.Recorded = false
		count := ondisk.LinkCount{OfLower: true, Diff: int(st.Nlink) + x.Diff - x.links}
		if err := s.xattrs.SetLinkCount(r, count); err != nil {
			return err
		}
	}
	if err := up.Link(r, name); err != nil {
		return err
	}
	x.Diff--
	_ = up.Ref().Utimes(before.Atim, before.Mtim) // nothing changes in the merged view; the link exists in any case
	s.CopiedUp(d, name)
	x.Recorded = false
	return s.RecordLinks(x)
}

// RecordLinks writes Diff to the nlink xattr of the copy, relative to the copy's own link count. So
// the count stays correct when names in the upper are added or removed. Call it before such a
// change (ovl_nlink_start). Precondition: no other goroutine uses x.
func (s *Stack) RecordLinks(x *Shared) error {
	if x.Recorded {
		return nil
	}
	err := s.xattrs.SetLinkCount(s.Copy(x), ondisk.LinkCount{Diff: x.Diff})
	x.Recorded = err == nil
	return err
}

// LinkRemoved removes the copy from the index if its object has lost its last name
// (ovl_cleanup_index).
func (s *Stack) LinkRemoved(x *Shared) {
	var st sys.Stat
	if s.Copy(x).Stat(&st) == nil && st.Nlink == 1 && x.Diff <= -1 {
		_ = s.index.Unlink(x.name) // after an error the next mount removes it
	}
}

// Learn takes over the link count that another lookup of the lower's object has found.
// Precondition: no other goroutine uses x.
func (x *Shared) Learn(from *Shared) {
	if x.links == 0 {
		x.links = from.links
	}
}
