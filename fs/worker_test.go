package fs

import (
	"encoding/binary"
	"slices"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/fuse-overlay/fuse-overlay/fs/conn"
	"github.com/fuse-overlay/fuse-overlay/fs/conn/wire"
)

// message makes a request as it comes from the kernel: the fixed part and what follows it.
func message[T any](op wire.Opcode, fixed T, rest string) []byte {
	b := append(slices.Clone(wire.Bytes(&fixed)), rest...)
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	binary.NativeEndian.PutUint32(b[4:], uint32(op))
	return b
}

// unanswered is no status that a reply has.
const unanswered = fuse.Status(-1)

// replied is a device that keeps the status of the last reply.
type replied struct{ status fuse.Status }

func (r *replied) Write(reply []byte) error {
	r.status = fuse.Status(-int32(binary.NativeEndian.Uint32(reply[4:]))) // struct fuse_out_header: len, error
	return nil
}

// worker is a reader of the connection that serves messages of a test.
type worker struct {
	*conn.Worker
	device replied
}

func (s *site) newWorker() *worker {
	w := &worker{}
	w.Worker = s.o.conn.NewWorker(conn.WorkerConfig{Handler: s.o, Device: &w.device, MaxWrite: 1 << 20})
	return w
}

// serve serves a message and returns the status of the reply; [unanswered] if there is none.
func (w *worker) serve(msg []byte) fuse.Status {
	copy(w.Buffer(), msg)
	w.device.status = unanswered
	w.Serve(len(msg))
	return w.device.status
}
