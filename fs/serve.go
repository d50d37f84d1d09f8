package fs

import (
	"bytes"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/host"
)

// Requests that are answered here, without go-fuse's own loop, by their numbers in linux/fuse.h.
const (
	codeLookup      = 1
	codeForget      = 2
	codeGetattr     = 3
	codeSetattr     = 4
	codeMknod       = 8
	codeMkdir       = 9
	codeUnlink      = 10
	codeRmdir       = 11
	codeOpen        = 14
	codeRead        = 15
	codeWrite       = 16
	codeRelease     = 18
	codeGetxattr    = 22
	codeInit        = 26
	codeReaddir     = 28
	codeCreate      = 35
	codeInterrupt   = 36
	codePoll        = 40
	codeBatchForget = 42
	codeReaddirplus = 44
	codeSyncfs      = 50
)

const (
	inHeader  = int(unsafe.Sizeof(fuse.InHeader{}))
	outHeader = int(unsafe.Sizeof(fuse.OutHeader{}))
	pageSize  = 4096
	// largestOther is the most that an answer holds besides the data of a READ (struct fuse_ioctl_out with its buffer).
	largestOther = 64 << 10
)

// worker serves the requests that one reader takes. What is asked often is decoded here, into the buffers that the worker
// keeps; the rest goes through go-fuse.
type worker struct {
	o    *Overlay
	dev  *host.Device
	rest *fuse.ProtocolServer
	all  bool // everything goes through go-fuse, which can log it

	in   []byte
	out  []byte // an answer: its header lies right before the page border where the data begins
	most int    // the most data that an answer may have
}

func (o *Overlay) newWorker(dev *host.Device, rest *fuse.ProtocolServer, maxWrite int, debug bool) *worker {
	most := max(maxWrite, largestOther)
	room := largestOther
	if debug { // large answers are made by go-fuse too
		room = most
	}
	return &worker{
		o: o, dev: dev, rest: rest, all: debug,
		in:  make([]byte, most+pageSize), // more than the kernel wants: fuse_dev_do_read
		out: answerBuffer(room), most: most,
	}
}

// answerBuffer is room for an answer with so much data.
func answerBuffer(size int) []byte {
	buf := make([]byte, size+2*pageSize)
	skip := pageSize - int(uintptr(unsafe.Pointer(&buf[0]))%pageSize)
	if skip < outHeader {
		skip += pageSize
	}
	return buf[skip-outHeader:]
}

// hasRoom reports whether an answer may have so much data, and makes room for it: most readers are never asked for much, and what lies
// in the heap brings the next garbage collection nearer.
func (w *worker) hasRoom(size uint32) bool {
	if int(size) > w.most {
		return false
	}
	if int(size) > len(w.out)-outHeader {
		w.out = answerBuffer(w.most)
	}
	return true
}

// Buffer is where the next request goes.
func (w *worker) Buffer() []byte { return w.in }

// Serve answers the request in the first n bytes of the buffer.
func (w *worker) Serve(n int) {
	if n < inHeader {
		w.o.log.Error("a request that is too short", zap.Int("bytes", n))
		return
	}
	h := (*fuse.InHeader)(unsafe.Pointer(&w.in[0]))
	size, status, answered := w.answer(h, w.in[:n])
	if !answered {
		return
	}
	out := (*fuse.OutHeader)(unsafe.Pointer(&w.out[0]))
	*out = fuse.OutHeader{Unique: h.Unique, Status: -int32(status)}
	if status != fuse.OK {
		size = 0
	}
	out.Length = uint32(outHeader + size)
	w.send(outHeader + size)
}

// send writes an answer. ENOENT is a request that was given up meanwhile (fuse_dev_do_write); ENODEV is told by the next read.
func (w *worker) send(size int) {
	if err := w.dev.Write(w.out[:size]); err != nil && err != unix.ENOENT && err != unix.ENODEV {
		w.o.log.Error("cannot answer a request", zap.Error(err))
	}
}

