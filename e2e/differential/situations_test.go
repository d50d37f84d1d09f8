package differential

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/operation"
)

// countedFrom is the number of sequences in which, from the first seed on, all kinds and all
// situations must occur.
const countedFrom = 150

// coverage counts what sequences contain. A nil one counts nothing.
type coverage struct {
	// worked are numbers of operations that have worked, by their names, and of the situations that
	// they have met.
	worked map[string]int
	// mapped is the inode of the mapping of each slot, on the kernel's side; 0: none.
	mapped [operation.Slots]uint64
	// changed are the inodes to which a mapping has written since the last writeback.
	changed map[uint64]bool
}

// begin is called when nothing is open: before each sequence, and at a remount.
func (c *coverage) begin() {
	if c == nil {
		return
	}
	c.mapped, c.changed = [operation.Slots]uint64{}, map[uint64]bool{}
}

// situations are those that each long run must contain.
var situations = []string{
	"unlink of an open file", "rename of an open file", "rename over an open file", "truncation of an open file",
	"write to an open file by another descriptor", "read of an open file by another descriptor",
	"write by one of two descriptors", "truncation by one of two descriptors",
	"write to an open file without a name", "read of an open file without a name",
	"truncation of an open file without a name", "mapping of an open file without a name",
	"write by a mapping of a file without a name", "read by a mapping of a file without a name",
	"truncation of a mapped file", "unlink of a mapped file", "rename of a mapped file", "write to a mapped file",
	"read by a mapping without a descriptor", "close of a mapped file",
	"fsync after a write by mapping", "msync after a write by mapping", "syncfs after a write by mapping",
	"close by another descriptor after a write by mapping", "close by another process after a write by mapping",
}

// check fails the test if a kind of operation or a situation is missing.
func (c *coverage) check(t *testing.T) {
	t.Helper()
	var log []string
	for _, name := range slices.Sorted(maps.Keys(c.worked)) {
		log = append(log, fmt.Sprintf("%d %s", c.worked[name], name))
	}
	t.Logf("worked: %s", strings.Join(log, ", "))
	for _, w := range weights {
		if c.worked[w.name] == 0 {
			t.Errorf("no %s has worked", w.name)
		}
	}
	for _, s := range situations {
		if c.worked[s] == 0 {
			t.Errorf("no %s", s)
		}
	}
}

// users are the slots that use a file.
type users struct {
	open   bool // a slot has it open
	mapped bool // a slot has it mapped
}

// inode returns the inode of a regular file, and whether it has no name.
func inode(stat func(*unix.Stat_t) error) (ino uint64, nameless bool) {
	var st unix.Stat_t
	if stat(&st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return 0, false
	}
	return st.Ino, st.Nlink == 0
}

func inodeOf(path string) (ino uint64, nameless bool) {
	return inode(func(st *unix.Stat_t) error { return unix.Lstat(path, st) })
}

func inodeOfSlot(s *operation.Side, slot int) (ino uint64, nameless bool) {
	return inode(func(st *unix.Stat_t) error { return unix.Fstat(s.FDs[slot], st) })
}

// usersOf are those of an inode. The descriptor of one slot does not count.
func (c *coverage) usersOf(s *operation.Side, ino uint64, besides int) (u users) {
	for slot := range operation.Slots {
		if other, _ := inodeOfSlot(s, slot); other == ino && slot != besides {
			u.open = true
		}
		u.mapped = u.mapped || c.mapped[slot] == ino
	}
	return u
}

// meeting collects the situations of an operation on one inode; 0: on none.
type meeting struct {
	ino        uint64
	situations []string
}

func (m *meeting) note(is bool, situation string) {
	if is && m.ino != 0 {
		m.situations = append(m.situations, situation)
	}
}

// meet returns the situations that an operation on the kernel's side will meet.
func (c *coverage) meet(s *operation.Side, o operation.Op) []string {
	if c == nil {
		return nil
	}
	if strings.HasPrefix(o.Name, "slot-") {
		return c.meetBySlot(s, o)
	}
	ino, _ := inodeOf(s.Overlay.Path(o.Path))
	now := c.usersOf(s, ino, -1)
	met := meeting{ino: ino}
	switch o.Name {
	case "unlink":
		met.note(now.open, "unlink of an open file")
		met.note(now.mapped, "unlink of a mapped file")
	case "rename":
		met.note(now.open, "rename of an open file")
		met.note(now.mapped, "rename of a mapped file")
		if over, _ := inodeOf(s.Overlay.Path(o.Path2)); over != 0 && over != ino && o.N == 0 {
			met.note(c.usersOf(s, over, -1).open, "rename over an open file")
		}
	case "truncate", "overwrite":
		met.note(now.open, "truncation of an open file")
		met.note(now.mapped, "truncation of a mapped file")
	case "append", "pwrite", "mapwrite":
		met.note(now.open, "write to an open file by another descriptor")
		met.note(now.mapped, "write to a mapped file")
	case "read", "mapread":
		met.note(now.open, "read of an open file by another descriptor")
		met.note(c.changed[ino], "close by another descriptor after a write by mapping")
	}
	return met.situations
}

// meetBySlot is meet for the operations on slots.
func (c *coverage) meetBySlot(s *operation.Side, o operation.Op) []string {
	ino, nameless := inodeOfSlot(s, o.Slot)
	if o.Name == "slot-mapread" && s.FDs[o.Slot] < 0 {
		return []string{"read by a mapping without a descriptor"}
	}
	now := c.usersOf(s, ino, o.Slot)
	met := meeting{ino: ino}
	switch o.Name {
	case "slot-write":
		met.note(now.open, "write by one of two descriptors")
		met.note(nameless, "write to an open file without a name")
		met.note(now.mapped, "write to a mapped file")
	case "slot-truncate":
		met.note(now.open, "truncation by one of two descriptors")
		met.note(nameless, "truncation of an open file without a name")
		met.note(now.mapped, "truncation of a mapped file")
	case "slot-read":
		met.note(nameless, "read of an open file without a name")
	case "slot-map":
		met.note(nameless, "mapping of an open file without a name")
	case "slot-mapwrite":
		met.note(nameless, "write by a mapping of a file without a name")
	case "slot-mapread":
		met.note(nameless, "read by a mapping of a file without a name")
	case "slot-close":
		met.note(c.mapped[o.Slot] != 0, "close of a mapped file")
	case "slot-sync":
		met.note(c.changed[ino], "fsync after a write by mapping")
	case "slot-msync":
		met.note(c.changed[ino], "msync after a write by mapping")
	case "slot-syncfs":
		met.note(len(c.changed) > 0, "syncfs after a write by mapping")
	case "slot-dup", "slot-reopen":
		met.note(c.changed[ino], "close by another descriptor after a write by mapping")
	case "slot-process":
		met.note(c.changed[ino], "close by another process after a write by mapping")
	}
	return met.situations
}

// add counts an operation that has worked, and follows the mappings.
func (c *coverage) add(s *operation.Side, o operation.Op, met []string) {
	if c == nil {
		return
	}
	c.worked[o.Name]++
	for _, situation := range met {
		c.worked[situation]++
	}
	ino, _ := inodeOfSlot(s, o.Slot)
	switch o.Name {
	case "slot-map":
		c.mapped[o.Slot] = ino
	case "slot-unmap", "slot-open":
		c.mapped[o.Slot] = 0
	case "slot-mapwrite":
		c.changed[ino] = true
	case "slot-sync", "slot-msync", "slot-dup", "slot-reopen", "slot-process", "slot-writeback":
		delete(c.changed, ino)
	case "slot-syncfs":
		clear(c.changed)
	}
}
