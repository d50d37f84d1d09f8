package sys

import (
	"bytes"
	"errors"
	"strings"

	"github.com/pkg/xattr"
	"golang.org/x/sys/unix"
)

// GetXattr returns the value of an extended attribute. ENODATA: there is none.
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

// SetXattr sets an extended attribute. flags are 0, XATTR_CREATE or XATTR_REPLACE.
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

// RemoveXattr removes an extended attribute. ENODATA: there is none.
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

// ListXattr returns the names of all extended attributes. nil: the file system has none. An empty
// list: the object has none.
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

// fewBytes is how long a value or a list may be for a direct call.
const fewBytes = 512

// getDirectly reads an attribute without a path in /proc, which would cost more than the attribute.
// ok is false if it cannot.
func (r Ref) getDirectly(name string) (value []byte, ok bool, err error) {
	if r.name == "" {
		value, err = fgetxattr(r.fd, name)
	} else {
		value, err = getxattrat(r.fd, r.name, name)
	}
	if needsPath(err) {
		return nil, false, nil
	}
	return value, true, err
}

// fgetxattr reads an attribute of an open file. ERANGE: it is longer than [fewBytes].
func fgetxattr(fd int, name string) ([]byte, error) {
	var buf [fewBytes]byte
	n := 0
	err := retry(func() (err error) { n, err = unix.Fgetxattr(fd, name, buf[:]); return err })
	if err != nil {
		return nil, err
	}
	return bytes.Clone(buf[:n]), nil
}

// needsPath reports whether a path in /proc may work after a direct call has failed: the descriptor
// is O_PATH, the result is too long, or the kernel is older.
func needsPath(err error) bool { return err == unix.EBADF || err == unix.ERANGE || err == unix.ENOSYS }

// listDirectly lists the attributes as getDirectly reads one.
func (r Ref) listDirectly() (names []string, ok bool, err error) {
	var buf [fewBytes]byte
	n := 0
	if r.name == "" {
		err = retry(func() (err error) { n, err = unix.Flistxattr(r.fd, buf[:]); return err })
	} else {
		n, err = listxattrat(r.fd, r.name, buf[:])
	}
	switch {
	case needsPath(err):
		return nil, false, nil
	case err != nil:
		return nil, true, err
	}
	return strings.FieldsFunc(string(buf[:n]), func(c rune) bool { return c == 0 }), true, nil
}

// xattrErrno returns the errno in the library's error.
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
