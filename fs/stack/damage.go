package stack

import (
	"cmp"
	"path"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/whiteout"
)

// Lookups and loads return errnos. If an errno means that a layer is damaged, the caller looks at
// the layers once more, to log which object is the reason. That costs nothing if nothing is
// damaged.

// Damage is what is wrong with an object of a layer. The zero value: nothing.
type Damage struct {
	Layer  int // [DataOnly]: one of the data-only layers
	Path   string
	Reason string
}

// Found reports whether something is wrong.
func (d Damage) Found() bool { return d.Reason != "" }

// Reasons of damage, for the log.
const (
	damagedOverride = "its attribute override_stat makes no sense"
	damagedMetacopy = "its attribute metacopy makes no sense"
	damagedRedirect = "its redirect is not a path"
	refusedRedirect = "its redirect is not followed: " +
		"redirect_dir=nofollow, or an attribute that any user may have written"

	refusedMetacopy = "it is a metacopy, and is not followed: " +
		"metacopy=on was not given, or an attribute that any user may have written"

	noData    = "it is a metacopy, and no layer has its data"
	otherData = "the digest of its data is another than the one in its metacopy"
	otherCopy = "its copy in the index is of another type"
)

// Damaged looks once more at a name in d whose lookup has failed; with an empty name, at d itself.
// d may be a copy of a directory that is not held: Damaged does not use its name table.
func (s *Stack) Damaged(d *Dir, o LayerDirs, name string) Damage {
	for _, layer := range d.layers {
		at, loaded := int(layer), d.parts != nil
		if loaded && !d.takesPart(layer) {
			continue
		}
		h, err := o.Layer(at)
		if err != nil {
			if damage := damagedBy(err, at, o.Path(at)); damage.Found() {
				return damage
			}
			continue
		}
		opaque := false
		if !loaded || name == "" {
			var m whiteout.DirXattrs
			var damage Damage
			if m, damage = s.damagedXattrs(at, h, o.Path(at)); damage.Found() {
				return damage
			}
			opaque = m.Opaque
		}
		if name != "" {
			damage, last := s.damagedIn(d, o, at, h, name)
			if damage.Found() || last {
				return damage
			}
		}
		if opaque {
			break
		}
	}
	return Damage{}
}

// takesPart reports whether a layer has a part of d. Precondition: loaded.
func (d *Dir) takesPart(layer uint16) bool {
	return slices.ContainsFunc(d.parts, func(p part) bool { return p.layer == layer })
}

// damagedBy returns the damage that an errno means by itself: the file system of the layer is
// damaged.
func damagedBy(err error, layer int, where string) Damage {
	if errno, ok := err.(unix.Errno); ok && IsDamage(errno) {
		return Damage{layer, where, errno.Error()}
	}
	return Damage{}
}

// IsDamage reports whether errno means that a file system is damaged.
func IsDamage(errno unix.Errno) bool {
	switch errno {
	case unix.EIO, unix.EUCLEAN, unix.EBADMSG, unix.EREMOTEIO:
		return true
	}
	return false
}

// damagedIn looks at the object that one layer has under a name. last: the layers below do not
// matter.
func (s *Stack) damagedIn(d *Dir, o LayerDirs, layer int, h *sys.Dir, name string) (damage Damage, last bool) {
	where := path.Join(o.Path(layer), name)
	r := h.At(name)
	var st sys.Stat
	if err := r.Stat(&st); err != nil {
		return damagedBy(err, layer, where), err != unix.ENOENT
	}
	if err := s.Shown(layer, r).Stat(&st); err != nil {
		damage = damagedBy(err, layer, where)
		if err == unix.EIO && s.Overrides(layer) {
			damage.Reason = damagedOverride
		}
		return damage, true
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return s.damagedFile(d, o, layer, r, name, &st), true
	case unix.S_IFDIR:
		return s.damagedDir(layer, h, name, where)
	}
	return Damage{}, true
}

func (s *Stack) damagedFile(d *Dir, o LayerDirs, layer int, r sys.Ref, name string, st *sys.Stat) Damage {
	f := Found{Stat: *st, Layer: layer}
	where := path.Join(o.Path(layer), name)
	if layer != Upper && s.index != nil && manyLinks(st) {
		switch err := s.lookForCopy(d.parts, o, name, layer, &f); {
		case err == unix.EIO && f.Layer == layer:
			return Damage{layer, where, otherCopy}
		case f.Layer == Upper:
			layer, r, st = Upper, s.Copy(f.Shared), &f.Stat
		}
	}
	m, err := s.names.ReadFile(r)
	if err == nil && m.Metacopy {
		_, err = s.findData(d.parts, o, name, layer, &m, st)
	}
	damage := damagedBy(err, layer, where)
	switch {
	case err == unix.EINVAL && !m.Metacopy:
		damage = Damage{layer, where, damagedMetacopy}
	case !m.Metacopy:
	case err == unix.EPERM:
		damage = Damage{layer, where, refusedMetacopy}
	case err == unix.EINVAL:
		damage = Damage{layer, where, damagedRedirect}
	case err == unix.EIO:
		damage.Reason = noData
	}
	return damage
}

// damagedDir looks at a directory of a layer as a part of a merged one.
func (s *Stack) damagedDir(layer int, h *sys.Dir, name, where string) (damage Damage, last bool) {
	part, err := h.OpenDir(name)
	if err != nil {
		return damagedBy(err, layer, where), true
	}
	defer part.Close()
	m, damage := s.damagedXattrs(layer, part, where)
	return damage, m.Opaque
}

// damagedXattrs reads the xattrs and the names of a layer's directory.
func (s *Stack) damagedXattrs(layer int, part *sys.Dir, where string) (m whiteout.DirXattrs, damage Damage) {
	m, _, err := s.listPart(part, uint16(layer), func(sys.Dirent) {})
	if err != nil {
		return m, damagedBy(err, layer, where)
	}
	if m.Redirect == "" || !s.MayBeRedirected(layer) {
		return m, Damage{}
	}
	switch s.checkRedirect(layer, &m) {
	case unix.EPERM:
		damage = Damage{layer, where, refusedRedirect}
	case unix.EINVAL:
		damage = Damage{layer, where, damagedRedirect}
	}
	return m, damage
}

// DamagedData looks once more for the data of a metacopy that could not be opened or read.
func (s *Stack) DamagedData(d *Data) Damage {
	where := Damage{Layer: d.Layer, Path: cmp.Or(d.Path, d.Redirect)}
	f, err := s.openData(d)
	switch {
	case err == unix.ENOENT || err == unix.ENOTDIR:
		where.Reason = noData
	case err != nil:
		where.Reason = err.Error()
	case s.verify(f, d.digest) != nil:
		where.Reason = otherData
	}
	if f != nil {
		f.Close()
	}
	if !where.Found() {
		return Damage{}
	}
	return where
}
