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

// Open answers OPEN: without passthrough by ENOSYS, where the kernel then opens by itself and keeps its pages
// (FUSE_NO_OPEN_SUPPORT).
func (o *Overlay) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	o.counts.add(opOpen)
	switch {
	case o.policy.passthrough:
		n, err := o.node(in.NodeId)
		if err == nil {
			err = o.mayOpen(n, in.Flags)
		}
		if err == nil {
			err = o.answerOpen(n, in.NodeId, in.Flags, killer(&in.InHeader, in.Mode&fuse.OPEN_KILL_SUIDGID), false, out)
		}
		return o.status("open", err)
	case o.cfg.LayersChange:
		n, err := o.node(in.NodeId)
		if err == nil {
			err = o.mayOpen(n, in.Flags)
		}
		if err == nil {
			err = o.openAnew(n, in.Flags, out)
		}
		return o.status("open", err)
	case o.policy.noOpen:
		return fuse.ENOSYS
	}
	n, err := o.node(in.NodeId)
	if err == nil {
		err = o.mayOpen(n, in.Flags)
	}
	out.OpenFlags = o.keepCache()
	return o.status("open", err)
}

// Release answers RELEASE. Without passthrough an open file is not known here.
func (o *Overlay) Release(_ <-chan struct{}, in *fuse.ReleaseIn) {
	o.counts.add(opRelease)
	if o.policy.passthrough {
		o.closed(in.NodeId)
	}
	if h := o.pins.remove(in.Fh); h != nil {
		o.handles.Release(h)
	}
}

// Flush answers FLUSH with ENOSYS: the kernel writes its pages back at close and asks no more.
func (o *Overlay) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status {
	o.counts.add(opFlush)
	return fuse.ENOSYS
}

// bulk is the size, in bytes, of a request for a part of a large file. Another should not have to wait for such a READ.
const bulk = 128 << 10

// Read answers READ.
func (o *Overlay) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	n, status := o.read(in, buf)
	if status != fuse.OK {
		return nil, status
	}
	return fuse.ReadResultData(buf[:n]), fuse.OK
}

// read fills buf as far as there is data.
func (o *Overlay) read(in *fuse.ReadIn, buf []byte) (int, fuse.Status) {
	o.counts.add(opRead)
	n, err := o.node(in.NodeId)
	if err != nil {
		return 0, o.status("read", err)
	}
	switch {
	case len(buf) >= bulk:
		o.slow()
	case in.Offset == 0 && !o.cfg.LayersChange:
		if got, ok := o.next.take(n, buf); ok {
			return got, fuse.OK
		}
	}
	if !readsDirectly(in) {
		n.willRead()
		buf = buf[:o.growing.readable(n, int64(in.Offset), len(buf))]
	}
	if got, done := o.readQuietly(n, in, buf); done {
		return got, fuse.OK
	}
	h, err := o.readable(n, in.NodeId)
	if err != nil {
		return 0, o.status("read", err)
	}
	defer o.handles.Release(h)
	if data := h.Value.data; data != nil {
		buf = buf[:data.Within(int64(in.Offset), len(buf))]
	}
	got, err := h.Value.file.Pread(buf, int64(in.Offset))
	return got, o.status("read", err)
}

// Write answers WRITE; the first one to a lower file copies it up.
func (o *Overlay) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	o.counts.add(opWrite)
	n, err := o.node(in.NodeId)
	if err != nil {
		return 0, o.status("write", err)
	}
	skip, err := o.mayWrite(n, in, data)
	if err != nil {
		return 0, o.status("write", err)
	}
	h, err := o.writable(n)
	if err != nil {
		return 0, o.status("write", err)
	}
	defer o.handles.Release(h)
	if in.WriteFlags&fuse.WRITE_KILL_SUIDGID != 0 { // first, as file_remove_privs: no new data behind an old suid
		if err := o.killSuid(n, &in.InHeader); err != nil {
			return 0, o.status("write", err)
		}
	}
	done, err := o.writeData(n, h, in, data[skip:], int64(in.Offset)+int64(skip))
	if done += skip; err != nil && done == 0 {
		return 0, o.status("write", err)
	}
	if isDirect(in) {
		if err := o.wroteDirectly(h, in); err != nil {
			return 0, o.status("write", err)
		}
	}
	o.writeOut(n, int64(in.Offset), int64(done))
	return uint32(done), fuse.OK // a short count; the kernel asks again for the rest and is told the error then
}

// writeData puts data of a WRITE into the file at off.
func (o *Overlay) writeData(n *Node, h *held, in *fuse.WriteIn, data []byte, off int64) (int, error) {
	switch {
	case isDirect(in):
		return o.writeDirectly(n, h, data, off)
	case in.WriteFlags&fuse.WRITE_CACHE == 0 && n.flags.Load()&direct == 0:
		return h.Value.pwrite(data, off)
	case o.writesBack():
		return o.writeBack(n, h, data, off)
	}
	return o.growing.store(n, h, data, off)
}

// writable returns n's object opened for writing, in the upper.
func (o *Overlay) writable(n *Node) (*held, error) {
	if err := o.copyUp(n, wholeFile); err != nil {
		return nil, err
	}
	return o.file(n, useWrite)
}

// Fsync answers FSYNC. What lies in a lower is durable.
func (o *Overlay) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	o.counts.add(opFsync)
	n, err := o.node(in.NodeId)
	if err != nil {
		return o.status("fsync", err)
	}
	if !o.syncs() || !n.inUpper() {
		return fuse.OK
	}
	if n.place().data != nil {
		return o.status("fsync", o.syncOwn(n))
	}
	h, err := o.file(n, useRead)
	if err != nil {
		return o.status("fsync", err)
	}
	defer o.handles.Release(h)
	return o.status("fsync", o.syncData(h, in.FsyncFlags&fsyncDataOnly != 0))
}

// syncs reports whether what applications have written is made durable when they ask for that.
func (o *Overlay) syncs() bool { return !o.cfg.Volatile && !o.cfg.NoFsync }

// syncData makes a file of the upper durable.
func (o *Overlay) syncData(h *held, dataOnly bool) error {
	o.slow()
	if dataOnly {
		return h.Value.file.Datasync()
	}
	return h.Value.file.Sync()
}

// syncOwn makes the attributes of a file durable whose data is elsewhere.
func (o *Overlay) syncOwn(n *Node) error {
	o.slow()
	file, err := o.ownFile(n, useRead)
	if err != nil {
		return err
	}
	defer file.Close()
	return file.Sync()
}

// fsyncDataOnly is FUSE_FSYNC_FDATASYNC.
const fsyncDataOnly = 1

// FsyncDir answers FSYNCDIR.
func (o *Overlay) FsyncDir(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	o.counts.add(opFsyncdir)
	n, err := o.node(in.NodeId)
	if err != nil {
		return o.status("fsyncdir", err)
	}
	if !o.syncs() || !n.inUpper() {
		return fuse.OK
	}
	o.slow()
	d := o.open(n)
	defer d.release()
	up, err := d.upper()
	if err == unix.ENOENT && n.place().gone {
		return fuse.OK
	}
	if err == nil {
		err = up.Sync()
	}
	return o.status("fsyncdir", err)
}
