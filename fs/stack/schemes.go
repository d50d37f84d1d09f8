package stack

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/owner"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// setSchemes finds out how each layer says whose its objects are. It comes last at mount: it may mark the upper's root.
func (s *Stack) setSchemes(c Config) error {
	var ids, kept *owner.IDs
	if c.IDs != nil {
		all := *c.IDs
		if err := s.trySquash(&all); err != nil {
			return &Error{roleWork, c.Work, err}
		}
		squash := all
		squash.UIDs, squash.GIDs = nil, nil
		ids, kept = &all, &squash
	}
	var ignored []int
	var written *owner.Override // by the upper
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
			written = form
		}
		l.shown, l.onDisk = owner.NewScheme(ids, form), owner.NewScheme(kept, form)
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
		if err := s.markUpper(written); err != nil {
			return &Error{roleUpper, c.Upper, fmt.Errorf("cannot keep owner and mode in attribute %s: %w", written.Attr(), err)}
		}
	}
	return nil
}

// formOf is the attribute in which a layer keeps owner, mode and type; nil: none. ignores reports that its root
// has one which does not count.
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

// followsUsers reports whether redirects and metacopies of a layer count that are attributes of namespace user. Those of the
// upper are the daemon's own where it may not write others.
func (s *Stack) followsUsers(layer int) bool {
	return s.names.UserOnly || !s.layers[layer].ownedBelow || layer == Upper && !s.hostRoot
}

// warnIgnored reports the layers whose roots have an attribute of owner, mode and type that does not count.
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

func (s *Stack) layerError(c Config, layer int, err error) error {
	if layer == Upper {
		return &Error{roleUpper, c.Upper, err}
	}
	return &Error{roleLower, c.Lowers[layer-1], err}
}

// trySquash finds out whether the daemon can give objects to the squashed ids: root can, in a user namespace only to ids that
// are mapped.
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

// markUpper writes the attribute of the upper's root, by which the form is found at the next mount. Where it is missing it
// says what the topmost layer says that has one, so that the merged root stays what it was; else what its inode says.
func (s *Stack) markUpper(form *owner.Override) error {
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

// Overrides reports whether objects of a layer have owner, mode and type in an attribute.
func (s *Stack) Overrides(layer int) bool { return s.layers[layer].shown.Overrides() }

// KeepsMode reports whether the mode of an object of the upper is that of its inode, so that an access ACL can go with it.
func (s *Stack) KeepsMode() bool { return !s.Overrides(Upper) }
