package stack

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/copyup"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/whiteout"
)

// With index=on a lower's object with several links stays one object. Its copy is made in the directory index beside the
// staging directory, under its handle, and the names that are changed become links of that. A name that only a lower has
// leads there too: by the handle of what is under it. Compare fs/overlayfs/copy_up.c, dir.c and util.c (ovl_nlink_start).

// indexName is the directory of copies in the work directory (OVL_INDEXDIR_NAME).
const indexName = "index"

// Shared is a lower's object with several links. The caller guards it: all but Diff and Settled is immutable, and these
// change while nobody looks at the tree.
type Shared struct {
	// Dev and Ino are the identity of the lower's object; 0 where that could not be found.
	Dev, Ino uint64
	// Diff is how many links the object has more than its copy.
	Diff int
	// Settled: the copy says so.
	Settled bool

	name  string // in the index
	links int    // of the lower's object; 0: not known
}

// Reasons why an index cannot be used.
var (
	errOtherLower = errors.New("belongs to another first lowerdir: with index=on the layers must be those it was made with (ESTALE)")
	errOtherUpper = errors.New("has an index that belongs to another upperdir: mount with that one, or remove its directory index, " +
		"or mount with index=off (ESTALE)")
)

// KeepsLinks reports whether linked objects of lowers stay one object over a copy-up.
func (s *Stack) KeepsLinks() bool { return s.index != nil }

// Warnings are what an operator should know of the stack: in what it is not as asked for.
func (s *Stack) Warnings() []string { return s.warnings }

// openIndex opens the directory of copies, makes sure that it belongs to these layers, and removes from it what is of no use
// (ovl_get_indexdir). Where it cannot be there is none, as in the kernel, and a warning.
func (s *Stack) openIndex(c Config) error {
	if !c.Features.Index || !s.Writable() {
		return nil
	}
	first, why, err := s.rootHandle(Upper + 1)
	if err != nil {
		return s.layerError(c, Upper+1, err)
	}
	upper, whyUpper, err := s.rootHandle(Upper)
	if err != nil {
		return s.layerError(c, Upper, err)
	}
	upper.Upper = true
	switch {
	case s.format.OpaqueXattr == "":
		why = "the upperdir has no extended attributes"
	case s.overridesSome:
		why = "owner and type of objects are attributes"
	case whyUpper != "":
		why = whyUpper
	case why == "":
		if why, err = s.tryClosed(); err != nil {
			return &Error{roleWork, c.Work, err}
		}
	}
	for _, src := range s.sources {
		if !src.known && !s.bareHandles {
			why = "the file systems of the lowers cannot be told from each other by a UUID, or have no lasting file handles"
		}
	}
	if why != "" {
		s.warnings = append(s.warnings, "falling back to index=off: "+why)
		return nil
	}
	return s.useIndex(c, first, upper)
}

// tryClosed finds out whether the daemon may say how many links there are of a file that its owner closed to himself: else the
// names of such a file could not be removed. A plain user may not.
func (s *Stack) tryClosed() (why string, err error) {
	name := s.work.Name()
	f, err := s.staging.CreateFile(name, 0)
	if err != nil {
		return "", err
	}
	f.Close()
	err = s.format.SetLinks(s.staging.At(name), whiteout.Links{})
	if err == unix.EACCES {
		why, err = "attributes of files that their owner may not write to cannot be changed", nil
	}
	if gone := s.staging.Unlink(name); err == nil {
		err = gone
	}
	return why, err
}

// rootHandle is the handle of a layer's root; why it cannot be had is a reason to do without an index.
func (s *Stack) rootHandle(layer int) (h whiteout.Handle, why string, err error) {
	root := s.layers[layer].root
	fuse, _, err := kindOf(root)
	if err != nil || fuse {
		return h, "a layer's file system has no lasting file handles", err
	}
	if h.Handle, err = root.Ref().Handle(); err != nil {
		if noHandle(err) {
			return h, "a layer's file system has no file handles", nil
		}
		return h, "", err
	}
	if !s.bareHandles {
		h.UUID, err = root.FSUUID()
	}
	return h, "", err
}