// answer serves one request and says how many bytes of data the answer has after its header; answered is false where there is
// none to be written any more.
func (w *worker) answer(h *fuse.InHeader, in []byte) (size int, status fuse.Status, answered bool) {
	defer func() {
		if v := recover(); v != nil {
			status, answered = w.o.panicked(v), true
		}
	}()
	switch h.Opcode {
	case codeInterrupt:
		return 0, fuse.ENOSYS, true // a request once begun is finished: the kernel need not tell
	case codeSyncfs:
		return 0, w.o.SyncFS(), true
	case codePoll:
		return 0, fuse.ENOSYS, true
	case codeForget, codeBatchForget:
		w.forget(h.Opcode, in)
		return 0, fuse.OK, false
	}
	if mayChange(h, in) {
		if errno := w.o.changes.enter(); errno != 0 {
			return 0, fuse.Status(errno), true
		}
		defer w.o.changes.leave()
	}
	var p patience
	for {
		size, status, answered = w.serve(h, in)
		if status == fuse.OK {
			return size, status, answered
		}
		if !w.o.outOfDescriptors(status, &p) {
			w.o.noteDamage(h, in, status)
			return 0, status, true
		}
	}
}

// serve serves one request that is not about requests.
func (w *worker) serve(h *fuse.InHeader, in []byte) (size int, status fuse.Status, answered bool) {
	if !w.all {
		if size, status, served := w.often(h, in); served {
			return size, status, true
		}
	}
	size, status = w.rest.HandleRequest([][]byte{in}, [][]byte{w.out})
	if status == fuse.OK && size > 0 {
		(*fuse.OutHeader)(unsafe.Pointer(&w.out[0])).Length = uint32(size)
		w.send(size)
	}
	return 0, status, false
}

// often serves the requests that speed depends on.
func (w *worker) often(h *fuse.InHeader, in []byte) (size int, status fuse.Status, served bool) {
	o := w.o
	switch h.Opcode {
	case codeLookup:
		out := result[fuse.EntryOut](w)
		// The name is used during the call only.
		name := nameIn(in, inHeader)
		return sizeOf(out), o.Lookup(nil, h, unsafe.String(unsafe.SliceData(name), len(name)), out), true
	case codeGetattr:
		if a := argument[fuse.GetAttrIn](in); a != nil {
			out := result[fuse.AttrOut](w)
			return sizeOf(out), o.GetAttr(nil, a, out), true
		}
	case codeSetattr:
		if a := argument[fuse.SetAttrIn](in); a != nil {
			out := result[fuse.AttrOut](w)
			return sizeOf(out), o.SetAttr(nil, a, out), true
		}
	case codeMknod:
		if a := argument[fuse.MknodIn](in); a != nil {
			out := result[fuse.EntryOut](w)
			return sizeOf(out), o.Mknod(nil, a, string(nameIn(in, sizeOf(a))), out), true
		}
	case codeMkdir:
		if a := argument[fuse.MkdirIn](in); a != nil {
			out := result[fuse.EntryOut](w)
			return sizeOf(out), o.Mkdir(nil, a, string(nameIn(in, sizeOf(a))), out), true
		}
	case codeUnlink:
		return 0, o.Unlink(nil, h, string(nameIn(in, inHeader))), true
	case codeRmdir:
		return 0, o.Rmdir(nil, h, string(nameIn(in, inHeader))), true
	case codeOpen:
		if a := argument[fuse.OpenIn](in); a != nil {
			out := result[fuse.OpenOut](w)
			return sizeOf(out), o.Open(nil, a, out), true
		}
	case codeRelease:
		if a := argument[fuse.ReleaseIn](in); a != nil {
			o.Release(nil, a)
			return 0, fuse.OK, true
		}
	case codeCreate:
		if a := argument[fuse.CreateIn](in); a != nil {
			out := result[fuse.CreateOut](w)
			return sizeOf(out), o.Create(nil, a, string(nameIn(in, sizeOf(a))), out), true
		}
	case codeWrite:
		if a := argument[fuse.WriteIn](in); a != nil && len(in)-sizeOf(a) >= int(a.Size) {
			out := result[fuse.WriteOut](w)
			out.Size, status = o.Write(nil, a, in[sizeOf(a):sizeOf(a)+int(a.Size)])
			return sizeOf(out), status, true
		}
	case codeRead, codeReaddir, codeReaddirplus:
		if a := argument[fuse.ReadIn](in); a != nil && w.hasRoom(a.Size) {
			size, status = w.read(h.Opcode, a)
			return size, status, true
		}
	case codeGetxattr:
		if a := argument[fuse.GetXAttrIn](in); a != nil && w.hasRoom(a.Size) {
			size, status = w.getxattr(h, a, nameIn(in, sizeOf(a)))
			return size, status, true
		}
	}
	return 0, 0, false
}

