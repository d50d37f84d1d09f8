package conn

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs/conn/wire"
)

// largestOther is the most data that a reply has, other than that of READ, READDIR and GETXATTR: struct fuse_ioctl_out with
// its buffer.
const largestOther = 64 << 10

// Device is the kernel's end of replies: internal/host.Device is one.
type Device interface {
	// Write sends one reply.
	Write(reply []byte) error
}

// WorkerConfig is what the workers of a connection have in common.
type WorkerConfig struct {
	FileSystem FileSystem
	Device     Device
	// Rest decodes the requests that the worker does not decode; nil: there are none.
	Rest *fuse.ProtocolServer
	// MaxWrite is the largest READ and WRITE in bytes.
	MaxWrite int
	// RestOnly passes all requests to Rest, which can log them.
	RestOnly bool
}

// Worker serves the requests that one reader takes, one at a time. It decodes the frequent kinds of requests itself, into
// buffers that it keeps. go-fuse decodes the others.
type Worker struct {
	WorkerConfig
	fs     FileSystem
	gate   *Gate
	counts *counter
	log    *zap.Logger

	in      []byte
	out     []byte // a reply: its header ends at the page border where the data begins
	maxData int    // of a reply, in bytes
}

func (c *Conn) newWorker(cfg WorkerConfig) *Worker {
	maxData := max(cfg.MaxWrite, largestOther)
	room := largestOther
	if cfg.RestOnly { // large replies are made by go-fuse too
		room = maxData
	}
	return &Worker{
		WorkerConfig: cfg, fs: cfg.FileSystem, gate: cfg.FileSystem.Gate(), counts: &c.counts, log: c.log,
		in:      make([]byte, maxData+wire.PageSize), // more than the kernel requires: fuse_dev_do_read
		out:     wire.ReplyBuffer(room),
		maxData: maxData,
	}
}

// NewWorker returns a worker. [Mount.Serve] makes those of a mount itself.
func (c *Conn) NewWorker(cfg WorkerConfig) *Worker { return c.newWorker(cfg) }

// hasRoom reports whether a reply may have so much data, and makes room for it. Most readers never need much, and what lies
// in the heap brings the next garbage collection nearer.
func (w *Worker) hasRoom(size uint32) bool {
	if int(size) > w.maxData {
		return false
	}
	if int(size) > len(w.out)-wire.OutHeaderSize {
		w.out = wire.ReplyBuffer(w.maxData)
	}
	return true
}

// Buffer is where the next request goes.
func (w *Worker) Buffer() []byte { return w.in }

// Serve answers the request in the first n bytes of the buffer.
func (w *Worker) Serve(n int) {
	if n < wire.InHeaderSize {
		w.log.Error("a request that is too short", zap.Int("bytes", n))
		return
	}
	h := wire.Header(w.in)
	size, status, replies := w.answer(h, w.in[:n])
	if !replies {
		return
	}
	if status != fuse.OK {
		size = 0
	}
	wire.PutHeader(w.out, h.Unique, status, size)
	w.send(wire.OutHeaderSize + size)
}

// send writes a reply. ENOENT: the kernel has given the request up meanwhile (fuse_dev_do_write). ENODEV: the connection has
// ended, which the next read reports.
func (w *Worker) send(size int) {
	if err := w.Device.Write(w.out[:size]); err != nil && err != unix.ENOENT && err != unix.ENODEV {
		w.log.Error("cannot answer a request", zap.Error(err))
	}
}

