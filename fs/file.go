package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/internal/owner"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// file returns n's object opened for I/O, to be released. For writing n must have been copied up.
func (o *Overlay) file(n *Node, u use) (*held, error) {
	for {
		p := n.place()
		if p.layer == stack.Upper && p.data == nil {
			if h := o.handles.Acquire(n.handleKey(stack.Upper, useWrite)); h != nil {
				return h, nil
			}
		}
		if u == useRead {
			if h := o.handles.Acquire(n.handleKey(p.layer, useRead)); h != nil {
				return h, nil
			}
		}
		var file *sys.File
		var there bool
		var err error
		appends := false
		if p.data != nil {
			file, there, err = o.openData(n, &p)
		} else {
			file, there, err = o.openFile(n, &p, u)
		}
		if there && err == unix.EPERM && u == useWrite && p.layer == stack.Upper {
			file, there, err = o.openPlace(n, &p, unix.O_RDWR|unix.O_APPEND) // an earlier version, or another program, made it append-only
			appends = err == nil
		}
		if !there {
			continue
		}
		if err != nil {
			return nil, err
		}
		h := o.keepHandle(n, p.layer, u, handle{file: file, data: p.data, appends: appends})
		if now := n.place(); now.layer != p.layer || now.data != p.data { // copied up meanwhile: nobody will look for it again
			o.handles.Evict(n.handleKey(p.layer, u))
		}
		return h, nil
	}
}

// ownFile opens n's object itself, also where its data is elsewhere. The caller closes it.
func (o *Overlay) ownFile(n *Node, u use) (*sys.File, error) {
	for {
		p := n.place()
		if file, there, err := o.openFile(n, &p, u); there {
			return file, err
		}
	}
}

func openFlags(u use) int {
	if u == useWrite {
		return unix.O_RDWR
	}
	return unix.O_RDONLY
}

// openFile opens the object that lies at p; there is false if n does not. Precondition: none of n's locks is held.
func (o *Overlay) openFile(n *Node, p *place, u use) (file *sys.File, there bool, err error) {
	if n.kind != unix.S_IFREG {
		return nil, true, unix.EINVAL
	}
	file, there, err = o.openPlace(n, p, openFlags(u))
	if there && err == unix.EACCES && p.layer == stack.Upper {
		file, err = o.openStubborn(n, u)
	}
	return file, there, err
}

// openPlace opens the object that lies at p; there is false if n does not, or not any more.
func (o *Overlay) openPlace(n *Node, p *place, flags int) (file *sys.File, there bool, err error) {
	there, err = o.at(n, p, func(r owner.Ref) (err error) {
		if p.layer == stack.Upper && o.stack.ReadsQuietly() {
			if file, err = r.OpenFile(flags | unix.O_NOATIME); err != unix.EPERM { // what others than the owner get
				return err
			}
		}
		file, err = r.OpenFile(flags)
		return err
	})
	if !there && file != nil {
		file.Close()
	}
	return file, there && !o.lost(n, p, err), err
}

// openData opens what has the data of the file at p; there is false if n does not lie there.
func (o *Overlay) openData(n *Node, p *place) (file *sys.File, there bool, err error) {
	file, err = o.stack.OpenData(p.data)
	if there = n.place() == *p; !there && err == nil {
		file.Close()
	}
	return file, there, err
}

// openStubborn opens a file whose mode does not let its owner: the kernel has checked the caller when it opened the file,
// perhaps before the mode was changed. For a daemon without CAP_DAC_OVERRIDE, on files of its own.
func (o *Overlay) openStubborn(n *Node, u use) (*sys.File, error) {
	n.upMu.Lock() // against a chmod meanwhile
	defer n.upMu.Unlock()
	var file *sys.File
	err := o.with(n, func(shown owner.Ref) error {
		r := shown.Inode()
		if file != nil { // of an earlier round
			file.Close()
			file = nil
		}
		var st sys.Stat
		if err := r.Stat(&st); err != nil {
			return err
		}
		if err := r.Chmod(st.Mode&0o7777 | 0o600); err != nil {
			return unix.EACCES
		}
		var err error
		file, err = r.OpenFile(openFlags(u))
		if back := r.Chmod(st.Mode & 0o7777); err == nil && back != nil {
			file.Close()
			err = back
		}
		return err
	})
	return file, err
}

// readQuietly is a READ through a file that was opened with O_NOATIME. done is false where there is no difference, or it cannot
// be had.
func (o *Overlay) readQuietly(n *Node, in *fuse.ReadIn, buf []byte) (got int, done bool) {
	p := n.place()
	if in.Flags&unix.O_NOATIME == 0 || p.layer != stack.Upper || p.data != nil || o.cfg.AccessTimes.None() {
		return 0, false
	}
	file, there, err := o.openPlace(n, &p, unix.O_RDONLY|unix.O_NOATIME)
	if !there || err != nil {
		return 0, false
	}
	defer file.Close()
	got, err = file.Pread(buf, int64(in.Offset))
	return got, err == nil
}
