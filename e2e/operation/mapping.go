package operation

import (
	"fmt"
	"runtime/debug"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// mappedBytes is the length of a mapping that stays, longer than most files.
const mappedBytes = 1 << 20

// notFile is the result of an operation that needs a regular file.
const notFile = "not a file"

// regular returns the size of a regular file, and whether the descriptor is one.
func regular(fd int) (size int64, ok bool) {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return 0, false
	}
	return st.Size, true
}

// mapOnce opens a file, reads or writes by a mapping, and closes the file before the mapping ends.
// The file must not be empty: the kernel would copy it up at the open, the daemon not at all.
func mapOnce(o Op, p string) string {
	var st unix.Stat_t
	switch err := unix.Stat(p, &st); {
	case err != nil:
		return Result(err)
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return notFile
	case st.Size <= o.N:
		return "beyond the end"
	}
	flags, prot := unix.O_RDONLY, unix.PROT_READ
	if o.Name == "mapwrite" {
		flags, prot = unix.O_RDWR, prot|unix.PROT_WRITE
	}
	fd, err := unix.Open(p, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return "open " + Result(err)
	}
	mem, err := unix.Mmap(fd, 0, int(st.Size), prot, unix.MAP_SHARED)
	if err != nil {
		_ = unix.Close(fd)
		return "mmap " + Result(err)
	}
	result := "SIGBUS"
	withoutFault(func() {
		if o.Name == "mapwrite" {
			result = fmt.Sprint("ok ", copy(mem[o.N:], o.Text))
		} else {
			result = fmt.Sprintf("%d bytes %s", len(mem), harness.Digest(mem))
		}
	})
	for _, err := range []error{unix.Close(fd), unix.Munmap(mem)} {
		if err != nil {
			result += " " + Result(err)
		}
	}
	return result
}

// runMapping runs the operations on the mapping of a slot. It outlives slot-close, until the next
// slot-open.
func (s *Side) runMapping(o Op) string {
	mem := s.maps[o.Slot]
	if o.Name != "slot-map" && mem == nil {
		return "not mapped"
	}
	switch o.Name {
	case "slot-map":
		return s.mapSlot(o.Slot)
	case "slot-mapread":
		return readMapped(mem)
	case "slot-mapwrite":
		return s.writeMapped(o, mem)
	case "slot-msync":
		return Result(unix.Msync(mem, int(o.N)))
	case "slot-unmap":
		s.unmap(o.Slot)
		return "ok"
	}
	panic("unknown operation " + o.Name)
}

// mapSlot maps the file of a descriptor.
func (s *Side) mapSlot(slot int) (result string) {
	fd := s.FDs[slot]
	if fd < 0 {
		return "closed"
	}
	if _, ok := regular(fd); !ok {
		return notFile
	}
	s.unmap(slot)
	mem, err := unix.Mmap(fd, 0, mappedBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err == nil {
		s.maps[slot] = mem
	}
	return Result(err)
}

func (s *Side) unmap(slot int) {
	if s.maps[slot] != nil {
		_ = unix.Munmap(s.maps[slot])
		s.maps[slot] = nil
	}
}

// Mapped reports whether a slot has a mapping.
func (s *Side) Mapped(slot int) bool { return s.maps[slot] != nil }

// readMapped reads to the page at which the file ends, which the kernel reports by SIGBUS.
func readMapped(mem []byte) string {
	page := unix.Getpagesize()
	var all []byte
	for at := 0; at < len(mem); at += page {
		if !withoutFault(func() { all = append(all, mem[at:at+page]...) }) {
			break
		}
	}
	return fmt.Sprintf("%d bytes %s", len(all), harness.Digest(all))
}

// writeMapped writes within the file: what a write beyond its end does is undefined.
func (s *Side) writeMapped(o Op, mem []byte) string {
	if s.FDs[o.Slot] < 0 {
		return "closed"
	}
	size, ok := regular(s.FDs[o.Slot])
	if size = min(size, int64(len(mem))); !ok || o.N >= size {
		return "beyond the end"
	}
	var n int
	if !withoutFault(func() { n = copy(mem[o.N:size], o.Text) }) {
		return "SIGBUS"
	}
	return fmt.Sprint("ok ", n)
}

// withoutFault reports whether f has accessed memory without SIGBUS.
func withoutFault(f func()) (ok bool) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() { ok = recover() == nil }()
	f()
	return true
}