// answer serves one request and returns how many bytes of data the reply has after its header. replies is false if there is
// no reply left to write.
func (w *Worker) answer(h *fuse.InHeader, in []byte) (size int, status fuse.Status, replies bool) {
	defer func() {
		if v := recover(); v != nil {
			status, replies = logPanic(w.log, v), true
		}
	}()
	op := wire.Opcode(h.Opcode)
	switch op {
	case wire.OpInterrupt:
		return 0, fuse.ENOSYS, true // a request is finished once it has begun: the kernel need not send these
	case wire.OpSyncfs:
		w.counts.add(op, 1)
		return 0, w.fs.SyncFS(), true
	case wire.OpPoll:
		return 0, fuse.ENOSYS, true
	case wire.OpForget, wire.OpBatchForget:
		w.forget(op, in)
		return 0, fuse.OK, false
	}
	if mayChange(h, in) {
		if errno := w.gate.Enter(); errno != 0 {
			return 0, fuse.Status(errno), true
		}
		defer w.gate.Leave()
	}
	w.counts.add(op, 1)
	for failures := 1; ; failures++ {
		size, status, replies = w.serve(h, in)
		if status == fuse.OK {
			return size, status, replies
		}
		if !w.fs.Failed(failed(h, in, failures), status) {
			return 0, status, true
		}
	}
}

// failed describes a request that has failed so often.
func failed(h *fuse.InHeader, in []byte, failures int) Request {
	r := Request{Op: wire.Opcode(h.Opcode), NodeID: h.NodeId, Failures: failures}
	switch r.Op {
	case wire.OpLookup, wire.OpUnlink, wire.OpRmdir:
		r.Name = wire.Name(in, wire.InHeaderSize)
	}
	return r
}

// serve serves one request that is not about requests.
func (w *Worker) serve(h *fuse.InHeader, in []byte) (size int, status fuse.Status, replies bool) {
	if !w.RestOnly {
		if size, status, served := w.often(h, in); served {
			return size, status, true
		}
	}
	size, status = w.Rest.HandleRequest([][]byte{in}, [][]byte{w.out})
	if status == fuse.OK && size > 0 {
		wire.SetLength(w.out, size)
		w.send(size)
	}
	return 0, status, false
}

// often serves the requests that speed depends on.
func (w *Worker) often(h *fuse.InHeader, in []byte) (size int, status fuse.Status, served bool) {
	switch op := wire.Opcode(h.Opcode); op {
	case wire.OpLookup:
		out := wire.Result[fuse.EntryOut](w.out)
		return wire.SizeOf(out), w.fs.Lookup(nil, h, wire.NameString(in, wire.InHeaderSize), out), true
	case wire.OpGetattr:
		if a := wire.Argument[fuse.GetAttrIn](in); a != nil {
			out := wire.Result[fuse.AttrOut](w.out)
			return wire.SizeOf(out), w.fs.GetAttr(nil, a, out), true
		}
	case wire.OpSetattr:
		if a := wire.Argument[fuse.SetAttrIn](in); a != nil {
			out := wire.Result[fuse.AttrOut](w.out)
			return wire.SizeOf(out), w.fs.SetAttr(nil, a, out), true
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
	case wire.OpCreate:
		if a := wire.Argument[fuse.CreateIn](in); a != nil {
			out := wire.Result[fuse.CreateOut](w.out)
			return wire.SizeOf(out), w.fs.Create(nil, a, string(wire.Name(in, wire.SizeOf(a))), out), true
		}
	case wire.OpWrite:
		if a := wire.Argument[fuse.WriteIn](in); a != nil && len(in)-wire.SizeOf(a) >= int(a.Size) {
			out := wire.Result[fuse.WriteOut](w.out)
			out.Size, status = w.fs.Write(nil, a, in[wire.SizeOf(a):wire.SizeOf(a)+int(a.Size)])
			return wire.SizeOf(out), status, true
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

// getxattr serves both forms: a size of 0 requests the length of the value.
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

func (w *Worker) forget(op wire.Opcode, in []byte) {
	if op == wire.OpForget {
		if a := wire.Argument[fuse.ForgetIn](in); a != nil {
			w.counts.add(wire.OpForget, 1)
			w.fs.Forget(a.NodeId, a.Nlookup)
		}
		return
	}
	if list := wire.Forgets(in); len(list) > 0 {
		w.counts.add(wire.OpForget, uint64(len(list)))
		w.fs.ForgetAll(list)
	}
}

// logPanic turns a panic while a request is served into the failure of that request.
func logPanic(log *zap.Logger, v any) fuse.Status {
	log.Error("panic while serving a request", zap.Any("panic", v), zap.Stack("stack"))
	return fuse.EIO
}
