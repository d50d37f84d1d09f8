package conn

import (
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/fuse-overlay/fuse-overlay/fs/conn/wire"
)

// serveFrequent serves the kinds of requests that are frequent. served is false for the others, and
// for malformed ones: go-fuse refuses these.
func (w *Worker) serveFrequent(h *fuse.InHeader, in []byte) (size int, status fuse.Status, served bool) {
	switch op := wire.Opcode(h.Opcode); op {
	case wire.OpLookup:
		out := wire.Result[fuse.EntryOut](w.out)
		return wire.SizeOf(out), w.fs.Lookup(nil, h, wire.NameString(in, wire.InHeaderSize), out), true
	case wire.OpGetattr:
		if a := wire.Argument[fuse.GetAttrIn](in); a != nil {
			out := wire.Result[fuse.AttrOut](w.out)
			return wire.SizeOf(out), w.fs.GetAttr(nil, a, out), true
		}
	case wire.OpOpen:
		if a := wire.Argument[fuse.OpenIn](in); a != nil {
			out := wire.Result[fuse.OpenOut](w.out)
			return wire.SizeOf(out), w.fs.Open(nil, a, out), true
		}
	case wire.OpRelease:
		if a := wire.Argument[fuse.ReleaseIn](in); a != nil {
			w.fs.Release(nil, a)
			return 0, fuse.OK, true
		}
	case wire.OpRead, wire.OpReaddir, wire.OpReaddirplus:
		if a := wire.Argument[fuse.ReadIn](in); a != nil && w.hasRoom(a.Size) {
			size, status = w.read(op, a)
			return size, status, true
		}
	case wire.OpGetxattr:
		if a := wire.Argument[fuse.GetXAttrIn](in); a != nil && w.hasRoom(a.Size) {
			size, status = w.getxattr(h, a, wire.NameString(in, wire.SizeOf(a)))
			return size, status, true
		}
	}
	return w.serveChange(h, in)
}

// serveChange is serveFrequent for the requests that change files and directories.
func (w *Worker) serveChange(h *fuse.InHeader, in []byte) (size int, status fuse.Status, served bool) {
	switch wire.Opcode(h.Opcode) {
	case wire.OpWrite:
		if a := wire.Argument[fuse.WriteIn](in); a != nil && len(in)-wire.SizeOf(a) >= int(a.Size) {
			out := wire.Result[fuse.WriteOut](w.out)
			out.Size, status = w.fs.Write(nil, a, in[wire.SizeOf(a):wire.SizeOf(a)+int(a.Size)])
			return wire.SizeOf(out), status, true
		}
	case wire.OpSetattr:
		if a := wire.Argument[fuse.SetAttrIn](in); a != nil {
			out := wire.Result[fuse.AttrOut](w.out)
			return wire.SizeOf(out), w.fs.SetAttr(nil, a, out), true
		}
	case wire.OpCreate:
		if a := wire.Argument[fuse.CreateIn](in); a != nil {
			out := wire.Result[fuse.CreateOut](w.out)
			return wire.SizeOf(out), w.fs.Create(nil, a, string(wire.Name(in, wire.SizeOf(a))), out), true
		}
	case wire.OpMknod:
		if a := wire.Argument[fuse.MknodIn](in); a != nil {
			out := wire.Result[fuse.EntryOut](w.out)
			return wire.SizeOf(out), w.fs.Mknod(nil, a, string(wire.Name(in, wire.SizeOf(a))), out), true
		}
	case wire.OpMkdir:
		if a := wire.Argument[fuse.MkdirIn](in); a != nil {
			out := wire.Result[fuse.EntryOut](w.out)
			return wire.SizeOf(out), w.fs.Mkdir(nil, a, string(wire.Name(in, wire.SizeOf(a))), out), true
		}
	case wire.OpUnlink:
		return 0, w.fs.Unlink(nil, h, string(wire.Name(in, wire.InHeaderSize))), true
	case wire.OpRmdir:
		return 0, w.fs.Rmdir(nil, h, string(wire.Name(in, wire.InHeaderSize))), true
	}
	return 0, 0, false
}

// read serves the requests whose reply is as much data as there is and fits.
func (w *Worker) read(op wire.Opcode, a *fuse.ReadIn) (int, fuse.Status) {
	data := w.out[wire.OutHeaderSize : wire.OutHeaderSize+int(a.Size)]
	if op == wire.OpRead {
		return w.fs.ReadData(a, data)
	}
	list := fuse.NewDirEntryList(data, a.Offset)
	var status fuse.Status
	if op == wire.OpReaddir {
		status = w.fs.ReadDir(nil, a, list)
	} else {
		status = w.fs.ReadDirPlus(nil, a, list)
	}
	return len(list.Bytes()), status
}

// getxattr serves both forms of GETXATTR: a size of 0 requests the length of the value.
func (w *Worker) getxattr(h *fuse.InHeader, a *fuse.GetXAttrIn, name string) (int, fuse.Status) {
	if a.Size > 0 {
		n, status := w.fs.GetXAttr(nil, h, name, w.out[wire.OutHeaderSize:wire.OutHeaderSize+int(a.Size)])
		return int(n), status
	}
	out := wire.Result[fuse.GetXAttrOut](w.out)
	n, status := w.fs.GetXAttr(nil, h, name, nil)
	if status == fuse.ERANGE {
		status = fuse.OK
	}
	out.Size = n
	return wire.SizeOf(out), status
}
