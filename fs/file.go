package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/internal/owner"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// file returns n's object opened for I/O, to be released. For writing, n must have been copied up.
func (a *access) file(n *Node, u purpose) (*held, error) {
	for {
		p := n.place()
		if p.layer == stack.Upper && p.data == nil {
			if h := a.handles.Acquire(n.handleKey(stack.Upper, forWriting)); h != nil {
				return h, nil
			}
		}
		if u == forReading {
			if h := a.handles.Acquire(n.handleKey(p.layer, forReading)); h != nil {
				return h, nil
			}
		}
		var file *sys.File
		var there bool
		var err error
		appends := false
		if p.data != nil {
			file, there, err = a.openData(n, &p)
		} else {
			file, there, err = a.openFile(n, &p, u)
		}
		if there && err == unix.EPERM && u == forWriting && p.layer == stack.Upper {
			// An earlier version, or another program, has made the inode append-only.
			file, there, err = a.openPlace(n, &p, unix.O_RDWR|unix.O_APPEND)
			appends = err == nil
		}
		if !there {
			continue
		}
		if err != nil {
			return nil, err
		}
		h := a.keepHandle(n, p.layer, u, handle{file: file, data: p.data, appends: appends})
		if now := n.place(); now.layer != p.layer || now.data != p.data {
			// Copied up meanwhile: no request will look for it again.
			a.handles.Evict(n.handleKey(p.layer, u))
		}
		return h, nil
	}
}

// ownFile opens n's object itself, even if its data is elsewhere. The caller closes it.
func (a *access) ownFile(n *Node, u purpose) (*sys.File, error) {
	for {
		p := n.place()
		if file, there, err := a.openFile(n, &p, u); there {
			return file, err
		}
	}
}

func openFlags(u purpose) int {
	if u == forWriting {
		return unix.O_RDWR
	}
	return unix.O_RDONLY
}

// openFile opens the object that lies at p; there is false if n does not lie there. Precondition:
// none of n's locks is held.
func (a *access) openFile(n *Node, p *place, u purpose) (file *sys.File, there bool, err error) {
	if n.kind != unix.S_IFREG {
		return nil, true, unix.EINVAL
	}
	file, there, err = a.openPlace(n, p, openFlags(u))
	if there && err == unix.EACCES && p.layer == stack.Upper {
		file, err = a.openByChmod(n, u)
	}
	return file, there, err
}

// openPlace opens the object that lies at p; there is false if n does not lie there, or not any
// more.
func (a *access) openPlace(n *Node, p *place, flags int) (file *sys.File, there bool, err error) {
	there, err = a.at(n, p, func(r owner.Ref) (err error) {
		if p.layer == stack.Upper && a.stack.ReadsQuietly() {
			if file, err = r.OpenFile(flags | unix.O_NOATIME); err != unix.EPERM { // for the owner of the file only
				return err
			}
		}
		file, err = r.OpenFile(flags)
		return err
	})
	if !there && file != nil {
		file.Close()
	}
	return file, there && !a.lostName(n, p, err), err
}

// openData opens the file that has the data of the file at p; there is false if n does not lie
// there.
func (a *access) openData(n *Node, p *place) (file *sys.File, there bool, err error) {
	file, err = a.stack.OpenData(p.data)
	if there = n.place() == *p; !there && err == nil {
		file.Close()
	}
	return file, there, err
}

// openByChmod opens a file whose mode does not allow its owner to open it. The kernel has checked
// the caller when it opened the file, perhaps before the mode was changed. A daemon without
// CAP_DAC_OVERRIDE needs this for its own files.
func (a *access) openByChmod(n *Node, u purpose) (*sys.File, error) {
	n.upMu.Lock() // against a chmod meanwhile
	defer n.upMu.Unlock()
	var file *sys.File
	err := a.with(n, func(shown owner.Ref) error {
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

// readQuietly serves a READ through a file that was opened with O_NOATIME. done is false if that
// makes no difference, or the daemon cannot do it.
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
