package sys

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// Back calls register with the file's descriptor, and returns its error. register makes the file
// the backing of another one (FUSE_DEV_IOC_BACKING_OPEN of linux/fuse.h). The kernel does I/O on a
// backing with the rights that the calling thread has meanwhile. CAP_FSETID is not among them,
// because each write would then keep suid and sgid bits, as a write by root does.
func (f *File) Back(register func(fd int32) unix.Errno) error {
	if err := fault("ioctl", "BACKING_OPEN"); err != nil {
		return err
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var before [2]unix.CapUserData
	if err := unix.Capget(&hdr, &before[0]); err != nil {
		return err
	}
	without := before
	without[0].Effective &^= 1 << unix.CAP_FSETID
	if err := unix.Capset(&hdr, &without[0]); err != nil {
		return err
	}
	errno := register(int32(f.fd))
	for unix.Capset(&hdr, &before[0]) != nil { // ENOMEM: the thread must not go on without the capability
		runtime.Gosched()
	}
	if errno != 0 {
		return errno
	}
	return nil
}

// MemoryFile makes an empty file in memory, which has no name (memfd_create(2)).
func MemoryFile() (*File, error) {
	fd, err := unix.MemfdCreate("fuse-overlay", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	return &File{Object{fd}}, nil
}
