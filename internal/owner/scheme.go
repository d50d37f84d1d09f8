package owner

import (
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// Override is a form of override_stat: the attribute that says whose an object is, and what. Nil is none.
type Override struct {
	attr string
	// symlinks: symbolic links can have it. In namespace user. they cannot, nor can anything but files and directories.
	symlinks bool
	// security begins the names under which attributes of namespace security. are kept, which the daemon may not set
	// either; empty: they are kept as they are.
	security string
}

const securityPrefix = "security."

// The forms, in the order in which they are looked for.
var (
	containers = &Override{attr: "user.containers.override_stat", security: "user.containers.override_"}
	privileged = &Override{attr: "security.fuseoverlayfs.override_stat", symlinks: true}
	// older is what fuse-overlayfs up to 1.13 wrote with xattr_permissions=2. It is read, and kept where an upper has it.
	older = &Override{attr: "user.fuseoverlayfs.override_stat"}

	forms = []*Override{containers, privileged, older}
)

// Permissions is the form that option xattr_permissions asks for: 1, 2, or 0 for none.
func Permissions(option int) *Override {
	switch option {
	case 1:
		return privileged
	case 2:
		return containers
	}
	return nil
}

// Attr is the name of the attribute.
func (f *Override) Attr() string { return f.attr }

// ByOwner reports whether the attribute is in namespace user.: the owner of a file may set it, and so may every process
// that may write to the file. Namespace security. is kept for CAP_SYS_ADMIN (cap_inode_setxattr).
func (f *Override) ByOwner() bool { return strings.HasPrefix(f.attr, "user.") }

// Detect finds the form that a layer is written in by its root, nil where none is. Forms for which skip returns true are
// not looked for; a nil skip skips none.
func Detect(root sys.Ref, skip func(*Override) bool) (*Override, error) {
	// Most roots have no attribute at all, and there may be hundreds of layers.
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

// Scheme is how the objects of one layer say whose they are, and what. It is immutable; a nil one takes the file system's
// word.
type Scheme struct {
	ids  *IDs      // nil: as they are
	form *Override // nil: owner, mode and type are those of the inode
}

// NewScheme returns the scheme of a layer; ids may be nil as well as form.
func NewScheme(ids *IDs, form *Override) *Scheme {
	if ids != nil && ids.None() {
		ids = nil
	}
	if ids == nil && form == nil {
		return nil
	}
	return &Scheme{ids, form}
}

// On is an object of the layer, seen through the scheme.
func (s *Scheme) On(r sys.Ref) Ref { return Ref{r, s} }

// Overrides reports whether the type of an object may be another than that of its inode.
func (s *Scheme) Overrides() bool { return s != nil && s.form != nil }

// Inode is the mode, with its type, to make an object with that is to have mode in the end: where an attribute says the rest,
// as little as keeps the daemon's own way to it, and a regular file for what only root can make.
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

// Store returns the ids that the layer keeps for those that the mount shows; [sys.Unchanged] for one that stays the
// daemon's own.
func (s *Scheme) Store(uid, gid uint32) (diskUID, diskGID uint32) {
	if s == nil || s.ids == nil {
		return uid, gid
	}
	return s.ids.store(users, uid), s.ids.store(groups, gid)
}

// show turns what the file system says of an object into what is shown.
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

// on reports whether an inode of that mode can have the attribute.
func (f *Override) on(mode uint32) bool {
	kind := mode & unix.S_IFMT
	return f.symlinks || kind == unix.S_IFREG || kind == unix.S_IFDIR
}

// stored is the name under which the layer keeps an attribute that is shown as name; ok is false for one that cannot be had.
func (f *Override) stored(name string) (onDisk string, ok bool) {
	switch {
	case f.private(name):
		return "", false
	case f.security != "" && strings.HasPrefix(name, securityPrefix):
		return f.security + name, true
	}
	return name, true
}

// shown undoes stored.
func (f *Override) shown(onDisk string) (name string, ok bool) {
	if f.security != "" {
		if strings.HasPrefix(onDisk, securityPrefix) {
			return "", false // of the file that stands for the object
		}
		if name, found := strings.CutPrefix(onDisk, f.security); found {
			return name, strings.HasPrefix(name, securityPrefix)
		}
	}
	return onDisk, !f.private(onDisk)
}

func (f *Override) private(name string) bool {
	return name == f.attr || f.security != "" && strings.HasPrefix(name, f.security)
}
