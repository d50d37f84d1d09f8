package changes

import (
	"bytes"
	"maps"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/view"
)

// compare returns in what now differs from was. sameData: the data of now is that of was.
func compare(now, was *view.Node, sameData bool) (Aspects, error) {
	if now.Type() != was.Type() {
		return Type, nil
	}
	var a Aspects
	if now.Mode != was.Mode {
		a |= Mode
	}
	if now.UID != was.UID || now.GID != was.GID {
		a |= Owner
	}
	if now.Mtime != was.Mtime {
		a |= Times
	}
	x, err := now.Xattrs()
	if err != nil {
		return 0, err
	}
	y, err := was.Xattrs()
	if err != nil {
		return 0, err
	}
	if !maps.Equal(x, y) {
		a |= Xattrs
	}
	if sameData {
		if now.IsRegular() && now.Size != was.Size { // a metacopy that was cut
			a |= Content
		}
		return a, nil
	}
	same, err := sameContent(now, was)
	if !same {
		a |= Content
	}
	return a, err
}

// sameContent reports whether two objects of one type have the same content.
func sameContent(a, b *view.Node) (bool, error) {
	switch a.Type() {
	case unix.S_IFREG:
		if a.Size != b.Size {
			return false, nil
		}
		return sameFile(a, b)
	case unix.S_IFLNK:
		x, err := a.Readlink()
		if err != nil {
			return false, err
		}
		y, err := b.Readlink()
		return x == y, err
	case unix.S_IFCHR, unix.S_IFBLK:
		return a.Rdev == b.Rdev, nil
	}
	return true, nil
}

// compareSize is how many bytes of two files are read at a time.
const compareSize = 128 << 10

var compareBuffers = sync.Pool{New: func() any { return new([2][compareSize]byte) }}

// sameFile compares the data of two files.
func sameFile(a, b *view.Node) (bool, error) {
	buf := compareBuffers.Get().(*[2][compareSize]byte)
	defer compareBuffers.Put(buf)
	for off := int64(0); ; {
		n, err := a.ReadAt(buf[0][:], off)
		if err != nil {
			return false, err
		}
		m, err := b.ReadAt(buf[1][:], off)
		if err != nil {
			return false, err
		}
		if !bytes.Equal(buf[0][:n], buf[1][:m]) {
			return false, nil
		}
		if n < compareSize {
			return true, nil
		}
		off += int64(n)
	}
}
