package fs

import (
	"errors"
	"time"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/host"
)

// Some kernels lose appended data on a FUSE mount without the writeback cache (docs/design/mapped-append.md). A write(2) puts
// its bytes into the last page of the file before i_size covers them, and i_size grows when the WRITE has been answered. If the
// page is dirty by a shared mapping, its writeback in between zeroes all that lies beyond i_size.
//
// The probe makes exactly that happen on a FUSE file system of its own, in two processes. The
// client makes the file system, maps its only file and writes. The server, which is this process,
// answers the WRITE after the page has been written back. The client is another process because its
// threads are blocked until the server answers. Blocked threads of the server's own process could
// keep a garbage collection from stopping the world, and so the server from answering. The server
// closes the connection after lossTimeout at most. That ends every call of the client on it.

// Loss is what the probe has found.
type Loss int

// What a probe may find.
const (
	LossUnknown Loss = iota // the probe could not run
	LossNone                // appended data stays
	LossFound               // appended data is lost
)

// lossTimeout bounds the whole probe, which takes about a millisecond. It is that long for a machine with much else to do.
const lossTimeout = time.Second

// The file of the probe, and the names by which the client talks to the server.
const (
	lossFile     = "file"    // the only file
	lossAppended = "held"    // is looked up when the WRITE must have arrived: not answered before
	lossFinish   = "finish"  // is looked up when the page has been written back: the WRITE is answered first
	lossNone     = "kept"    // the appended bytes are there
	lossFound    = "zeroed"  // the appended bytes are zeros
	lossFileID   = 2         // node id
	lossOldSize  = 64        // the size of the file before the WRITE
	lossData     = "probe"   // what is appended
	lossBuffer   = 64 << 10  // room for any request
	lossMaxWrite = pageSize  //
	lossValid    = 1_000_000 // seconds for which attributes stay valid
)

// errLossClient: the client has closed the socket or the file system without an answer.
var errLossClient = errors.New("the probe's client ended early")

// ServeLossProbe receives a FUSE connection over socket and serves the probe's file system on it. It closes neither.
func ServeLossProbe(socket host.Socket) (Loss, error) {
	end := time.Now().Add(lossTimeout)
	dev, err := socket.ReceiveDevice(lossTimeout)
	if err == unix.EPROTO {
		err = errLossClient
	}
	if err != nil {
		return LossUnknown, err
	}
	defer dev.Close() // ends every call on the file system
	if err := dev.SetNonblock(); err != nil {
		return LossUnknown, err
	}
	s := &lossServer{dev: dev, in: make([]byte, lossBuffer), out: make([]byte, pageSize), size: lossOldSize}
	for s.found == LossUnknown {
		n, err := dev.TryRead(s.in)
		switch {
		case err == nil && n >= inHeader:
			err = s.answer((*fuse.InHeader)(unsafe.Pointer(&s.in[0])), s.in[:n])
		case err == unix.EAGAIN:
			if !time.Now().Before(end) {
				return LossUnknown, unix.ETIMEDOUT
			}
			_, err = dev.Wait(10 * time.Millisecond)
		case err == unix.ENODEV:
			err = errLossClient
		}
		if err != nil {
			return LossUnknown, err
		}
	}
	return s.found, nil
}

// lossServer serves the probe's file system.
type lossServer struct {
	dev     *host.Device
	in, out []byte
	size    uint64 // of the file
	append  uint64 // the WRITE that is not answered yet; 0: none
	waiting uint64 // the LOOKUP that is answered when that WRITE has arrived; 0: none
	found   Loss
}

// answer serves one request.
func (s *lossServer) answer(h *fuse.InHeader, in []byte) error {
	switch h.Opcode {
	case codeForget, codeBatchForget, codeInterrupt:
		return nil
	case codeInit:
		out := lossReply[fuse.InitOut](s)
		out.Major, out.Minor, out.MaxWrite, out.TimeGran = 7, lossMinor, lossMaxWrite, 1
		return s.reply(h.Unique, 0, sizeOf(out))
	case codeLookup:
		return s.lookup(h, string(nameIn(in, inHeader)))
	case codeGetattr:
		out := lossReply[fuse.AttrOut](s)
		out.AttrValid = lossValid
		s.attr(h.NodeId, &out.Attr)
		return s.reply(h.Unique, 0, sizeOf(out))
	case codeRead:
		clear(s.out)
		return s.reply(h.Unique, 0, int(s.size))
	case codeWrite:
		a := argument[fuse.WriteIn](in)
		if a == nil {
			return unix.EPROTO
		}
		if a.WriteFlags&fuse.WRITE_CACHE != 0 { // the writeback
			return s.wrote(h.Unique, a.Size)
		}
		s.append = h.Unique
		if s.waiting == 0 {
			return nil
		}
		return s.reply(s.waiting, unix.ENOENT, 0)
	}
	return s.reply(h.Unique, unix.ENOSYS, 0) // OPEN: the kernel opens by itself
}

