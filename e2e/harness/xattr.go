package harness

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// XattrNames lists the xattrs of an object: none on a file system without xattrs.
func XattrNames(path string) ([]string, error) {
	buf := make([]byte, 4096)
	n, err := unix.Llistxattr(path, buf)
	if err == unix.ERANGE {
		buf = make([]byte, 65536)
		n, err = unix.Llistxattr(path, buf)
	}
	if err == unix.EOPNOTSUPP {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listxattr: %w", err)
	}
	return slices.DeleteFunc(strings.Split(string(buf[:n]), "\x00"), func(s string) bool { return s == "" }), nil
}

// GetXattr is the value of an xattr.
func GetXattr(path, name string) (string, error) {
	buf := make([]byte, 65536)
	n, err := unix.Lgetxattr(path, name, buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// XattrOf is the value of an xattr, or the name of the errno.
func XattrOf(path, name string) string {
	v, err := GetXattr(path, name)
	if err != nil {
		return ErrnoName(err)
	}
	return v
}

// flagLetters are FS_*_FL of linux/fs.h, by the letters of chattr(1).
var flagLetters = map[rune]uint32{'S': 0x8, 'i': 0x10, 'a': 0x20, 'd': 0x40, 'A': 0x80}

// Chattr sets inode flags ("+ia") or clears them ("-ia").
func Chattr(path, change string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	flags, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
	if err != nil {
		return err
	}
	var bits uint32
	for _, letter := range change[1:] {
		bits |= flagLetters[letter]
	}
	switch change[0] {
	case '+':
		flags |= bits
	case '-':
		flags &^= bits
	}
	return unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, int(flags))
}

// Lsattr is the flags of an object, of those that Chattr knows, and "-" if the object can have
// none.
func Lsattr(path string) string {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err.Error()
	}
	defer unix.Close(fd)
	flags, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
	if err != nil {
		return "-"
	}
	has := ""
	for _, letter := range "SiadA" {
		if flags&flagLetters[letter] != 0 {
			has += string(letter)
		}
	}
	return has
}
