package stack

import (
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/copyup"
	"github.com/fuse-overlay/fuse-overlay/internal/ondisk"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// With index=on a lower's object with several links stays one object. Its copy is made in the directory index beside the
// staging directory, under its handle, and the names that are changed become links of that. A name that only a lower has
// leads there too: by the handle of what is under it. Compare fs/overlayfs/copy_up.c, dir.c and util.c (ovl_nlink_start).

// Shared is a lower's object with several links. The caller guards it: all but Diff and Recorded is immutable, and these
// change while nobody looks at the tree.
type Shared struct {
	// Dev and Ino are the identity of the lower's object; 0 where that could not be found.
	Dev, Ino uint64
	// Diff is how many links the object has more than its copy.
	Diff int
	// Recorded: the copy says so.
	Recorded bool

	name  string // in the index
	links int    // of the lower's object; 0: not known
}

// KeepsLinks reports whether linked objects of lowers stay one object over a copy-up.
func (s *Stack) KeepsLinks() bool { return s.index != nil }

// Warnings are what an operator should know of the stack: in what it is not as asked for.
func (s *Stack) Warnings() []string { return s.warnings }

// linksOf is how many links an object has in all, whose copy is r and has copied ones, and whose lower's object has lower ones.
// Where the copy does not say, as many as it has itself (ovl_get_nlink). settled: it says so by its own number.
func (s *Stack) linksOf(r sys.Ref, copied, lower int) (links int, settled bool, err error) {
	l, ok, err := s.format.Xattrs.LinkCount(r)
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

// share tells of an object of a lower whether it has several links that a copy-up is to keep; nil if not. st is its own.
func (s *Stack) share(r sys.Ref, st *sys.Stat) (*Shared, error) {
	if s.index == nil || !manyLinks(st) {
		return nil, nil
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG && !s.format.Xattrs.OnAnyType() {
		return nil, nil // the copy could not say how many links there are: no attributes user.* on what is no file
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

// lookForCopy fills in f, which a lower has under a name, with the copy that another name of the object has been changed
// through.
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

// countLinks makes the link count of a copy that of the object.
func (s *Stack) countLinks(r sys.Ref, f *Found) error {
	copied := int(f.Stat.Nlink)
	links, settled, err := s.linksOf(r, copied, f.Shared.links)
	if err != nil {
		return err
	}
	f.Shared.Diff, f.Shared.Recorded = links-copied, settled
	f.Shared.Count(&f.Stat)
	return nil
}

// Recount reads anew how many links the object has more than its copy, if there is a copy. The
// number of an earlier look-up may have changed since. Precondition: no other goroutine uses x.
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
	links, settled, err := s.linksOf(r, copied, x.links)
	if err == nil {
		x.Diff, x.Recorded = links-copied, settled
	}
	return err
}

// Count turns the link count of the copy, in st, into that of the object.
func (x *Shared) Count(st *sys.Stat) { addLinks(&st.Nlink, x.Diff) }

// addLinks is for a link count of whatever type it has on this machine.
func addLinks[T uint16 | uint32 | uint64](count *T, diff int) { *count = T(max(0, int(*count)+diff)) }

// Copy is where the copy of the object is, once there is one.
func (s *Stack) Copy(x *Shared) sys.Ref { return s.index.At(x.name) }

// isCopy reports whether the upper's object f, which says that it is a copy of h, is the one in the index.
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

// PublishCopy brings a staged copy of the object to the index: now all its names lead there.
func (s *Stack) PublishCopy(x *Shared, staged *copyup.Staged) error {
	if err := staged.Publish(s.index, x.name); err != nil {
		return err
	}
	x.Diff, x.Recorded = x.links-1, true // as the copy says, see linksMarks
	return nil
}

// linksMarks says, in a staged copy for the index, how many links there are.
func (s *Stack) linksMarks(x *Shared) []copyup.Mark {
	if x == nil {
		return nil
	}
	return []copyup.Mark{{Name: s.format.Xattrs.Name(ondisk.Nlink), Value: ondisk.LinkCount{Diff: x.links - 1}.Encode()}}
}

// LinkUp makes a name that only a lower has of an object with a copy a link of that (ovl_link_up). Each step leaves a count
// that is right. up is d's directory of the upper. Precondition: nobody else uses x.
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
		if err := s.format.Xattrs.SetLinkCount(r, ondisk.LinkCount{OfLower: true, Diff: int(st.Nlink) + x.Diff - x.links}); err != nil {
			return err
		}
	}
	if err := up.Link(r, name); err != nil {
		return err
	}
	x.Diff--
	_ = up.Ref().Utimes(before.Atim, before.Mtim) // nothing changes in the merged view; the link has decided
	s.CopiedUp(d, name)
	x.Recorded = false
	return s.RecordLinks(x)
}

// RecordLinks makes the copy say how many links there are so that it stays true whatever becomes of its names in the upper, before
// one is added or removed (ovl_nlink_start). Precondition: nobody else uses x.
func (s *Stack) RecordLinks(x *Shared) error {
	if x.Recorded {
		return nil
	}
	err := s.format.Xattrs.SetLinkCount(s.Copy(x), ondisk.LinkCount{Diff: x.Diff})
	x.Recorded = err == nil
	return err
}

// LinkRemoved removes the copy from the index when its object has lost its last name (ovl_cleanup_index).
func (s *Stack) LinkRemoved(x *Shared) {
	var st sys.Stat
	if s.Copy(x).Stat(&st) == nil && st.Nlink == 1 && x.Diff <= -1 {
		_ = s.index.Unlink(x.name) // what stays is removed at the next mount
	}
}

// Learn takes over what was found out about the lower's object by another of its names. Precondition: nobody else uses x.
func (x *Shared) Learn(from *Shared) {
	if x.links == 0 {
		x.links = from.links
	}
}
