package stack

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/ondisk"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/whiteout"
)

// The index is opened, and useless entries are removed from it, when the layers are opened. Its
// purpose is described in links.go.

// indexName is the directory of copies in the work directory (OVL_INDEXDIR_NAME).
const indexName = "index"

// Reasons why an index cannot be used.
var (
	errOtherLower = errors.New("belongs to another first lowerdir: " +
		"with index=on the layers must be those it was made with (ESTALE)")
	errOtherUpper = errors.New("has an index that belongs to another upperdir: " +
		"mount with that one, or remove its directory index, or mount with index=off (ESTALE)")
)

// openIndex opens the directory of copies, checks that it belongs to these layers, and removes
// useless entries (ovl_get_indexdir). If the layers cannot have an index, openIndex adds a warning
// and there is none, as in the kernel.
func (s *Stack) openIndex(c Config) error {
	switch {
	case !c.Features.Index:
		return nil
	case !s.Writable() && c.ReadOnly && c.Upper != "" && c.Work != "":
		return s.openIndexForReading(c)
	case !s.Writable():
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
	case s.xattrs == ondisk.NoXattrs:
		why = "the upperdir has no extended attributes"
	case s.overridesTypes:
		why = "owner and type of objects are attributes"
	case whyUpper != "":
		why = whyUpper
	case why == "":
		if why, err = s.tryClosed(); err != nil {
			return &Error{roleWork, c.Work, err}
		}
	}
	for _, src := range s.sources {
		if !src.known && !s.omitUUIDs {
			why = "the file systems of the lowers cannot be distinguished by a UUID, or have no lasting file handles"
		}
	}
	if why != "" {
		s.warnings = append(s.warnings, "falling back to index=off: "+why)
		return nil
	}
	return s.useIndex(c, first, upper)
}

// openIndexForReading opens the index that another mount keeps, if there is one. It changes
// nothing.
func (s *Stack) openIndexForReading(c Config) error {
	index, _, err := sys.OpenLower(filepath.Join(c.Work, indexName))
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return &Error{roleWork, c.Work, err}
	}
	s.index = index
	for _, owner := range []struct {
		r          sys.Ref
		layer      int
		role, path string
		other      error
	}{
		{s.layers[Upper].root.Ref(), Upper + 1, roleUpper, c.Upper, errOtherLower},
		{index.Ref(), Upper, roleWork, c.Work, errOtherUpper},
	} {
		to, _, err := s.rootHandle(owner.layer)
		if err != nil {
			return s.layerError(c, owner.layer, err)
		}
		to.Upper = owner.layer == Upper
		switch err := s.belongs(s.xattrs, owner.r, to); err {
		case nil, unix.ENODATA:
		case unix.ESTALE:
			return &Error{owner.role, owner.path, owner.other}
		default:
			return &Error{owner.role, owner.path, err}
		}
	}
	return nil
}

// tryClosed finds out whether the daemon can set the link count xattr of a file of mode 0. A daemon
// without privileges cannot. Then the names of such a file could not be removed, and why is a
// reason to have no index.
func (s *Stack) tryClosed() (why string, err error) {
	name := s.work.Name()
	f, err := s.staging.CreateFile(name, 0)
	if err != nil {
		return "", err
	}
	f.Close()
	err = s.xattrs.SetLinkCount(s.staging.At(name), ondisk.LinkCount{})
	if err == unix.EACCES {
		why, err = "attributes of files that their owner may not write to cannot be changed", nil
	}
	if errUnlink := s.staging.Unlink(name); err == nil {
		err = errUnlink
	}
	return why, err
}

// rootHandle returns the handle of a layer's root. If it has none, why is a reason to have no
// index.
func (s *Stack) rootHandle(layer int) (h ondisk.Handle, why string, err error) {
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
	if !s.omitUUIDs {
		h.UUID, err = root.FSUUID()
	}
	return h, "", err
}

