package harness

import (
	"golang.org/x/sys/unix"
)

// FS_*_FL of linux/fs.h, by chattr's letters.
var flagLetters = map[rune]int{'S': 0x8, 'i': 0x10, 'a': 0x20, 'd': 0x40, 'A': 0x80}

// Chattr sets and clears flags, given as chattr takes them.
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
	bits := 0
	for _, letter := range change[1:] {
		bits |= flagLetters[letter]
	}
	switch change[0] {
	case '+':
		flags |= uint32(bits)
	case '-':
		flags &^= uint32(bits)
	}
	return unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, int(flags))
}

// Lsattr returns those of the flags that an object has, and "-" for an object without flags.
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
		if flags&uint32(flagLetters[letter]) != 0 {
			has += string(letter)
		}
	}
	return has
}
