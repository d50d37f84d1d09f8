package fs

import (
	"bytes"
	"encoding/binary"
	"path"
	"strings"
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// kernel calls an overlay as the kernel does, without one: it looks a name up before it does
// something with it, holds the references that it is handed, and gives them back.
type kernel struct {
	o *Overlay
	// The caller of the requests. Thread 0 is one that the daemon cannot see.
	uid, thread uint32

	mu   sync.Mutex // guards refs
	refs map[uint64]uint64
}

func newKernel(o *Overlay) *kernel { return &kernel{o: o, refs: map[uint64]uint64{}} }

// request is one request, ready to be made: all names it needs have been looked up.
type request func() error

func failed(err error) request { return func() error { return err } }

func errorOf(s fuse.Status) error {
	if s == fuse.OK {
		return nil
	}
	return unix.Errno(s)
}

func (k *kernel) header(id uint64) fuse.InHeader {
	return fuse.InHeader{NodeId: id, Caller: fuse.Caller{Owner: fuse.Owner{Uid: k.uid, Gid: k.uid}, Pid: k.thread}}
}

// took notes a reference.
func (k *kernel) took(id uint64) {
	if id != 0 {
		k.mu.Lock()
		k.refs[id]++
		k.mu.Unlock()
	}
}

// forget gives all references on some nodes back, or on all.
func (k *kernel) forget(which func(id uint64) bool) {
	k.mu.Lock()
	given := map[uint64]uint64{}
	for id, n := range k.refs {
		if which == nil || which(id) {
			given[id] = n
			delete(k.refs, id)
		}
	}
	k.mu.Unlock()
	for id, n := range given {
		k.o.Forget(id, n)
	}
	k.o.closer.closeWaiting() // for tests that count descriptors
}

// lookup requests a name.
func (k *kernel) lookup(parent uint64, name string) (fuse.EntryOut, error) {
	var out fuse.EntryOut
	h := k.header(parent)
	if err := errorOf(k.o.Lookup(nil, &h, name, &out)); err != nil {
		return out, err
	}
	if out.NodeId == 0 {
		return out, unix.ENOENT
	}
	k.took(out.NodeId)
	return out, nil
}

// walk looks up a path; "" is the root.
func (k *kernel) walk(p string) (uint64, error) {
	id := uint64(fuse.FUSE_ROOT_ID)
	if p == "" || p == "." {
		return id, nil
	}
	for name := range strings.SplitSeq(p, "/") {
		out, err := k.lookup(id, name)
		if err != nil {
			return 0, err
		}
		id = out.NodeId
	}
	return id, nil
}

// onNode prepares a request on the object at a path.
func (k *kernel) onNode(p string, f func(id uint64) error) request {
	id, err := k.walk(p)
	if err != nil {
		return failed(err)
	}
	return func() error { return f(id) }
}

// onName prepares a request on a name in a directory. The kernel has looked it up as well.
func (k *kernel) onName(p string, f func(parent uint64, name string) error) request {
	id, err := k.walk(path.Dir(p))
	if err != nil {
		return failed(err)
	}
	_, err = k.lookup(id, path.Base(p))
	if err != nil && err != unix.ENOENT {
		return failed(err)
	}
	return func() error { return f(id, path.Base(p)) }
}

// made takes the reply to a request that makes an object.
func (k *kernel) made(out *fuse.EntryOut, s fuse.Status) error {
	if s == fuse.OK {
		k.took(out.NodeId)
	}
	return errorOf(s)
}

func (k *kernel) mknod(p string, mode uint32, dev uint32) request {
	return k.onName(p, func(parent uint64, name string) error {
		var out fuse.EntryOut
		return k.made(&out, k.o.Mknod(nil, &fuse.MknodIn{InHeader: k.header(parent), Mode: mode, Rdev: dev}, name, &out))
	})
}

func (k *kernel) mkdir(p string, mode uint32) request {
	return k.onName(p, func(parent uint64, name string) error {
		var out fuse.EntryOut
		return k.made(&out, k.o.Mkdir(nil, &fuse.MkdirIn{InHeader: k.header(parent), Mode: mode}, name, &out))
	})
}

func (k *kernel) symlink(target, p string) request {
	return k.onName(p, func(parent uint64, name string) error {
		var out fuse.EntryOut
		h := k.header(parent)
		return k.made(&out, k.o.Symlink(nil, &h, target, name, &out))
	})
}

func (k *kernel) link(old, p string) request {
	id, err := k.walk(old)
	if err != nil {
		return failed(err)
	}
	return k.onName(p, func(parent uint64, name string) error {
		var out fuse.EntryOut
		return k.made(&out, k.o.Link(nil, &fuse.LinkIn{InHeader: k.header(parent), Oldnodeid: id}, name, &out))
	})
}

func (k *kernel) unlink(p string) request {
	return k.onName(p, func(parent uint64, name string) error {
		h := k.header(parent)
		return errorOf(k.o.Unlink(nil, &h, name))
	})
}

func (k *kernel) rmdir(p string) request {
	return k.onName(p, func(parent uint64, name string) error {
		h := k.header(parent)
		return errorOf(k.o.Rmdir(nil, &h, name))
	})
}

func (k *kernel) rename(from, to string, flags uint32) request {
	newDir, err := k.walk(path.Dir(to))
	if err != nil {
		return failed(err)
	}
	if _, err := k.lookup(newDir, path.Base(to)); err != nil && err != unix.ENOENT {
		return failed(err)
	}
	return k.onName(from, func(parent uint64, name string) error {
		in := fuse.RenameIn{InHeader: k.header(parent), Newdir: newDir, Flags: flags}
		return errorOf(k.o.Rename(nil, &in, name, path.Base(to)))
	})
}

func (k *kernel) setattr(p string, in fuse.SetAttrInCommon) request {
	return k.onNode(p, func(id uint64) error {
		in.InHeader = k.header(id)
		var out fuse.AttrOut
		return errorOf(k.o.SetAttr(nil, &fuse.SetAttrIn{SetAttrInCommon: in}, &out))
	})
}

func (k *kernel) chmod(p string, mode uint32) request {
	return k.setattr(p, fuse.SetAttrInCommon{Valid: fuse.FATTR_MODE, Mode: mode})
}

func (k *kernel) chown(p string, uid, gid uint32) request {
	return k.setattr(p, fuse.SetAttrInCommon{Valid: fuse.FATTR_UID | fuse.FATTR_GID, Owner: fuse.Owner{Uid: uid, Gid: gid}})
}

func (k *kernel) truncate(p string, size uint64) request {
	return k.setattr(p, fuse.SetAttrInCommon{Valid: fuse.FATTR_SIZE, Size: size})
}

func (k *kernel) write(p string, off uint64, data string) request {
	return k.onNode(p, func(id uint64) error { return k.writeNode(id, off, data) })
}

func (k *kernel) writeNode(id, off uint64, data string) error {
	in := fuse.WriteIn{InHeader: k.header(id), Offset: off, Size: uint32(len(data))}
	n, s := k.o.Write(nil, &in, []byte(data))
	if s == fuse.OK && int(n) != len(data) {
		return unix.EIO
	}
	return errorOf(s)
}

func (k *kernel) readNode(id, off uint64, size int) (string, error) {
	buf := make([]byte, size)
	in := fuse.ReadIn{InHeader: k.header(id), Offset: off, Size: uint32(size)}
	r, s := k.o.Read(nil, &in, buf)
	if s != fuse.OK {
		return "", errorOf(s)
	}
	b, s := r.Bytes(buf)
	return string(b), errorOf(s)
}

func (k *kernel) read(p string) (string, error) {
	id, err := k.walk(p)
	if err != nil {
		return "", err
	}
	return k.readNode(id, 0, 1<<20)
}

func (k *kernel) setxattr(p, name, value string) request {
	return k.onNode(p, func(id uint64) error {
		return errorOf(k.o.SetXAttr(nil, &fuse.SetXAttrIn{InHeader: k.header(id), Size: uint32(len(value))}, name, []byte(value)))
	})
}

func (k *kernel) removexattr(p, name string) request {
	return k.onNode(p, func(id uint64) error {
		h := k.header(id)
		return errorOf(k.o.RemoveXAttr(nil, &h, name))
	})
}

func (k *kernel) getattr(id uint64) (fuse.Attr, error) {
	var out fuse.AttrOut
	s := k.o.GetAttr(nil, &fuse.GetAttrIn{InHeader: k.header(id)}, &out)
	return out.Attr, errorOf(s)
}

// dirent is one entry of a listing; entry is zero for "." and "..".
type dirent struct {
	name  string
	ino   uint64
	off   uint64
	typ   uint32
	entry fuse.EntryOut
}

// readdir makes one READDIRPLUS request.
func (k *kernel) readdir(id, offset uint64, size int) ([]dirent, error) {
	buf := make([]byte, size)
	list := fuse.NewDirEntryList(buf, offset)
	in := fuse.ReadIn{InHeader: k.header(id), Offset: offset, Size: uint32(size)}
	if err := errorOf(k.o.ReadDirPlus(nil, &in, list)); err != nil {
		return nil, err
	}
	entries, err := parseDirents(list.Bytes(), withAttributes)
	for _, e := range entries {
		k.took(e.entry.NodeId)
	}
	return entries, err
}

// parseDirents reads the answer to READDIR or READDIRPLUS.
func parseDirents(b []byte, form listingForm) (out []dirent, err error) {
	for len(b) > 0 {
		var e dirent
		if form == withAttributes {
			if err := binary.Read(bytes.NewReader(b), binary.NativeEndian, &e.entry); err != nil {
				return nil, err
			}
			b = b[direntPlusSize-direntSize:]
		}
		e.ino, e.off = binary.NativeEndian.Uint64(b), binary.NativeEndian.Uint64(b[8:])
		length := int(binary.NativeEndian.Uint32(b[16:]))
		e.typ, e.name = binary.NativeEndian.Uint32(b[20:]), string(b[direntSize:direntSize+length])
		out = append(out, e)
		b = b[direntSize+(length+7)&^7:]
	}
	return out, nil
}

// list reads a whole directory, in parts of that size.
func (k *kernel) list(id uint64, size int) ([]dirent, error) {
	var all []dirent
	for offset := uint64(0); ; {
		part, err := k.readdir(id, offset, size)
		if err != nil || len(part) == 0 {
			return all, err
		}
		all = append(all, part...)
		offset = part[len(part)-1].off
	}
}

// mknodIn makes a file in a directory of which only the node is known.
func (k *kernel) mknodIn(dir uint64, name string) error {
	var out fuse.EntryOut
	in := fuse.MknodIn{InHeader: k.header(dir), Mode: unix.S_IFREG | 0o644}
	return k.made(&out, k.o.Mknod(nil, &in, name, &out))
}

// unlinkIn removes a name from a directory of which only the node is known.
func (k *kernel) unlinkIn(dir uint64, name string) error {
	h := k.header(dir)
	return errorOf(k.o.Unlink(nil, &h, name))
}
