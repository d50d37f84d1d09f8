package host

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// SharedMemory is memory that outlives the process: a file in memory that other processes inherit.
type SharedMemory struct {
	fd    int
	bytes []byte
}

// NewSharedMemory makes size bytes, all zero. The kernel gives them memory when they are first
// written.
func NewSharedMemory(size int) (*SharedMemory, error) {
	fd, err := unix.MemfdCreate("fuse-overlay journal", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	if err := unix.Ftruncate(fd, int64(size)); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("cannot size the shared memory: %w", err)
	}
	return mapShared(fd, size)
}

// InheritSharedMemory takes over the descriptor of [SharedMemory.FD] of another process.
func InheritSharedMemory(fd int) (*SharedMemory, error) {
	unix.CloseOnExec(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("descriptor %d: %w", fd, err)
	}
	return mapShared(fd, int(st.Size))
}

func mapShared(fd, size int) (*SharedMemory, error) {
	bytes, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_NORESERVE)
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("cannot map the shared memory: %w", err)
	}
	return &SharedMemory{fd, bytes}, nil
}

// FD returns the descriptor of the memory.
func (m *SharedMemory) FD() int { return m.fd }

// Bytes returns the memory.
func (m *SharedMemory) Bytes() []byte { return m.bytes }

// Close unmaps the memory. It is gone when no process has it any more.
func (m *SharedMemory) Close() {
	_ = unix.Munmap(m.bytes)
	_ = unix.Close(m.fd)
}

// word returns the address of 4 bytes of the memory.
func (m *SharedMemory) word(at int) *uint32 { return (*uint32)(unsafe.Pointer(&m.bytes[at])) }
