package conn

import (
	"sync/atomic"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs/conn/wire"
	"github.com/fuse-overlay/fuse-overlay/fs/journal"
	"github.com/fuse-overlay/fuse-overlay/internal/host"
)

// resent are the requests that the process before has not answered. It may have done them.
type resent struct {
	queue [][]byte        // served first; immutable
	areas []*journal.Area // of them; immutable
	redo  []Redo          // what those change that change names; immutable
	// marks is what the process before has noted of a request, by its unique number; immutable.
	marks map[uint64]uint64
	left  atomic.Int64 // of queue, the last ones first
}

// take copies the next request to buf. 0: there is none.
func (r *resent) take(buf []byte) int {
	if r.left.Load() <= 0 {
		return 0
	}
	i := r.left.Add(-1)
	if i < 0 {
		return 0
	}
	n := copy(buf[8:], r.queue[i][8:]) + 8
	copy(buf[:8], r.queue[i][:8])
	r.queue[i] = nil
	r.areas[i].Release()
	return n
}

// resentFirst is the device of a connection that was taken over.
type resentFirst struct {
	*host.Device
	resent *resent
}

// TryRead takes a request.
func (d *resentFirst) TryRead(buf []byte) (int, error) {
	if n := d.resent.take(buf); n > 0 {
		return n, nil
	}
	return d.Device.TryRead(buf)
}

// Redo is an interrupted request that may have changed names, or have copied objects up.
type Redo struct {
	Op       wire.Opcode
	NodeID   uint64
	Name     string // in the directory NodeID; empty: the request is about NodeID itself
	NewDir   uint64 // of RENAME
	NewName  string
	Linked   uint64 // of LINK: the object
	Exchange bool
}

// redoOf reads a request. ok is false if the request changes nothing.
func redoOf(in []byte) (r Redo, ok bool) {
	h := wire.Header(in)
	if !mayChange(h, in) {
		return r, false
	}
	r = Redo{Op: wire.Opcode(h.Opcode), NodeID: h.NodeId}
	name := func(fixed int) string { return string(wire.Name(in, fixed)) }
	switch r.Op {
	case wire.OpUnlink, wire.OpRmdir, wire.OpSymlink:
		r.Name = name(wire.InHeaderSize)
	case wire.OpMknod:
		r.Name = name(wire.SizeOf[fuse.MknodIn](nil))
	case wire.OpMkdir:
		r.Name = name(wire.SizeOf[fuse.MkdirIn](nil))
	case wire.OpCreate:
		r.Name = name(wire.SizeOf[fuse.CreateIn](nil))
	case wire.OpLink:
		if a := wire.Argument[fuse.LinkIn](in); a != nil {
			r.Linked, r.Name = a.Oldnodeid, name(wire.SizeOf(a))
		}
	case wire.OpRename:
		if a := wire.Argument[wire.Rename](in); a != nil {
			r.setRename(in, a.NewDir, wire.SizeOf(a))
		}
	case wire.OpRename2:
		if a := wire.Argument[fuse.RenameIn](in); a != nil {
			r.Exchange = a.Flags&unix.RENAME_EXCHANGE != 0
			r.setRename(in, a.Newdir, wire.SizeOf(a))
		}
	}
	return r, true
}

func (r *Redo) setRename(in []byte, dir uint64, fixed int) {
	r.NewDir, r.Name = dir, string(wire.Name(in, fixed))
	r.NewName = string(wire.Name(in, fixed+len(r.Name)+1))
}

// reconcile lets the file system note what the interrupted requests have changed already.
func (m *Mount) reconcile(fsys Handler) {
	if m.resent == nil {
		return
	}
	for _, r := range m.resent.redo {
		fsys.Reconcile(r)
	}
	fsys.Reconciled()
}

// hadAttribute is the mark of a REMOVEXATTR whose attribute exists.
const hadAttribute = 1

