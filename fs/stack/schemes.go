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
	for i := range s.layers {
		l := &s.layers[i]
		if l.root == nil {
			continue
		}
		form, err := owner.Detect(l.root.Ref())
		if i == Upper && err == nil && c.Permissions != nil {
			if form != nil && form != c.Permissions {
				err = errOtherForm
			}
			form = c.Permissions
		}
		if err != nil {
			return s.layerError(c, i, err)
		}
		l.shown, l.kept = owner.NewScheme(ids, form), owner.NewScheme(kept, form)
		s.overridesSome = s.overridesSome || l.kept.Overrides()
	}
	if !s.Writable() {
		return nil
	}
	upper := &s.layers[Upper]
	s.copier.Upper = upper.kept
	if !upper.shown.Overrides() {
		return nil
	}
	s.acl = false
	if c.Permissions != nil {
		if err := s.markUpper(c.Permissions); err != nil {
			return &Error{roleUpper, c.Upper, fmt.Errorf("cannot keep owner and mode in attribute %s: %w", c.Permissions.Attr(), err)}
		}
	}
	return nil
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
	f, err := s.Sample()
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
	if top := &s.layers[Upper+1]; top.kept.Overrides() {
		model = top
	}
	var st sys.Stat
	if err := model.kept.On(model.root.Ref()).Stat(&st); err != nil {
		return err
	}
	_, err := upper.kept.On(upper.root.Ref()).Record(&st)
	return err
}

// Overrides reports whether objects of a layer have owner, mode and type in an attribute.
func (s *Stack) Overrides(layer int) bool { return s.layers[layer].shown.Overrides() }

// KeepsMode reports whether the mode of an object of the upper is that of its inode, so that an access ACL can go with it.
func (s *Stack) KeepsMode() bool { return !s.Overrides(Upper) }