// useIndex checks everything before it changes anything.
func (s *Stack) useIndex(c Config, first, upper whiteout.Handle) error {
	root := s.layers[Upper].root.Ref()
	known := s.format.Belongs(root, first)
	if known == unix.ESTALE {
		return &Error{roleUpper, c.Upper, errOtherLower}
	} else if known != nil && known != unix.ENODATA {
		return &Error{roleUpper, c.Upper, known}
	}
	fail := func(err error) error {
		if err == unix.ESTALE {
			err = errOtherUpper
		}
		return &Error{roleWork, c.Work, err}
	}
	dir, err := s.workRoot.OpenDir(indexName)
	mine := error(unix.ENODATA)
	if err == nil {
		s.index = dir
		if mine = s.format.Belongs(dir.Ref(), upper); mine != nil && mine != unix.ENODATA {
			return fail(mine)
		}
	} else if err != unix.ENOENT {
		return fail(err)
	}
	if known != nil {
		if err := s.format.SetBelongs(root, first); err != nil {
			return &Error{roleUpper, c.Upper, err}
		}
	}
	if s.index == nil {
		if err := s.workRoot.Mkdir(indexName, 0o700); err != nil {
			return fail(err)
		}
		if s.index, err = s.workRoot.OpenDir(indexName); err != nil {
			return fail(err)
		}
	}
	if mine != nil {
		if err := s.format.SetBelongs(s.index.Ref(), upper); err != nil {
			return fail(err)
		}
	}
	if err := s.sweepIndex(); err != nil {
		return fail(err)
	}
	return nil
}

// sweepIndex removes what earlier mounts left, and entries of objects that are gone, from the upper or from the lower
// (ovl_indexdir_cleanup). An entry that is not understood is an error: who knows it may need it.
func (s *Stack) sweepIndex() error {
	var names []string
	if err := s.index.List(func(e sys.Dirent) error { names = append(names, e.Name); return nil }); err != nil {
		return err
	}
	for _, name := range names {
		useless := strings.HasPrefix(name, "#")
		if !useless {
			var err error
			if useless, err = s.uselessEntry(name); err != nil {
				return fmt.Errorf("entry %q of its index: %w", filepath.Join(indexName, name), err)
			}
		}
		if !useless {
			continue
		}
		tmp := s.work.Name()
		if err := s.index.RenameNew(name, s.staging, tmp); err != nil {
			return err
		}
		if err := s.work.Remove(tmp); err != nil {
			return err
		}
	}
	return nil
}

// uselessEntry judges one entry of the index (ovl_verify_index).
func (s *Stack) uselessEntry(name string) (bool, error) {
	h, ok := whiteout.ParseIndexName(name)
	if !ok {
		return false, unix.EINVAL
	}
	r := s.index.At(name)
	var st, origin sys.Stat
	if err := r.Stat(&st); err != nil {
		return false, err
	}
	if sys.IsWhiteoutDevice(&st) || st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return false, nil // of an upper that was mounted with nfs_export=on
	}
	own, ok, err := s.format.Origin(r)
	switch {
	case err != nil:
		return false, err
	case !ok:
		return false, unix.EINVAL
	case own != h:
		return true, nil
	case st.Nlink > 1:
		return false, nil
	}
	src := s.sourceOf(&h)
	if src == nil {
		return true, nil
	}
	switch err := src.root.StatHandle(h.Handle, &origin); {
	case err == unix.ESTALE:
		return true, nil
	case mayNotOpen(err):
		return false, nil // its lower may be there
	case err != nil:
		return false, err
	}
	links, err := s.linksOf(r, &st, int(origin.Nlink))
	return links == 0, err
}