// lossMinor is the version of the protocol: that of Linux 5.2, the first with fsopen(2).
const lossMinor = 31

func (s *lossServer) lookup(h *fuse.InHeader, name string) error {
	switch name {
	case lossFile:
		out := lossReply[fuse.EntryOut](s)
		out.NodeId, out.Generation, out.EntryValid, out.AttrValid = lossFileID, 1, lossValid, lossValid
		s.attr(lossFileID, &out.Attr)
		return s.reply(h.Unique, 0, sizeOf(out))
	case lossAppended:
		if s.append == 0 {
			s.waiting = h.Unique
			return nil
		}
	case lossFinish:
		s.size += uint64(len(lossData))
		if err := s.wrote(s.append, uint32(len(lossData))); err != nil {
			return err
		}
	case lossNone:
		s.found = LossNone
	case lossFound:
		s.found = LossFound
	}
	return s.reply(h.Unique, unix.ENOENT, 0)
}

func (s *lossServer) attr(id uint64, a *fuse.Attr) {
	*a = fuse.Attr{Ino: id, Mode: unix.S_IFDIR | 0o700, Nlink: 1, Blksize: pageSize}
	if id == lossFileID {
		a.Mode, a.Size = unix.S_IFREG|0o600, s.size
	}
}

func (s *lossServer) wrote(unique uint64, size uint32) error {
	out := lossReply[fuse.WriteOut](s)
	out.Size = size
	return s.reply(unique, 0, sizeOf(out))
}

// lossReply is the data of the next reply, cleared.
func lossReply[T any](s *lossServer) *T {
	out := (*T)(unsafe.Pointer(&s.out[outHeader]))
	*out = *new(T)
	return out
}

// reply answers a request by so many bytes of data, or by an error.
func (s *lossServer) reply(unique uint64, errno unix.Errno, size int) error {
	*(*fuse.OutHeader)(unsafe.Pointer(&s.out[0])) = fuse.OutHeader{
		Unique: unique, Status: -int32(errno), Length: uint32(outHeader + size),
	}
	return s.dev.Write(s.out[:outHeader+size])
}

// RunLossClient is the other process of the probe. It mounts the file system and sends the
// connection over socket. The name of its last LOOKUP reports to the server whether the appended
// bytes were lost.
func RunLossClient(socket host.Socket) error {
	dev, err := host.OpenDevice()
	if err != nil {
		return err
	}
	root, err := dev.MountDetached()
	if err == nil {
		defer root.Close()
		err = socket.SendDevice(dev)
	}
	dev.Close() // the server's is the only one from here on: when it closes it, all that follows fails
	if err != nil {
		return err
	}
	lost, err := appendIsLost(root)
	if err != nil {
		return err
	}
	name := lossNone
	if lost {
		name = lossFound
	}
	_ = root.LookUp(name)
	return nil
}

// appendIsLost appends to the file while its last page is dirty by a mapping and is written back before the WRITE is answered.
func appendIsLost(root *host.DetachedRoot) (bool, error) {
	f, err := root.Map(lossFile, pageSize)
	if err != nil {
		return false, err
	}
	defer f.Close()
	if err := f.WriteMapped(1, 0); err != nil {
		return false, err
	}
	appended := make(chan error)
	go func() {
		_, err := f.Pwrite([]byte(lossData), lossOldSize)
		appended <- err
	}()
	_ = root.LookUp(lossAppended)
	err = f.WriteBack()
	_ = root.LookUp(lossFinish)
	if err := errors.Join(err, <-appended); err != nil {
		return false, err
	}
	got := make([]byte, len(lossData))
	if _, err := f.Pread(got, lossOldSize); err != nil {
		return false, err
	}
	return string(got) != lossData, nil
}