// useIndex opens the index, or makes one. It checks everything before it changes anything.
func (s *Stack) useIndex(c Config, first, upper ondisk.Handle) error {
	root := s.layers[Upper].root.Ref()
	known := s.belongs(s.xattrs, root, first)
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
		if mine = s.belongs(s.xattrs, dir.Ref(), upper); mine != nil && mine != unix.ENODATA {
			return fail(mine)
		}
	} else if err != unix.ENOENT {
		return fail(err)
	}
	if s.index != nil {
		if err := s.completeIndex(); err != nil {
			return fail(err)
		}
	}
	if known != nil {
		if err := s.xattrs.SetHandle(root, first); err != nil {
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
		if err := s.xattrs.SetHandle(s.index.Ref(), upper); err != nil {
			return fail(err)
		}
	}
	if err := s.claim(s.index); err != nil {
		return fail(err)
	}
	if err := s.sweepIndex(); err != nil {
		return fail(err)
	}
	s.whiteouts.ShareIn(s.index)
	return nil
}

// belongs is ondisk.Namespace.VerifyHandle for handles that may lack the UUID. It returns ENODATA
// for such a handle, so that the caller writes it anew.
func (s *Stack) belongs(ns ondisk.Namespace, r sys.Ref, to ondisk.Handle) error {
	err := ns.VerifyHandle(r, to)
	if err != unix.ESTALE || s.omitUUIDs {
		return err
	}
	to.UUID = sys.UUID{}
	switch bare := ns.VerifyHandle(r, to); bare {
	case nil:
		return unix.ENODATA
	case unix.ESTALE:
		return err
	default:
		return bare
	}
}

// sweepIndex removes the temporary objects of earlier mounts, and entries whose object no longer
// exists in the upper or in the lower (ovl_indexdir_cleanup). An unknown entry is an error: another
// version may need it.
func (s *Stack) sweepIndex() error {
	names, err := s.entries()
	if err != nil {
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

// entries are the names in the index.
func (s *Stack) entries() (names []string, err error) {
	err = s.index.List(func(e sys.Dirent) error { names = append(names, e.Name); return nil })
	return names, err
}

// completeIndex renames entries whose handles lack the UUID: lookups use the name with the UUID. It
// runs before the root of the upper gets its handle. Until then the kernel's overlayfs refuses such
// an upper. Afterwards the kernel removes entries that it does not find.
func (s *Stack) completeIndex() error {
	names, err := s.entries()
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := s.completeEntry(name); err != nil {
			return fmt.Errorf("entry %q of its index: %w", filepath.Join(indexName, name), err)
		}
	}
	return nil
}

// completeEntry completes the origin of an entry, then its name. If the daemon stops between the
// two, the next mount goes on. An entry with the UUID in its name alone would be useless.
func (s *Stack) completeEntry(name string) error {
	h, ok := ondisk.ParseIndexName(name)
	if !ok {
		return nil
	}
	src := s.sourceOf(&h)
	whole := h
	if src == nil || !s.complete(&whole, src) {
		return nil
	}
	r := s.index.At(name)
	var st sys.Stat
	if err := r.Stat(&st); err != nil {
		return err
	}
	if whiteout.IsDevice(&st) || st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return nil // see uselessEntry
	}
	switch own, ok, err := s.xattrs.Origin(r); {
	case err != nil || !ok:
		return err
	case own == h:
		if err := s.xattrs.SetOrigin(r, whole); err != nil {
			return err
		}
	case own != whole:
		return nil
	}
	err := s.index.RenameNew(name, s.index, whole.IndexName())
	if err == unix.EEXIST { // a later copy; sweepIndex removes this one
		return nil
	}
	return err
}

// uselessEntry reports whether one entry of the index can be removed (ovl_verify_index).
func (s *Stack) uselessEntry(name string) (bool, error) {
	h, ok := ondisk.ParseIndexName(name)
	if !ok {
		return false, unix.EINVAL
	}
	r := s.index.At(name)
	var st, origin sys.Stat
	if err := r.Stat(&st); err != nil {
		return false, err
	}
	if whiteout.IsDevice(&st) || st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return false, nil // of an upper that was mounted with nfs_export=on
	}
	own, ok, err := s.xattrs.Origin(r)
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
	links, _, err := LinksOf(s.xattrs, r, int(st.Nlink), int(origin.Nlink))
	return links == 0, err
}
