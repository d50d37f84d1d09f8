package stack

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/owner"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// setSchemes finds out how each layer keeps owner, mode and type of its objects. It runs last at
// mount: it may set an xattr of the upper's root.
func (s *Stack) setSchemes(c Config) error {
	var ids, onDisk *owner.IDs
	if c.IDs != nil {
		all := *c.IDs
		if err := s.trySquash(&all); err != nil {
			return &Error{roleWork, c.Work, err}
		}
		squash := all
		squash.UIDs, squash.GIDs = nil, nil
		ids, onDisk = &all, &squash
	}
	var ignored []int
	var upperForm *owner.Override
	for i := range s.layers {
		l := &s.layers[i]
		if l.root == nil {
			continue
		}
		form, ignores, err := s.formOf(c, i)
		if err != nil {
			return s.layerError(c, i, err)
		}
		if ignores {
			ignored = append(ignored, i)
		}
		if i == Upper {
			upperForm = form
		}
		l.shown, l.onDisk = owner.NewScheme(ids, form), owner.NewScheme(onDisk, form)
		s.overridesTypes = s.overridesTypes || l.onDisk.Overrides()
	}
	s.warnIgnored(c, ignored)
	if !s.Writable() {
		return nil
	}
	upper := &s.layers[Upper]
	s.copier.Upper = upper.onDisk
	if !upper.shown.Overrides() {
		return nil
	}
	s.acl = false
	if c.Permissions != nil {
		if err := s.recordRoot(upperForm); err != nil {
			err = fmt.Errorf("cannot keep owner and mode in attribute %s: %w", upperForm.Attr(), err)
			return &Error{roleUpper, c.Upper, err}
		}
	}
	return nil
}

// formOf returns the xattr in which a layer keeps owner, mode and type; nil: none. ignores: its
// root has such an xattr, and it does not count.
func (s *Stack) formOf(c Config, layer int) (form *owner.Override, ignores bool, err error) {
	root := s.layers[layer].root.Ref()
	form, err = owner.Detect(root, nil)
	if err != nil {
		return nil, false, err
	}
	wanted := c.Permissions
	if wanted != nil && layer == Upper {
		switch {
		case form == nil:
			return wanted, false, nil
		case form.ByOwner() != wanted.ByOwner():
			return nil, false, errOtherForm
		}
	}
	if form == nil || !form.ByOwner() || wanted != nil && wanted.ByOwner() || !s.layers[layer].ownedBelow {
		return form, false, nil
	}
	form, err = owner.Detect(root, (*owner.Override).ByOwner)
	return form, form == nil && err == nil, err
}

// isOwnedBelow reports whether a user with fewer rights than the daemon may own a layer whose root
// belongs to uid. An attribute that the owner may set must not give rights that only the daemon's
// user could give. For root of the first user namespace this may be any layer, because its files
// may belong to other users than its root does. For root of another namespace it is a layer whose
// root belongs to another user of that namespace. A user outside of the namespace has no fewer
// rights. The mounts of a plain user give no rights: fusermount3 makes them with nosuid and nodev.
func (s *Stack) isOwnedBelow(uid uint32) bool {
	return s.uid == 0 && (s.hostRoot || uid != s.uid && uid != s.overflow)
}

// followsUsers reports whether redirects and metacopies of a layer count if their xattr has the
// prefix user. A daemon that cannot write other xattrs writes these to the upper.
func (s *Stack) followsUsers(layer int) bool {
	return s.names.UserOnly || !s.layers[layer].ownedBelow || layer == Upper && !s.hostRoot
}

// warnIgnored warns of layers whose roots have an xattr of owner, mode and type that does not
// count.
func (s *Stack) warnIgnored(c Config, layers []int) {
	if len(layers) == 0 {
		return
	}
	first := &Error{roleUpper, c.Upper, errOwnersForm}
	if at := layers[0]; at != Upper {
		first = &Error{roleLower, c.Lowers[at-1], errOwnersForm}
	}
	s.warnings = append(s.warnings, fmt.Sprintf("%v (%d layers in all)", first, len(layers)))
}

// layerError is the [Error] of a layer.
func (s *Stack) layerError(c Config, layer int, err error) error {
	if layer == Upper {
		return &Error{roleUpper, c.Upper, err}
	}
	return &Error{roleLower, c.Lowers[layer-1], err}
}

// trySquash finds out whether the daemon can change the owner of objects to the squashed ids. Root
// can. In a user namespace the ids have to be mapped.
func (s *Stack) trySquash(ids *owner.IDs) error {
	if !ids.Squashes() || !s.Writable() {
		return nil
	}
	f, err := s.ProbeFile()
	if err != nil {
		return err
	}
	defer f.Close()
	uid, gid := owner.NewScheme(ids, nil).Store(s.uid, s.gid)
	switch err := f.Ref().Chown(uid, gid); err {
	case nil:
	case unix.EPERM, unix.EINVAL:
		ids.KeepOwn = true
	default:
		return err
	}
	return nil
}

// recordRoot writes owner, mode and type of the upper's root to its xattr, unless it has that. The
// next mount recognises the form by it. The values are those of the topmost lower if that has such
// an xattr, so that the merged root stays what it was. Otherwise they are those of the inode.
func (s *Stack) recordRoot(form *owner.Override) error {
	upper := &s.layers[Upper]
	if _, err := upper.root.Ref().GetXattr(form.Attr()); err != unix.ENODATA {
		return err
	}
	model := upper
	if top := &s.layers[Upper+1]; top.onDisk.Overrides() {
		model = top
	}
	var st sys.Stat
	if err := model.onDisk.On(model.root.Ref()).Stat(&st); err != nil {
		return err
	}
	_, err := upper.onDisk.On(upper.root.Ref()).Record(&st)
	return err
}

// Overrides reports whether objects of a layer have owner, mode and type in an xattr.
func (s *Stack) Overrides(layer int) bool { return s.layers[layer].shown.Overrides() }

// KeepsMode reports whether the mode of an object of the upper is that of its inode. POSIX ACLs
// need that.
func (s *Stack) KeepsMode() bool { return !s.Overrides(Upper) }
