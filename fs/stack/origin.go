package stack

import (
	"crypto/rand"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/copyup"
	"github.com/fuse-overlay/fuse-overlay/internal/ondisk"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// A copy in the upper has the file handle of the lower's object in its origin xattr, so that it
// keeps its inode number over a remount (ovl_set_origin_fh and ovl_check_origin_fh of
// fs/overlayfs). The handle is valid for one file system, which the UUID beside it identifies.

// source is a file system that lowers lie on.
type source struct {
	dev  uint64 // of one of them
	uuid sys.UUID
	root *sys.Dir // of that layer

	// silent: its handles must not be written: those of a FUSE server are invalid after its end.
	silent bool
	// parts: its subvolumes share one UUID, and each has a device number (btrfs).
	parts bool
	// known: its UUID distinguishes it from all others.
	known bool
	// upper: the upper lies on it, too.
	upper bool
}

// findSources finds the file systems of the layers. Precondition: their devices are known.
func (s *Stack) findSources(c Config) error {
	seen := map[uint64]bool{}
	for i := 1; i < len(s.layers); i++ {
		l := &s.layers[i]
		if seen[l.dev] {
			continue
		}
		seen[l.dev] = true
		src := source{dev: l.dev, root: l.root}
		var err error
		if src.uuid, err = l.root.FSUUID(); err != nil {
			return s.layerError(c, i, err)
		}
		if src.silent, src.parts, err = kindOf(l.root); err != nil {
			return s.layerError(c, i, err)
		}
		s.sources = append(s.sources, src)
	}
	upper := s.layers[Upper]
	for i := range s.sources {
		src := &s.sources[i]
		src.upper = upper.root != nil && src.dev == upper.dev
		twins := slices.ContainsFunc(s.sources, func(o source) bool {
			return o.dev != src.dev && o.uuid == src.uuid && !(o.parts && src.parts)
		})
		src.known = !src.silent && !twins && (src.upper || src.uuid != sys.UUID{} || c.changesNoLowers())
	}
	// Handles without a UUID need layers on one file system (uuid=off). Otherwise uuid=off is
	// uuid=null.
	s.omitUUIDs = c.Features.UUID == UUIDOff && len(s.sources) == 1 && upper.root != nil && s.sources[0].dev == upper.dev
	return nil
}

// changesNoLowers reports whether the options forbid changes of lowers between mounts. Then the
// only file system without a UUID, such as a squashfs, counts as the one of earlier mounts
// (ovl_lower_uuid_ok, ovl_allow_offline_changes).
func (c *Config) changesNoLowers() bool {
	return c.Features.Index || c.Features.MetaCopy || c.Redirects == RedirectsOn
}

// kindOf reports whether a layer lies on FUSE or btrfs.
func kindOf(root *sys.Dir) (fuse, btrfs bool, err error) {
	var st unix.Statfs_t
	err = root.Ref().Statfs(&st)
	return st.Type == unix.FUSE_SUPER_MAGIC, uint32(st.Type) == unix.BTRFS_SUPER_MAGIC, err
}

// narrow are the file systems with inode numbers of 32 bits, by the form of their handles
// (generic_encode_ino32_fh). Then the kernel's overlayfs has more bits for the number of the file
// system.
var narrow = []uint32{unix.EXT4_SUPER_MAGIC, unix.F2FS_SUPER_MAGIC, unix.SQUASHFS_MAGIC}

// NumberBits is the width of the inode numbers of all layers: 32, or 64 if that is not known.
func (s *Stack) NumberBits() uint {
	roots := slices.Clone(s.dataOnly)
	for _, l := range s.layers {
		if l.root != nil {
			roots = append(roots, l.root)
		}
	}
	for _, root := range roots {
		var st unix.Statfs_t
		if err := root.Ref().Statfs(&st); err != nil || !slices.Contains(narrow, uint32(st.Type)) {
			return 64
		}
		if h, err := root.Ref().Handle(); err != nil || h.Type != fileIDIno32Gen {
			return 64
		}
	}
	return 32
}

// fileIDIno32Gen is FILEID_INO32_GEN of the kernel (enum fid_type).
const fileIDIno32Gen = 1

// handleOf returns the handle of a lower's object for its copy. ok is false if there is none.
func (s *Stack) handleOf(r sys.Ref, dev uint64) (h ondisk.Handle, ok bool, err error) {
	i := slices.IndexFunc(s.sources, func(src source) bool { return src.dev == dev })
	if i < 0 || s.sources[i].silent {
		return h, false, nil
	}
	if h.Handle, err = r.Handle(); err != nil {
		if noHandle(err) {
			err = nil
		}
		return h, false, err
	}
	if !s.omitUUIDs {
		h.UUID = s.sources[i].uuid
	}
	return h, true, nil
}

// noHandle reports whether err means that an object has no handle, or that the daemon cannot read
// it.
func noHandle(err error) bool {
	switch err {
	case unix.EOPNOTSUPP, unix.EOVERFLOW, unix.ENOSYS, unix.EPERM, unix.EACCES, unix.EINVAL:
		return true
	}
	return false
}

// mayNotOpen reports whether err means that the daemon must not open by handles.
func mayNotOpen(err error) bool {
	switch err {
	case unix.EPERM, unix.EACCES, unix.EBADF, unix.ENOSYS:
		return true
	}
	return false
}

// origin returns the origin xattr for the copy of a lower's object. x.Name is empty if the copy
// gets none: a copy of one of several links is another object, unless index=on.
func (s *Stack) origin(src sys.Ref, st *sys.Stat) (x copyup.Xattr, err error) {
	if s.xattrs == ondisk.NoXattrs || manyLinks(st) && s.index == nil {
		return copyup.Xattr{}, nil
	}
	h, ok, err := s.handleOf(src, st.Dev)
	if err != nil {
		return copyup.Xattr{}, err
	}
	x.Name = s.xattrs.Name(ondisk.Origin)
	if ok {
		x.Value = h.Encode() // an empty value: it is a copy, and its source has no handle
	}
	return x, nil
}

func manyLinks(st *sys.Stat) bool { return st.Nlink > 1 && st.Mode&unix.S_IFMT != unix.S_IFDIR }

// MarkImpure sets the impure xattr of d: objects in it may have an origin. Call it before the first
// one gets there. up is d's directory of the upper.
func (s *Stack) MarkImpure(d *Dir, up *sys.Dir) error {
	if d.impure {
		return nil
	}
	if err := s.xattrs.SetImpure(up); err != nil {
		return err
	}
	d.impure = true
	return nil
}

// MarkImpureFor is MarkImpure if the upper's object r, which is about to get a name in d, is a
// copy. So it is too if its origin leads nowhere, or if it has none: the copy may lack its data,
// which a mount without metacopy=on looks for in impure directories only.
func (s *Stack) MarkImpureFor(d *Dir, up *sys.Dir, r sys.Ref) error {
	if d.impure {
		return nil
	}
	if isCopy, err := s.xattrs.IsCopy(r); err != nil || !isCopy {
		return err
	}
	return s.MarkImpure(d, up)
}

// Impure reports whether objects of the upper in d may have an origin. They may if d is not loaded:
// with layers that change, another lookup may renew d at any time.
func (d *Dir) Impure() bool {
	return d.impure || d.parts == nil || d.parts[0].layer == Upper && d.parts[0].impure
}

// OriginHandle returns the handle of the object that the upper's object r is a copy of, by its
// attribute. ok is false if r has no such attribute, or a handle that no lower can have. It makes
// no call on a lower.
func (s *Stack) OriginHandle(r sys.Ref) (h ondisk.Handle, ok bool, err error) {
	h, ok, err = s.xattrs.Origin(r)
	return h, ok && err == nil && s.sourceOf(&h) != nil, err
}

// Origin fills st with the attributes of the lower's object that h is the handle of. The upper's
// object f, which q has found and which is no directory, has h as its origin. found is false if
// there is no such object any more, or if it has got further links: a copy of one link is another
// object. A copy in the index stays one object with all links: then Origin sets f.Shared. If h
// lacks the UUID, Origin adds it and returns incomplete: [Stack.SetOrigin] has to write it.
func (s *Stack) Origin(
	q *Query, o LayerDirs, h *ondisk.Handle, f *Found, st *sys.Stat,
) (found, incomplete bool, err error) {
	src := s.sourceOf(h)
	incomplete = s.complete(h, src)
	if found, err = s.findOrigin(q, o, h, src, st); err != nil {
		return false, false, err
	}
	sameKind := st.Mode&unix.S_IFMT == f.Stat.Mode&unix.S_IFMT || s.overridesTypes
	found = found && sameKind && st.Mode&unix.S_IFMT != unix.S_IFDIR
	incomplete = found && incomplete && s.Writable()
	x, err := s.isCopy(h, f)
	if err != nil || x == nil {
		return found && !manyLinks(st), incomplete, err
	}
	if found {
		x.Dev, x.Ino, x.links = st.Dev, st.Ino, int(st.Nlink)
	}
	f.Shared = x
	return found, incomplete, s.countLinks(s.Copy(x), f)
}

// SetOrigin writes a completed handle to an object of the upper. It ignores errors: the next mount
// tries again.
func (s *Stack) SetOrigin(r sys.Ref, h ondisk.Handle) { _ = s.xattrs.SetOrigin(r, h) }

// findOrigin fills st with the attributes of the object of a handle.
func (s *Stack) findOrigin(q *Query, o LayerDirs, h *ondisk.Handle, src *source, st *sys.Stat) (found bool, err error) {
	switch err := src.root.StatHandle(h.Handle, st); {
	case err == nil:
		return true, nil
	case mayNotOpen(err):
		return s.originByName(q, o, h, st)
	case isStale(err):
		return false, nil
	default:
		return false, err
	}
}

// isStale reports whether err means that no object has a handle.
func isStale(err error) bool {
	switch err {
	case unix.ESTALE, unix.EINVAL, unix.EOPNOTSUPP, unix.ENOTDIR, unix.ENOENT:
		return true
	}
	return false
}

// sourceOf returns the file system of a handle; nil: none of the lowers', or an unknown one.
func (s *Stack) sourceOf(h *ondisk.Handle) *source {
	if s.omitUUIDs {
		if h.UUID != (sys.UUID{}) {
			return nil
		}
		return &s.sources[0]
	}
	for i := range s.sources {
		if src := &s.sources[i]; src.known && src.uuid == h.UUID {
			return src
		}
	}
	if h.UUID == (sys.UUID{}) {
		return s.unnamedSource()
	}
	return nil
}

// unnamedSource returns the file system of a handle without a UUID, on a mount that writes handles
// with one. It is that of the upper if a lower lies there, else the only one. It is nil if neither
// applies, or if its UUID is not known. Such handles are written with uuid=off. Versions that could
// not read UUIDs before Linux 6.9 wrote them, too.
func (s *Stack) unnamedSource() *source {
	i := slices.IndexFunc(s.sources, func(src source) bool { return src.upper })
	if i < 0 && len(s.sources) == 1 {
		i = 0
	}
	if i < 0 || !s.sources[i].known {
		return nil
	}
	return &s.sources[i]
}

// complete adds the UUID to a handle of src, and reports whether the handle lacked it.
func (s *Stack) complete(h *ondisk.Handle, src *source) bool {
	if s.omitUUIDs || h.UUID == src.uuid {
		return false
	}
	h.UUID = src.uuid
	return true
}

// originByName looks for the object of a handle under the name of the copy. It is for a daemon that
// must not open by handles.
func (s *Stack) originByName(q *Query, o LayerDirs, h *ondisk.Handle, st *sys.Stat) (found bool, err error) {
	for _, p := range q.parts {
		if p.layer == Upper {
			continue
		}
		dir, err := o.Layer(int(p.layer))
		if err == nil {
			err = dir.At(q.Name).Stat(st)
		}
		if err == unix.ENOENT {
			continue
		}
		if err != nil {
			return false, err
		}
		now, ok, err := s.handleOf(dir.At(q.Name), st.Dev)
		if err != nil || ok && now.Handle == h.Handle && now.UUID == h.UUID {
			return ok, err
		}
	}
	return false, nil
}

// setUUID gives the upper a UUID of its own if option uuid requests one. Only statfs of the
// kernel's overlayfs shows it, so setUUID ignores errors.
func (s *Stack) setUUID(uuid UUID) {
	if !s.Writable() || uuid == UUIDOff || uuid == UUIDNull {
		return
	}
	var id [16]byte
	_, _ = rand.Read(id[:])   // never fails
	id[6] = id[6]&0x0f | 4<<4 // version 4: random
	id[8] = id[8]&0x3f | 2<<6 // variant of RFC 9562
	if uuid == UUIDOn {
		_ = s.xattrs.SetUUID(s.layers[Upper].root, id)
	} else {
		_ = s.xattrs.SetUUIDOfNew(s.layers[Upper].root, id)
	}
}
