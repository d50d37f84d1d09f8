package host

import (
	"context"
	"errors"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// Listen makes a socket of a name in the folder, for the owner alone, that at most backlog clients
// wait for. The name must be free, and stays when the socket is closed.
func (f *Folder) Listen(name string, backlog int) (*net.UnixListener, error) {
	l, err := listenPrivately(f.at(name), backlog)
	if err == nil {
		l.SetUnlinkOnClose(false) // the name may be another socket's then
	}
	return l, err
}

// ListenPrivately is [Folder.Listen] for a path that the user has chosen. A socket there that no
// process listens on is replaced. The path goes when the socket is closed. EADDRINUSE: something
// else is there.
func ListenPrivately(path string, backlog int) (*net.UnixListener, error) {
	l, err := listenPrivately(path, backlog)
	if !errors.Is(err, unix.EADDRINUSE) {
		return l, err
	}
	if c, dialed := net.Dial("unix", path); !errors.Is(dialed, unix.ECONNREFUSED) {
		if dialed == nil {
			_ = c.Close()
		}
		return nil, err
	}
	var st unix.Stat_t
	if unix.Lstat(path, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFSOCK { // connect(2) refuses files too
		return nil, err
	}
	if err := unix.Unlink(path); err != nil {
		return nil, err
	}
	return listenPrivately(path, backlog)
}

func listenPrivately(path string, backlog int) (*net.UnixListener, error) {
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		// bind(2) gives the name the mode of the socket (unix_bind_bsd), so it never has another one.
		return onDescriptor(c, func(fd int) error { return unix.Fchmod(fd, 0o600) })
	}}
	l, err := config.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, err
	}
	u := l.(*net.UnixListener)
	raw, err := u.SyscallConn()
	if err == nil {
		err = onDescriptor(raw, func(fd int) error { return unix.Listen(fd, backlog) })
	}
	if err != nil {
		_ = u.Close()
		return nil, err
	}
	return u, nil
}

// Dial connects to the socket of a name in the folder. ENOENT: there is none. ECONNREFUSED: no
// process listens. EAGAIN: too many clients wait for it.
func (f *Folder) Dial(ctx context.Context, name string) (*net.UnixConn, error) {
	c, err := new(net.Dialer).DialContext(ctx, "unix", f.at(name))
	if err != nil {
		return nil, err
	}
	return c.(*net.UnixConn), nil
}

// Reconnect connects a datagram socket to another path. A process that may not make sockets can use
// the one that it has.
func Reconnect(c *net.UnixConn, path string) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	return onDescriptor(raw, func(fd int) error {
		return retry(func() error { return unix.Connect(fd, &unix.SockaddrUnix{Name: path}) })
	})
}

// DescriptorOf returns the descriptor of a socket, which still owns it; -1 if it is closed.
func DescriptorOf(c *net.UnixConn) int {
	fd := -1
	if raw, err := c.SyscallConn(); err == nil {
		_ = onDescriptor(raw, func(n int) error { fd = n; return nil })
	}
	return fd
}

// PeerUser returns the user of the process at the other end when it connected, or began to listen
// (SO_PEERCRED). A user without an id in this user namespace is the overflow user.
func PeerUser(c *net.UnixConn) (uid uint32, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	err = onDescriptor(raw, func(fd int) error {
		cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err == nil {
			uid = cred.Uid
		}
		return err
	})
	return uid, err
}

// onDescriptor calls f with the descriptor of a socket, and returns its error.
func onDescriptor(c syscall.RawConn, f func(fd int) error) (err error) {
	if controlled := c.Control(func(fd uintptr) { err = f(int(fd)) }); controlled != nil {
		return controlled
	}
	return err
}