// markRequest notes what judge has to know if this process dies before it has answered.
func (w *Worker) markRequest(h *fuse.InHeader, in []byte) {
	if w.resent != nil && h.Unique&resendBit != 0 {
		if mark := w.resent.marks[h.Unique]; mark != 0 {
			w.area.SetMark(mark)
			return
		}
	}
	switch wire.Opcode(h.Opcode) {
	case wire.OpRename2:
		if r, ok := redoOf(in); ok && r.Exchange {
			w.area.SetMark(w.fs.Child(r.NodeID, r.Name))
		}
	case wire.OpRemovexattr:
		name := string(wire.Name(in, wire.InHeaderSize))
		if _, status := w.fs.GetXAttr(nil, h, name, nil); status == fuse.OK || status == fuse.ERANGE {
			w.area.SetMark(hadAttribute)
		}
	}
}

// wasExchanged reports whether the process before has done an exchange that the kernel sends again.
// It compares what lies under the name now with what lay there before.
func (w *Worker) wasExchanged(h *fuse.InHeader, in []byte) bool {
	r, ok := redoOf(in)
	if !ok || !r.Exchange || w.resent == nil {
		return false
	}
	before := w.resent.marks[h.Unique]
	return before != 0 && w.fs.Child(r.NodeID, r.Name) != before
}

// judge returns the reply to a request that the kernel has sent again and that has failed. The
// kernel locks the directory over a change of its entries, and knew the entry when it first sent
// the request. So an entry that is gone was removed by this request, and one that exists was made
// by it.
func (w *Worker) judge(h *fuse.InHeader, in []byte, status fuse.Status) (size int, _ fuse.Status, replies bool) {
	r, _ := redoOf(in)
	switch op := wire.Opcode(h.Opcode); {
	case status == fuse.ENOENT && (op == wire.OpUnlink || op == wire.OpRmdir):
		return 0, fuse.OK, true
	case status == fuse.ENOENT && (op == wire.OpRename || op == wire.OpRename2) && w.fs.Child(r.NewDir, r.NewName) != 0:
		return 0, fuse.OK, true
	case status == fuse.Status(unix.EEXIST):
		switch op {
		case wire.OpRename2: // NOREPLACE, and the old name is gone
			if w.fs.Child(r.NodeID, r.Name) == 0 {
				return 0, fuse.OK, true
			}
		case wire.OpMkdir, wire.OpMknod, wire.OpSymlink, wire.OpLink:
			out := wire.Result[fuse.EntryOut](w.out)
			return wire.SizeOf(out), w.fs.Lookup(nil, h, r.Name, out), true
		case wire.OpCreate:
			a, out := wire.Argument[fuse.CreateIn](in), wire.Result[fuse.CreateOut](w.out)
			return wire.SizeOf(out), w.fs.CreateAgain(a, r.Name, out), true
		case wire.OpSetxattr: // XATTR_CREATE
			return 0, fuse.OK, true
		}
	case status == fuse.ENOATTR && op == wire.OpRemovexattr && w.resent != nil && w.resent.marks[h.Unique] == hadAttribute:
		return 0, fuse.OK, true
	}
	return 0, status, true
}

// grant notes the references that a reply gives the kernel. size is that of the data after the
// header.
func (w *Worker) grant(op wire.Opcode, size int) {
	w.ids = w.ids[:0]
	switch op {
	case wire.OpLookup, wire.OpMknod, wire.OpMkdir, wire.OpSymlink, wire.OpLink, wire.OpCreate, wire.OpTmpfile:
		if size >= wire.SizeOf[fuse.EntryOut](nil) {
			w.addID(wire.EntryID(w.out[wire.OutHeaderSize:]))
		}
	case wire.OpReaddirplus:
		for rest := w.out[wire.OutHeaderSize : wire.OutHeaderSize+size]; len(rest) > 0; {
			id, length := wire.DirentPlus(rest)
			w.addID(id)
			rest = rest[min(length, len(rest)):]
		}
	}
	if len(w.ids) > 0 {
		w.area.Grant(w.ids)
	}
}

func (w *Worker) addID(id uint64) {
	if id != 0 {
		w.ids = append(w.ids, id)
	}
}

// Release gives the worker's area back.
func (w *Worker) Release() {
	if w.area != nil {
		w.area.Release()
		w.area = nil
	}
}