// read serves what answers with as much data as there is and fits.
func (w *worker) read(code uint32, a *fuse.ReadIn) (int, fuse.Status) {
	data := w.out[outHeader : outHeader+int(a.Size)]
	if code == codeRead {
		return w.o.read(a, data)
	}
	list := fuse.NewDirEntryList(data, a.Offset)
	var status fuse.Status
	if code == codeReaddir {
		status = w.o.ReadDir(nil, a, list)
	} else {
		status = w.o.ReadDirPlus(nil, a, list)
	}
	return len(list.Bytes()), status
}

// getxattr serves both forms: a size of 0 asks how long the value is.
func (w *worker) getxattr(h *fuse.InHeader, a *fuse.GetXAttrIn, attr []byte) (int, fuse.Status) {
	name := unsafe.String(unsafe.SliceData(attr), len(attr)) // used during the call only
	if a.Size > 0 {
		n, status := w.o.GetXAttr(nil, h, name, w.out[outHeader:outHeader+int(a.Size)])
		return int(n), status
	}
	out := result[fuse.GetXAttrOut](w)
	n, status := w.o.GetXAttr(nil, h, name, nil)
	if status == fuse.ERANGE {
		status = fuse.OK
	}
	out.Size = n
	return sizeOf(out), status
}

func (w *worker) forget(code uint32, in []byte) {
	if code == codeForget {
		if a := argument[fuse.ForgetIn](in); a != nil {
			w.o.Forget(a.NodeId, a.Nlookup)
		}
		return
	}
	const fixed = 8 // struct fuse_batch_forget_in: count, dummy
	if len(in) < inHeader+fixed {
		return
	}
	list := in[inHeader+fixed:]
	if n := len(list) / int(unsafe.Sizeof(forgotten{})); n > 0 {
		w.o.forgetAll(unsafe.Slice((*forgotten)(unsafe.Pointer(&list[0])), n))
	}
}

// argument is the fixed part of a request, header included; nil when the request is too short.
func argument[T any](in []byte) *T {
	if len(in) < int(unsafe.Sizeof(*new(T))) {
		return nil
	}
	return (*T)(unsafe.Pointer(&in[0]))
}

// result is the fixed part of the answer, cleared.
func result[T any](w *worker) *T {
	out := (*T)(unsafe.Pointer(&w.out[outHeader]))
	*out = *new(T)
	return out
}

func sizeOf[T any](*T) int { return int(unsafe.Sizeof(*new(T))) }

// nameIn is the name that follows the fixed part of a request, without the NUL that ends it.
func nameIn(in []byte, fixed int) []byte {
	name := in[min(fixed, len(in)):]
	if end := bytes.IndexByte(name, 0); end >= 0 {
		name = name[:end]
	}
	return name
}

// panicked turns a panic while serving into an error of the one request.
func (o *Overlay) panicked(v any) fuse.Status {
	o.log.Error("panic while serving a request", zap.Any("panic", v), zap.Stack("stack"))
	return fuse.EIO
}

// while calls f, which waits for other requests to be answered.
func (o *Overlay) while(f func()) {
	if o.pool == nil {
		f()
		return
	}
	o.pool.While(f)
}

// slow is for a request that may take long: another reader takes what comes meanwhile.
func (o *Overlay) slow() {
	if o.pool != nil {
		o.pool.Slow()
	}
}
