package view

import (
	"encoding/binary"
	"slices"
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// Attr is what stat(2) shows of an object in the mount. The link count of a directory is 1.
type Attr struct {
	Ino                 uint64
	Mode                uint32 // with the type
	UID, GID            uint32
	Nlink               uint32
	Rdev                uint64 // as in stat(2)
	Size                int64
	Atime, Mtime, Ctime unix.Timespec
}

// Type returns the type of the object, one of S_IF*.
func (a *Attr) Type() uint32 { return a.Mode & unix.S_IFMT }

// IsDir reports whether there is an object and it is a directory.
func (n *Node) IsDir() bool { return n != nil && n.Type() == unix.S_IFDIR }

// IsRegular reports whether there is an object and it is a regular file.
func (n *Node) IsRegular() bool { return n != nil && n.Type() == unix.S_IFREG }

func attrOf(a *fuse.Attr) Attr {
	at := func(sec uint64, nsec uint32) unix.Timespec { return unix.Timespec{Sec: int64(sec), Nsec: int64(nsec)} }
	return Attr{
		Ino: a.Ino, Mode: a.Mode, UID: a.Uid, GID: a.Gid, Nlink: a.Nlink, Rdev: fs.LibcDev(a.Rdev), Size: int64(a.Size),
		Atime: at(a.Atime, a.Atimensec), Mtime: at(a.Mtime, a.Mtimensec), Ctime: at(a.Ctime, a.Ctimensec),
	}
}

// Node is an object of a [View], with its attributes as they were when it was looked up.
type Node struct {
	Attr
	view *View
	id   uint64
}

// Forget frees what the view remembers of the node. The node must not be used any more.
func (n *Node) Forget() {
	if n != nil && n.id != fuse.FUSE_ROOT_ID {
		n.view.overlay.Forget(n.id, 1)
	}
}

// Lookup returns the object of a name in a directory; nil: the directory has no such name.
func (n *Node) Lookup(name string) (*Node, error) {
	h := header(n.id)
	var out fuse.EntryOut
	switch err := errorOf(n.view.overlay.Lookup(nil, &h, name, &out)); {
	case err == unix.ENOENT, err == nil && out.NodeId == 0:
		return nil, nil
	case err != nil:
		return nil, err
	}
	return &Node{view: n.view, id: out.NodeId, Attr: attrOf(&out.Attr)}, nil
}

// listSize is the size of the buffer for one part of a listing.
const listSize = 64 << 10

// Names returns the names in a directory, sorted.
func (n *Node) Names() ([]string, error) {
	var names []string
	buf := make([]byte, listSize)
	for offset := uint64(0); ; {
		list := fuse.NewDirEntryList(buf, offset)
		in := fuse.ReadIn{InHeader: header(n.id), Offset: offset, Size: listSize}
		if err := errorOf(n.view.overlay.ReadDir(nil, &in, list)); err != nil {
			return nil, err
		}
		part := list.Bytes()
		if len(part) == 0 {
			slices.Sort(names)
			return names, nil
		}
		for len(part) > 0 {
			var name string
			if name, offset, part = nextDirent(part); name != "." && name != ".." {
				names = append(names, name)
			}
		}
	}
}

// nextDirent splits off the first entry of a reply to READDIR (struct fuse_dirent): inode number 8
// bytes, offset 8, length of the name 4, type 4, then the name, padded to a multiple of 8.
func nextDirent(b []byte) (name string, offset uint64, rest []byte) {
	const nameAt = 24
	offset = binary.NativeEndian.Uint64(b[8:])
	end := nameAt + int(binary.NativeEndian.Uint32(b[16:]))
	return string(b[nameAt:end]), offset, b[(end+7)&^7:]
}

// ReadAt fills p with the data of a regular file from off on, and returns how many bytes there are.
// That is less than len(p) only at the end of the file.
func (n *Node) ReadAt(p []byte, off int64) (int, error) {
	in := fuse.ReadIn{InHeader: header(n.id), Offset: uint64(off), Size: uint32(len(p))}
	got, status := n.view.overlay.ReadData(&in, p)
	return got, errorOf(status)
}

// WithData calls f with the file of a layer that has the data of a regular file, for reading. The
// first Size bytes are those of the object.
func (n *Node) WithData(f func(*sys.File) error) error { return n.view.overlay.WithData(n.id, f) }

// Readlink returns the target of a symbolic link.
func (n *Node) Readlink() (string, error) {
	h := header(n.id)
	target, status := n.view.overlay.Readlink(nil, &h)
	return string(target), errorOf(status)
}

// Sizes of buffers for lists and values of xattrs. Most are shorter than smallXattr, and none is
// longer than maxXattr (XATTR_LIST_MAX, XATTR_SIZE_MAX).
const (
	smallXattr = 512
	maxXattr   = 64 << 10
)

// Xattrs returns the xattrs that the mount shows. It returns none if the file system has no xattrs.
func (n *Node) Xattrs() (map[string]string, error) {
	h := header(n.id)
	list, err := sized(func(buf []byte) (uint32, fuse.Status) { return n.view.overlay.ListXAttr(nil, &h, buf) })
	if err == unix.EOPNOTSUPP || err == unix.ENOSYS || err == nil && len(list) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	xattrs := map[string]string{}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(list), "\x00"), "\x00") {
		value, err := sized(func(buf []byte) (uint32, fuse.Status) { return n.view.overlay.GetXAttr(nil, &h, name, buf) })
		switch err {
		case nil:
			xattrs[name] = string(value)
		case unix.ENODATA: // removed meanwhile
		default:
			return nil, err
		}
	}
	return xattrs, nil
}

// sized calls f with a buffer that is large enough.
func sized(f func(buf []byte) (uint32, fuse.Status)) ([]byte, error) {
	buf := make([]byte, smallXattr)
	got, status := f(buf)
	if status == fuse.ERANGE {
		buf = make([]byte, maxXattr)
		got, status = f(buf)
	}
	if status != fuse.OK {
		return nil, errorOf(status)
	}
	return buf[:got], nil
}