// linksOf is how many links an object has in all, whose copy is r and whose lower's object has so many. Where the copy does
// not say, as many as it has itself (ovl_get_nlink).
func (s *Stack) linksOf(r sys.Ref, st *sys.Stat, lower int) (int, error) {
	l, ok, err := s.format.Links(r)
	if err != nil {
		return 0, err
	}
	links := int(st.Nlink) + l.Diff
	if l.OfLower {
		links = lower + l.Diff
	}
	if !ok || links < 0 || l.OfLower && lower == 0 {
		return int(st.Nlink), nil
	}
	return links, nil
}

// share tells of an object of a lower whether it has several links that a copy-up is to keep; nil if not. st is its own.
func (s *Stack) share(r sys.Ref, st *sys.Stat) (*Shared, error) {
	if s.index == nil || !manyLinks(st) {
		return nil, nil
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG && !s.format.Trusted() {
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
func (s *Stack) lookForCopy(d *Dir, o Opened, name string, layer int, f *Found) error {
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
	if err := s.countLinks(r, f); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || !s.FollowsMetacopies() {
		return err
	}
	m, err := s.names.ReadFileMarks(r)
	if err == nil && m.Metacopy {
		f.Data, err = s.findData(d, o, name, Upper, &m, &f.Stat)
	}
	return err
}

// countLinks makes the link count of a copy that of the object.
func (s *Stack) countLinks(r sys.Ref, f *Found) error {
	l, ok, err := s.format.Links(r)
	if err != nil {
		return err
	}
	links, err := s.linksOf(r, &f.Stat, f.Shared.links)
	if err != nil {
		return err
	}
	f.Shared.Diff = links - int(f.Stat.Nlink)
	f.Shared.Settled = ok && !l.OfLower && l.Diff == f.Shared.Diff
	f.Shared.Count(&f.Stat)
	return nil
}

// Count turns the link count of the copy, in st, into that of the object.
func (x *Shared) Count(st *sys.Stat) { addLinks(&st.Nlink, x.Diff) }

// addLinks is for a link count of whatever type it has on this machine.
func addLinks[T uint16 | uint32 | uint64](count *T, diff int) { *count = T(max(0, int(*count)+diff)) }

// Copy is where the copy of the object is, once there is one.
func (s *Stack) Copy(x *Shared) sys.Ref { return s.index.At(x.name) }

// isCopy reports whether the upper's object f, which says that it is a copy of h, is the one in the index.
func (s *Stack) isCopy(h *whiteout.Handle, f *Found) (*Shared, error) {
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
	x.Diff, x.Settled = x.links-1, true // as the copy says, see linksMarks
	return nil
}

// linksMarks says, in a staged copy for the index, how many links there are.
func (s *Stack) linksMarks(x *Shared) []copyup.Mark {
	if x == nil {
		return nil
	}
	return []copyup.Mark{{Name: s.format.LinksXattr(), Value: whiteout.Links{Diff: x.links - 1}.Encode()}}
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
		x.Settled = false
		if err := s.format.SetLinks(r, whiteout.Links{OfLower: true, Diff: int(st.Nlink) + x.Diff - x.links}); err != nil {
			return err
		}
	}
	if err := up.Link(r, name); err != nil {
		return err
	}
	x.Diff--
	_ = up.Ref().Utimes(before.Atim, before.Mtim) // nothing changes in the merged view; the link has decided
	s.Raised(d, name)
	x.Settled = false
	return s.Settle(x)
}

// Settle makes the copy say how many links there are so that it stays true whatever becomes of its names in the upper, before
// one is added or removed (ovl_nlink_start). Precondition: nobody else uses x.
func (s *Stack) Settle(x *Shared) error {
	if x.Settled {
		return nil
	}
	err := s.format.SetLinks(s.Copy(x), whiteout.Links{Diff: x.Diff})
	x.Settled = err == nil
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
