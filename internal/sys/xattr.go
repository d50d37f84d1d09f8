package sys

import (
	"bytes"
	"errors"
	"strings"

	"github.com/pkg/xattr"
	"golang.org/x/sys/unix"
)

// GetXattr returns the value of an extended attribute; ENODATA when there is none.
func (r Ref) GetXattr(name string) ([]byte, error) {
	if err := fault("getxattr", name); err != nil {
		return nil, err
	}
	if value, ok, err := r.getDirectly(name); ok {
		return value, err
	}
	get := xattr.LGet
	if r.name == "" {
		get = xattr.Get
	}
	v, err := get(r.procPath(), name)
	return v, xattrErrno(err)
}

// SetXattr sets an extended attribute; flags are XATTR_CREATE or XATTR_REPLACE.
func (r Ref) SetXattr(name string, value []byte, flags int) error {
	if err := fault("setxattr", name); err != nil {
		return err
	}
	if r.name == "" {
		err := retry(func() error { return unix.Fsetxattr(r.fd, name, value, flags) })
		if err == unix.EBADF { // O_PATH
			err = xattrErrno(xattr.SetWithFlags(r.procPath(), name, value, flags))
		}
		return err
	}
	return xattrErrno(xattr.LSetWithFlags(r.procPath(), name, value, flags))
}

// RemoveXattr removes an extended attribute; ENODATA when there is none.
func (r Ref) RemoveXattr(name string) error {
	if err := fault("removexattr", name); err != nil {
		return err
	}
	remove := xattr.LRemove
	if r.name == "" {
		remove = xattr.Remove
	}
	return xattrErrno(remove(r.procPath(), name))
}

// ListXattr returns the names of all extended attributes. The list is nil where the file system does not list any, and empty
// where the object has none.
func (r Ref) ListXattr() ([]string, error) {
	if err := fault("listxattr", r.name); err != nil {
		return nil, err
	}
	names, ok, err := r.listDirectly()
	if !ok {
		list := xattr.LList
		if r.name == "" {
			list = xattr.List
		}
		names, err = list(r.procPath())
		err = xattrErrno(err)
	}
	switch {
	case err == unix.EOPNOTSUPP:
		return nil, nil
	case err != nil:
		return nil, err
	case names == nil:
		return []string{}, nil
	}
	return names, nil
}

// What is asked for directly is of up to this many bytes.
const fewBytes = 512

// getDirectly asks without a way through /proc, which costs more than the attribute. ok is false where that cannot be, or the
// value is too long.
func (r Ref) getDirectly(name string) (value []byte, ok bool, err error) {
	if r.name == "" {
		value, err = fgetxattr(r.fd, name)
	} else {
		value, err = getxattrat(r.fd, r.name, name)
	}
	if roundabout(err) {
		return nil, false, nil
	}
	return value, true, err
}

// fgetxattr reads an attribute of an open file; ERANGE when it is longer than [fewBytes].
func fgetxattr(fd int, name string) ([]byte, error) {
	var buf [fewBytes]byte
	n := 0
	err := retry(func() (err error) { n, err = unix.Fgetxattr(fd, name, buf[:]); return err })
	if err != nil {
		return nil, err
	}
	return bytes.Clone(buf[:n]), nil
}

// roundabout reports whether a direct call cannot tell, and a way through /proc may: the descriptor is O_PATH, the answer too long, the
// kernel older.
func roundabout(err error) bool { return err == unix.EBADF || err == unix.ERANGE || err == unix.ENOSYS }

// listDirectly is to the list what getDirectly is to a value.
func (r Ref) listDirectly() (names []string, ok bool, err error) {
	var buf [fewBytes]byte
	n := 0
	if r.name == "" {
		err = retry(func() (err error) { n, err = unix.Flistxattr(r.fd, buf[:]); return err })
	} else {
		n, err = listxattrat(r.fd, r.name, buf[:])
	}
	switch {
	case roundabout(err):
		return nil, false, nil
	case err != nil:
		return nil, true, err
	}
	return strings.FieldsFunc(string(buf[:n]), func(c rune) bool { return c == 0 }), true, nil
}

// xattrErrno takes the errno out of the library's error.
func xattrErrno(err error) error {
	if err == nil {
		return nil
	}
	var errno unix.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return unix.EIO
}
