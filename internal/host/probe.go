package host

import (
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The calls of the probe for lost appends (package lossprobe).

// Socket is one end of a connection between two processes of this program.
type Socket struct{ fd int }

// NewSocketPair returns both ends.
func NewSocketPair() (a, b Socket, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return Socket{-1}, Socket{-1}, err
	}
	return Socket{pair[0]}, Socket{pair[1]}, nil
}

// AdoptSocket takes over a descriptor that this process has inherited.
func AdoptSocket(fd int) Socket {
	unix.CloseOnExec(fd)
	return Socket{fd}
}

// Fd returns the descriptor, which the socket still owns.
func (s Socket) Fd() uintptr { return uintptr(s.fd) }

// Close closes this end.
func (s Socket) Close() { _ = unix.Close(s.fd) }

// SendDevice sends a descriptor of a FUSE connection to the other end.
func (s Socket) SendDevice(d *Device) error {
	return retry(func() error { return unix.Sendmsg(s.fd, []byte{0}, unix.UnixRights(d.fd), nil, unix.MSG_NOSIGNAL) })
}

// ReceiveDevice receives a descriptor of a FUSE connection from the other end. ETIMEDOUT: none came
// within limit. EPROTO: the other end was closed.
func (s Socket) ReceiveDevice(limit time.Duration) (*Device, error) {
	n := 0
	err := retry(func() (err error) {
		n, err = unix.Poll([]unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLIN}}, int(limit.Milliseconds()))
		return err
	})
	switch {
	case err != nil:
		return nil, err
	case n == 0:
		return nil, unix.ETIMEDOUT
	}
	return receiveDevice(s.fd)
}

// Namespaces are those of a process that this process starts.
type Namespaces int

// The values of [Namespaces].
const (
	SameNamespaces Namespaces = iota // those of this process
	OwnNamespaces                    // a user namespace, of which the process is root, and a mount namespace
)

// StartProbe starts this program again, with one end of a connection as descriptor 3 and one more
// variable in its environment. With [SameNamespaces] the value is "3:4", and descriptor 4 is
// /dev/fuse: the starter may remove the mounts of the namespace before the process could open it.
// With [OwnNamespaces] the value is "3", and the process opens it: a user namespace can mount the
// devices alone that were opened in it.
func StartProbe(name string, s Socket, variable string, in Namespaces) (Child, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return Child{}, err
	}
	defer func() { _ = null.Close() }()
	attr := &syscall.ProcAttr{
		Files: []uintptr{null.Fd(), null.Fd(), null.Fd(), s.Fd()},
		Sys:   &syscall.SysProcAttr{},
	}
	if in == SameNamespaces {
		dev, err := OpenDevice()
		if err != nil {
			return Child{}, err
		}
		defer dev.Close()
		attr.Files = append(attr.Files, uintptr(dev.fd))
		attr.Env = append(os.Environ(), variable+"=3:4")
	} else {
		attr.Env = append(os.Environ(), variable+"=3")
		attr.Sys.Cloneflags = unix.CLONE_NEWUSER | unix.CLONE_NEWNS
		attr.Sys.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		attr.Sys.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	pid, err := syscall.ForkExec("/proc/self/exe", []string{name}, attr)
	return Child{pid}, err
}

// MountDetached makes a FUSE file system of the connection that has no path, and returns a
// descriptor of its root. The kernel sends no request but INIT. The file system ends with its last
// descriptor.
func (d *Device) MountDetached() (*DetachedRoot, error) {
	fs, err := unix.Fsopen("fuse", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("fsopen: %w", err)
	}
	defer func() { _ = unix.Close(fs) }()
	for _, o := range []struct{ key, value string }{
		{"fd", strconv.Itoa(d.fd)},
		{"rootmode", strconv.FormatUint(unix.S_IFDIR, 8)},
		{"user_id", strconv.Itoa(os.Geteuid())},
		{"group_id", strconv.Itoa(os.Getegid())},
	} {
		if err := unix.FsconfigSetString(fs, o.key, o.value); err != nil {
			return nil, fmt.Errorf("fsconfig %s: %w", o.key, err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return nil, fmt.Errorf("fsconfig: %w", err)
	}
	root, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return nil, fmt.Errorf("fsmount: %w", err)
	}
	return &DetachedRoot{root}, nil
}

// DetachedRoot is the root of a file system without a path.
type DetachedRoot struct{ fd int }

// Close ends the file system if nothing in it is open.
func (r *DetachedRoot) Close() { _ = unix.Close(r.fd) }

// LookUp makes the kernel send a LOOKUP of name.
func (r *DetachedRoot) LookUp(name string) error { return unix.Faccessat(r.fd, name, unix.F_OK, 0) }

// Map opens a file of the file system for reading and writing, and maps its first size bytes
// shared.
func (r *DetachedRoot) Map(name string, size int) (*MappedFile, error) {
	fd, err := unix.Openat(r.fd, name, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	mem, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return &MappedFile{fd, mem}, nil
}

// MappedFile is an open file with a shared mapping.
type MappedFile struct {
	fd  int
	mem []byte
}

// Close unmaps and closes the file.
func (f *MappedFile) Close() {
	_ = unix.Munmap(f.mem)
	_ = unix.Close(f.fd)
}

// WriteMapped writes one byte into the mapping, by a read(2) from a pipe. If the kernel cannot
// fault the page in, read(2) returns EFAULT, while a store by the process would get SIGBUS.
func (f *MappedFile) WriteMapped(b byte, at int) error {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	defer func() { _, _ = unix.Close(pipe[0]), unix.Close(pipe[1]) }()
	if _, err := unix.Write(pipe[1], []byte{b}); err != nil {
		return err
	}
	return retry(func() error { _, err := unix.Read(pipe[0], f.mem[at:at+1]); return err })
}

// Pwrite writes at an offset.
func (f *MappedFile) Pwrite(data []byte, off int64) (int, error) { return unix.Pwrite(f.fd, data, off) }

// Pread reads at an offset.
func (f *MappedFile) Pread(buf []byte, off int64) (int, error) { return unix.Pread(f.fd, buf, off) }

// WriteBack writes the dirty pages back and waits for that. Unlike fsync(2), it does not take the
// inode's lock.
func (f *MappedFile) WriteBack() error {
	return unix.SyncFileRange(f.fd, 0, 0,
		unix.SYNC_FILE_RANGE_WAIT_BEFORE|unix.SYNC_FILE_RANGE_WRITE|unix.SYNC_FILE_RANGE_WAIT_AFTER)
}
