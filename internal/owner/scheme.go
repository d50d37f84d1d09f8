package owner

import (
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/ondisk"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// Override is a form of override_stat: an attribute with owner, mode, type and device number of an
// object. Nil: none.
type Override struct {
	attr string
	// symlinks: symbolic links can have the attribute. In namespace user. only regular files and
	// directories can.
	symlinks bool
	// security is the prefix of the names under which attributes of namespace security. are stored,
	// since the daemon may not set those either; empty: they are stored under their own names.
	security string
}

// The forms, in the order in which [Detect] looks for them.
var (
	containers = &Override{attr: ondisk.OverrideContainers, security: ondisk.OverrideContainersPrefix}
	privileged = &Override{attr: ondisk.OverridePrivileged, symlinks: true}
	// older is the form that fuse-overlayfs up to 1.13 wrote with xattr_permissions=2. The daemon
	// reads it, and writes it to an upper that has it.
	older = &Override{attr: ondisk.OverrideOlder}

	forms = []*Override{containers, privileged, older}
)

// Permissions returns the form of a value of option xattr_permissions: 1, 2, or 0 for none.
func Permissions(option int) *Override {
	switch option {
	case 1:
		return privileged
	case 2:
		return containers
	}
	return nil
}

// Attr returns the name of the attribute.
func (f *Override) Attr() string { return f.attr }

// ByOwner reports whether the attribute is in namespace user.: the owner of a file may set it, and
// so may every process that may write to the file. Namespace security. takes CAP_SYS_ADMIN
// (cap_inode_setxattr).
func (f *Override) ByOwner() bool { return strings.HasPrefix(f.attr, ondisk.UserPrefix) }

// Detect returns the form of a layer, which is that of its root; nil if the root has none. It
// ignores forms for which skip returns true; a nil skip ignores none.
func Detect(root sys.Ref, skip func(*Override) bool) (*Override, error) {
	// Most roots have no attribute, and there may be hundreds of layers.
	if names, err := root.ListXattr(); err == nil && len(names) == 0 {
		return nil, nil
	}
	for _, f := range forms {
		if skip != nil && skip(f) {
			continue
		}
		switch _, err := root.GetXattr(f.attr); err {
		case nil:
			return f, nil
		case unix.ENODATA, unix.EOPNOTSUPP, unix.EPERM, unix.EACCES:
		default:
			return nil, err
		}
	}
	return nil, nil
}

// Scheme is the translation of owner, mode and type for the objects of one layer. It is immutable.
// A nil Scheme changes nothing.
type Scheme struct {
	ids  *IDs      // nil: ids are not translated
	form *Override // nil: owner, mode and type are those of the inode
}

// NewScheme returns the scheme of a layer. Both arguments may be nil.
func NewScheme(ids *IDs, form *Override) *Scheme {
	if ids != nil && ids.None() {
		ids = nil
	}
	if ids == nil && form == nil {
		return nil
	}
	return &Scheme{ids, form}
}

// On returns the object r of the layer with the scheme.
func (s *Scheme) On(r sys.Ref) Ref { return Ref{r, s} }

// Overrides reports whether owner, mode and type of an object may differ from those of its inode.
func (s *Scheme) Overrides() bool { return s != nil && s.form != nil }

// Inode returns the type and mode with which the daemon makes the inode of an object of this type
// and mode. If an attribute holds those, the inode has the permissions that the daemon needs. A
// regular file then stands for an object that only root can make.
func (s *Scheme) Inode(mode uint32) uint32 {
	if !s.Overrides() {
		return mode
	}
	switch kind := mode & unix.S_IFMT; kind {
	case unix.S_IFDIR:
		return kind | 0o700
	case unix.S_IFLNK:
		return mode
	}
	return unix.S_IFREG | 0o600
}

// Store returns the ids that the layer stores for those that the mount shows. [sys.Unchanged]: the
// object has the id of the daemon.
func (s *Scheme) Store(uid, gid uint32) (diskUID, diskGID uint32) {
	if s == nil || s.ids == nil {
		return uid, gid
	}
	return s.ids.store(users, uid), s.ids.store(groups, gid)
}

// show changes st from what the inode r has to what the mount shows.
func (s *Scheme) show(r sys.Ref, st *sys.Stat) error {
	if s.form != nil && s.form.on(st.Mode) {
		switch text, err := r.GetXattr(s.form.attr); err {
		case nil:
			if err := parse(text, st); err != nil {
				return err
			}
		case unix.ENODATA, unix.EOPNOTSUPP:
		default:
			return err
		}
	}
	if s.ids != nil {
		st.Uid, st.Gid = s.ids.show(users, st.Uid), s.ids.show(groups, st.Gid)
	}
	return nil
}

// on reports whether an inode of this mode can have the attribute.
func (f *Override) on(mode uint32) bool {
	kind := mode & unix.S_IFMT
	return f.symlinks || kind == unix.S_IFREG || kind == unix.S_IFDIR
}

// stored returns the name under which the layer stores an attribute that the mount shows as name.
// ok is false if the name is one of the scheme.
func (f *Override) stored(name string) (onDisk string, ok bool) {
	switch {
	case f.private(name):
		return "", false
	case f.security != "" && strings.HasPrefix(name, ondisk.SecurityPrefix):
		return f.security + name, true
	}
	return name, true
}

// shown is the inverse of stored.
func (f *Override) shown(onDisk string) (name string, ok bool) {
	if f.security != "" {
		if strings.HasPrefix(onDisk, ondisk.SecurityPrefix) {
			return "", false // it belongs to the inode, not to the object
		}
		if name, found := strings.CutPrefix(onDisk, f.security); found {
			return name, strings.HasPrefix(name, ondisk.SecurityPrefix)
		}
	}
	return onDisk, !f.private(onDisk)
}

func (f *Override) private(name string) bool {
	return name == f.attr || f.security != "" && strings.HasPrefix(name, f.security)
}

// Keeps reports whether an attribute of an inode, by its name on disk, belongs to the scheme.
func (s *Scheme) Keeps(onDisk string) bool { return s.Overrides() && s.form.private(onDisk) }
