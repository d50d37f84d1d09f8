package conn

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs/conn/wire"
	"github.com/fuse-overlay/fuse-overlay/fs/journal"
)

// maxOtherReply is the most data that a reply has, except those of READ, READDIR and GETXATTR:
// struct fuse_ioctl_out with its buffer.
const maxOtherReply = 64 << 10

// Device takes replies. internal/host.Device is one.
type Device interface {
	// Write sends one reply.
	Write(reply []byte) error
}

// WorkerConfig is what the workers of a connection have in common.
type WorkerConfig struct {
	Handler Handler
	Device  Device
	// Rest decodes the requests that the worker does not decode; nil: there are none.
	Rest *fuse.ProtocolServer
	// MaxWrite is the largest READ and WRITE in bytes.
	MaxWrite int
	// RestOnly passes all requests to Rest, which can log them.
	RestOnly bool
	// Journal stores the requests; nil: it does not.
	Journal *journal.Journal

	resent *resent
}

// Worker serves the requests that one reader takes, one at a time. It decodes frequent kinds of
// requests itself, into its own buffers. go-fuse decodes the others.
type Worker struct {
	WorkerConfig
	conn *Conn
	fs   Handler
	gate *Gate

	in      []byte
	out     []byte // a reply: its header ends at the page border where the data begins
	maxData int    // of a reply, in bytes

	area *journal.Area // where in lies; nil: in is memory of this process
	ids  []uint64      // room for the IDs of a reply
}

// NewWorker returns a worker. [Mount.Serve] makes those of a mount itself.
func (c *Conn) NewWorker(cfg WorkerConfig) *Worker {
	maxData := max(cfg.MaxWrite, maxOtherReply)
	room := maxOtherReply
	if cfg.RestOnly { // go-fuse makes the large replies too
		room = maxData
	}
	w := &Worker{
		WorkerConfig: cfg, conn: c, fs: cfg.Handler, gate: cfg.Handler.Gate(),
		out:     wire.ReplyBuffer(room),
		maxData: maxData,
	}
	size := maxData + wire.PageSize // more than the kernel requires: fuse_dev_do_read
	if cfg.Journal != nil {
		w.area = cfg.Journal.Take()
	}
	if w.area != nil && len(w.area.Request) >= size {
		w.in = w.area.Request[:size]
	} else {
		w.in = make([]byte, size)
	}
	return w
}

// hasRoom reports whether a reply may have so much data, and makes room for it. Most readers never
// need the room, and memory of the heap brings the next collection of garbage nearer.
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
		w.conn.log.Error("a request that is too short", zap.Int("bytes", n))
		return
	}
	h := wire.Header(w.in)
	op, start := wire.Opcode(h.Opcode), now()
	if w.area != nil {
		defer w.area.Done()
		w.markRequest(h, w.in[:n])
	}
	size, status, replies := w.answer(h, w.in[:n])
	if replies {
		if status != fuse.OK {
			size = 0
		} else if w.area != nil {
			w.grant(op, size)
		}
		wire.PutHeader(w.out, h.Unique, status, size)
		w.send(wire.OutHeaderSize + size)
	}
	if op != wire.OpForget && op != wire.OpBatchForget {
		w.conn.latencies.add(op, now()-start)
	}
}

// send writes a reply. ENOENT: the kernel no longer waits for the reply (fuse_dev_do_write).
// ENODEV: the connection has ended, which the next read reports.
func (w *Worker) send(size int) {
	err := w.Device.Write(w.out[:size])
	if err != nil && err != unix.ENOENT && err != unix.ENODEV {
		w.conn.log.Error("cannot answer a request", zap.Error(err))
	}
}

// answer serves one request. It returns the size of the reply's data after the header. replies is
// false if there is no reply left to write.
func (w *Worker) answer(h *fuse.InHeader, in []byte) (size int, status fuse.Status, replies bool) {
	defer func() {
		if v := recover(); v != nil {
			status, replies = w.conn.Panicked(v), true
		}
	}()
	op := wire.Opcode(h.Opcode)
	switch op {
	case wire.OpInterrupt:
		return 0, fuse.ENOSYS, true // a request that has begun is finished: the kernel sends no more of these
	case wire.OpPoll:
		return 0, fuse.ENOSYS, true
	case wire.OpSyncfs:
		w.conn.counts.add(op, 1)
		return 0, w.fs.SyncFS(), true
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
	w.conn.counts.add(op, 1)
	for failures := 1; ; failures++ {
		if h.Unique&resendBit != 0 && w.wasExchanged(h, in) {
			return 0, fuse.OK, true
		}
		size, status, replies = w.serve(h, in)
		if status != fuse.OK && h.Unique&resendBit != 0 {
			size, status, replies = w.judge(h, in, status)
		}
		if status == fuse.OK {
			return size, status, replies
		}
		if !w.fs.Failed(failedRequest(h, in, failures), status) {
			return 0, status, true
		}
	}
}

func failedRequest(h *fuse.InHeader, in []byte, failures int) Request {
	r := Request{Op: wire.Opcode(h.Opcode), NodeID: h.NodeId, Failures: failures}
	switch r.Op {
	case wire.OpLookup, wire.OpUnlink, wire.OpRmdir:
		r.Name = wire.Name(in, wire.InHeaderSize)
	}
	return r
}

// serve serves one request, except those about other requests.
func (w *Worker) serve(h *fuse.InHeader, in []byte) (size int, status fuse.Status, replies bool) {
	if !w.RestOnly {
		if size, status, served := w.serveFrequent(h, in); served {
			return size, status, true
		}
	}
	size, status = w.Rest.HandleRequest([][]byte{in}, [][]byte{w.out})
	if status == fuse.OK && size > 0 {
		// go-fuse returns the error of a request in the reply alone.
		if failed := wire.Status(w.out); failed != fuse.OK && h.Unique&resendBit != 0 {
			return 0, failed, false
		}
		wire.SetLength(w.out, size)
		if w.area != nil {
			w.grant(wire.Opcode(h.Opcode), size-wire.OutHeaderSize)
		}
		w.send(size)
	}
	return 0, status, false
}

func (w *Worker) forget(op wire.Opcode, in []byte) {
	if op == wire.OpForget {
		if a := wire.Argument[fuse.ForgetIn](in); a != nil {
			w.conn.counts.add(wire.OpForget, 1)
			count := a.Nlookup
			a.Nlookup = 0
			w.fs.Forget(a.NodeId, count)
		}
		return
	}
	list := wire.Forgets(in)
	if len(list) == 0 {
		return
	}
	w.conn.counts.add(wire.OpForget, uint64(len(list)))
	if w.area == nil {
		w.fs.ForgetAll(list)
		return
	}
	for i, f := range list {
		list[i].Lookups = 0 // first: a kill leaves a reference too many, never one too few
		w.fs.Forget(f.NodeID, f.Lookups)
	}
}
