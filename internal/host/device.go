package host

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Device is the daemon's end of a FUSE connection: a descriptor of /dev/fuse.
type Device struct{ fd int }

// OpenDevice opens /dev/fuse. The connection begins with [Device.Mount].
func OpenDevice() (*Device, error) {
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return &Device{fd}, nil
}

// AdoptDevice takes over a descriptor of /dev/fuse that another process has mounted.
func AdoptDevice(fd int) (*Device, error) {
	unix.CloseOnExec(fd)
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err != nil {
		return nil, err
	}
	return &Device{fd}, nil
}

// Close closes the descriptor.
func (d *Device) Close() { _ = unix.Close(d.fd) }

// Dup returns another descriptor of the connection. The caller closes it.
func (d *Device) Dup() (int, error) { return unix.FcntlInt(uintptr(d.fd), unix.F_DUPFD_CLOEXEC, 3) }

// FD returns the descriptor, for a process that inherits it.
func (d *Device) FD() int { return d.fd }

// PutInPlaceOf makes another descriptor one of the connection.
func (d *Device) PutInPlaceOf(fd int) error { return unix.Dup3(d.fd, fd, unix.O_CLOEXEC) }

// MessageEnd is the other end of a descriptor from [ReplaceByMessage].
type MessageEnd struct{ fd int }

// Close closes it.
func (e MessageEnd) Close() { _ = unix.Close(e.fd) }

// ReplaceByMessage makes a descriptor one from which a read returns msg, and which takes replies
// until the other end is closed.
func ReplaceByMessage(fd int, msg []byte) (other MessageEnd, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return MessageEnd{-1}, err
	}
	defer func() { _ = unix.Close(pair[1]) }()
	err = unix.Dup3(pair[1], fd, unix.O_CLOEXEC)
	if err == nil {
		_, err = unix.Write(pair[0], msg)
	}
	if err != nil {
		_ = unix.Close(pair[0])
	}
	return MessageEnd{pair[0]}, err
}

// Cut replaces the connection, in d and in a descriptor that Dup has returned, by a file in memory
// that takes late replies. With its last descriptor the kernel ends the connection, and the calls
// of the mount's clients return.
func (d *Device) Cut(dup int) error {
	nowhere, err := unix.MemfdCreate("fuse-overlay", unix.MFD_CLOEXEC)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(nowhere) }()
	return errors.Join(unix.Dup3(nowhere, d.fd, unix.O_CLOEXEC), unix.Dup3(nowhere, dup, unix.O_CLOEXEC))
}

// Mount attaches the connection at path. data are the mount options without fd, separated by commas
// (Documentation/filesystems/fuse.rst).
func (d *Device) Mount(source, path, fstype string, flags uintptr, data string) error {
	return unix.Mount(source, path, fstype, flags, "fd="+strconv.Itoa(d.fd)+","+data)
}

// SetNonblock makes reads return EAGAIN if there is no request. It holds for all descriptors of the
// connection's open file.
func (d *Device) SetNonblock() error { return unix.SetNonblock(d.fd, true) }

// TryRead reads the next request, whole. EAGAIN: there is none. ENODEV: the mount is gone.
// ECONNABORTED: the connection was aborted. Precondition: SetNonblock.
func (d *Device) TryRead(buf []byte) (int, error) {
	for {
		// Raw: the call does not block, so it needs no handover to the scheduler.
		n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(d.fd), uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)))
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR, unix.ENOENT: // ENOENT: a request that its client has interrupted (fuse_dev_do_read)
			continue
		}
		return 0, errno
	}
}

// Wait waits until there may be a request, or the connection has ended, but not longer than limit.
// ready is false after limit, which counts in whole milliseconds.
func (d *Device) Wait(limit time.Duration) (ready bool, err error) {
	n := 0
	err = retry(func() (err error) {
		n, err = unix.Poll([]unix.PollFd{{Fd: int32(d.fd), Events: unix.POLLIN}}, int(limit.Milliseconds()))
		return err
	})
	return n > 0, err
}

// Write sends a reply or a notification to the kernel in one piece.
func (d *Device) Write(msg []byte) error {
	return retry(func() error { _, err := unix.Write(d.fd, msg); return err })
}

// Yield lets another runnable thread run on this CPU (sched_yield).
func Yield() { _, _, _ = unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0) }

// MountByHelper runs a program that mounts at path and sends the connection over a socket, its
// descriptor 3. That is the protocol of fusermount3 (util/fusermount.c of libfuse). The program
// writes its errors to stderr; nil drops them.
func MountByHelper(program, path, options string, stderr io.Writer) (*Device, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(pair[0]) }()
	theirs := os.NewFile(uintptr(pair[1]), "socket")
	cmd := exec.Command(program, "-o", options, "--", path)
	cmd.Env = append(os.Environ(), "_FUSE_COMMFD=3")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, stderr
	cmd.ExtraFiles = []*os.File{theirs}
	err = cmd.Run()
	_ = theirs.Close()
	if err != nil {
		return nil, err
	}
	return receiveDevice(pair[0])
}

// receiveDevice takes the descriptor that was sent over the socket.
func receiveDevice(socket int) (*Device, error) {
	data, rights := make([]byte, 1), make([]byte, unix.CmsgSpace(4))
	var n int
	err := retry(func() (err error) {
		_, n, _, _, err = unix.Recvmsg(socket, data, rights, unix.MSG_CMSG_CLOEXEC)
		return err
	})
	if err != nil {
		return nil, err
	}
	messages, err := unix.ParseSocketControlMessage(rights[:n])
	if err != nil {
		return nil, err
	}
	for i := range messages {
		if fds, err := unix.ParseUnixRights(&messages[i]); err == nil && len(fds) == 1 {
			return &Device{fds[0]}, nil
		}
	}
	return nil, unix.EPROTO
}
