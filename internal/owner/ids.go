package owner

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// Range maps Length ids: those of the layer from Disk on to those of the mount from Shown on.
type Range struct{ Disk, Shown, Length uint32 }

// Mapping translates the ids of users, or of groups. An empty one does not change them.
type Mapping []Range

// Squash is the one id that the mount shows in place of all, if On.
type Squash struct {
	On bool
	ID uint32
}

// IDs is the translation between the ids of a layer's objects and those that the mount shows.
type IDs struct {
	UIDs, GIDs Mapping
	// UID and GID have precedence over the mappings.
	UID, GID Squash
	// KeepOwn: the daemon may not give an object to a squashed id. New objects have the ids of the
	// daemon on disk.
	KeepOwn bool
	// OverflowUID and OverflowGID are the ids in place of those that are not in a mapping.
	OverflowUID, OverflowGID uint32
}

// None reports whether ids are not translated.
func (m *IDs) None() bool {
	return len(m.UIDs) == 0 && len(m.GIDs) == 0 && !m.Squashes()
}

// Squashes reports whether the mount shows one id in place of all.
func (m *IDs) Squashes() bool { return m.UID.On || m.GID.On }

// class is users or groups.
type class int

const (
	users class = iota
	groups
)

func (m *IDs) of(c class) (mapping Mapping, squash Squash, overflow uint32) {
	if c == users {
		return m.UIDs, m.UID, m.OverflowUID
	}
	return m.GIDs, m.GID, m.OverflowGID
}

// show returns the id that the mount shows for one of a layer.
func (m *IDs) show(c class, disk uint32) uint32 {
	mapping, squash, overflow := m.of(c)
	switch {
	case squash.On:
		return squash.ID
	case len(mapping) == 0:
		return disk
	}
	for _, r := range mapping {
		if disk-r.Disk < r.Length { // the difference wraps around for a smaller id
			return r.Shown + (disk - r.Disk)
		}
	}
	return overflow
}

// store returns the id that the upper stores for one that the mount shows. [sys.Unchanged]: the
// daemon does not change the stored id.
func (m *IDs) store(c class, shown uint32) uint32 {
	mapping, squash, overflow := m.of(c)
	switch {
	case shown == sys.Unchanged, squash.On && m.KeepOwn:
		return sys.Unchanged
	case squash.On:
		return squash.ID
	case len(mapping) == 0:
		return shown
	}
	for _, r := range mapping {
		if shown-r.Shown < r.Length {
			return r.Disk + (shown - r.Shown)
		}
	}
	return overflow
}

// ParseMapping parses "disk:shown:length[:disk:shown:length]...". A leading colon is ignored:
// podman writes one. It returns an error if an id has two translations in one direction.
func ParseMapping(text string) (Mapping, error) {
	fields := strings.Split(strings.TrimPrefix(text, ":"), ":")
	if len(fields)%3 != 0 {
		return nil, fmt.Errorf("%q is not made of triplets DISK:SHOWN:LENGTH", text)
	}
	var m Mapping
	for i := 0; i < len(fields); i += 3 {
		var n [3]uint32
		for j := range n {
			v, err := strconv.ParseUint(fields[i+j], 10, 32)
			if err != nil {
				return nil, fmt.Errorf("%q is not a number from 0 to 4294967295", fields[i+j])
			}
			n[j] = uint32(v)
		}
		r := Range{n[0], n[1], n[2]}
		if err := m.check(r); err != nil {
			return nil, fmt.Errorf("%d:%d:%d: %w", r.Disk, r.Shown, r.Length, err)
		}
		m = append(m, r)
	}
	return m, nil
}

// Errors of a range.
var (
	errEmptyRange = errors.New("the length is 0")
	errLargeRange = errors.New("goes beyond the largest id, 4294967294")
	errTwice      = errors.New("overlaps another range")
)

// check returns an error if r cannot be added to m.
func (m Mapping) check(r Range) error {
	const end = uint64(sys.Unchanged) // it is no id
	switch {
	case r.Length == 0:
		return errEmptyRange
	case uint64(r.Disk)+uint64(r.Length) > end, uint64(r.Shown)+uint64(r.Length) > end:
		return errLargeRange
	}
	for _, o := range m {
		if overlap(o.Disk, o.Length, r.Disk, r.Length) || overlap(o.Shown, o.Length, r.Shown, r.Length) {
			return errTwice
		}
	}
	return nil
}

func overlap(a, na, b, nb uint32) bool {
	return uint64(a) < uint64(b)+uint64(nb) && uint64(b) < uint64(a)+uint64(na)
}
