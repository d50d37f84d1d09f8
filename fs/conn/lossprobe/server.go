package lossprobe

import (
	"errors"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs/conn/wire"
	"github.com/fuse-overlay/fuse-overlay/internal/host"
)

// Result is what the probe has found.
type Result int

// What a probe may find.
const (
	Unknown Result = iota // the probe could not run
	None                  // appended data stays
	Found                 // appended data is lost
)

// timeout bounds the whole probe, which takes about a millisecond on an idle machine.
const timeout = time.Second

// The file of the probe, and the names by whose LOOKUP the client reports its steps.
const (
	fileName     = "file"   // the only file
	nameAppended = "held"   // after write(2): the reply waits until the WRITE has arrived
	nameFinish   = "finish" // after the writeback of the page: the WRITE is answered first
	nameNone     = "kept"   // the appended bytes are there
	nameFound    = "zeroed" // the appended bytes are zeros
	fileID       = 2        // node id
	oldSize      = 64       // the size of the file before the WRITE
	appendedData = "probe"
	requestSize  = 64 << 10 // of the largest request
	maxWrite     = wire.PageSize
	valid        = 1_000_000 // seconds for which attributes stay valid
)

// errClientEnded: the client has closed the socket or the file system without an answer.
var errClientEnded = errors.New("the probe's client ended early")

// Serve receives a FUSE connection over socket and serves the probe's file system on it. The caller
// closes socket.
func Serve(socket host.Socket) (Result, error) {
	end := time.Now().Add(timeout)
	dev, err := socket.ReceiveDevice(timeout)
	if err == unix.EPROTO {
		err = errClientEnded
	}
	if err != nil {
		return Unknown, err
	}
	defer dev.Close() // ends every call on the file system
	if err := dev.SetNonblock(); err != nil {
		return Unknown, err
	}
	s := &server{dev: dev, in: make([]byte, requestSize), out: make([]byte, wire.PageSize), size: oldSize}
	for s.found == Unknown {
		n, err := dev.TryRead(s.in)
		switch {
		case err == nil && n >= wire.InHeaderSize:
			err = s.answer(wire.Header(s.in), s.in[:n])
		case err == unix.EAGAIN:
			if !time.Now().Before(end) {
				return Unknown, unix.ETIMEDOUT
			}
			_, err = dev.Wait(10 * time.Millisecond)
		case err == unix.ENODEV:
			err = errClientEnded
		}
		if err != nil {
			return Unknown, err
		}
	}
	return s.found, nil
}

// server serves the probe's file system.
type server struct {
	dev     *host.Device
	in, out []byte
	size    uint64 // of the file
	append  uint64 // the WRITE that is not answered yet; 0: none
	waiting uint64 // the LOOKUP that is answered when that WRITE has arrived; 0: none
	found   Result
}

// answer serves one request.
func (s *server) answer(h *fuse.InHeader, in []byte) error {
	switch wire.Opcode(h.Opcode) {
	case wire.OpForget, wire.OpBatchForget, wire.OpInterrupt:
		return nil
	case wire.OpInit:
		out := wire.Result[fuse.InitOut](s.out)
		out.Major, out.Minor, out.MaxWrite, out.TimeGran = 7, minor, maxWrite, 1
		return s.reply(h.Unique, 0, wire.SizeOf(out))
	case wire.OpLookup:
		return s.lookup(h, string(wire.Name(in, wire.InHeaderSize)))
	case wire.OpGetattr:
		out := wire.Result[fuse.AttrOut](s.out)
		out.AttrValid = valid
		s.attr(h.NodeId, &out.Attr)
		return s.reply(h.Unique, 0, wire.SizeOf(out))
	case wire.OpRead:
		clear(s.out)
		return s.reply(h.Unique, 0, int(s.size))
	case wire.OpWrite:
		a := wire.Argument[fuse.WriteIn](in)
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

// minor is the version of the protocol: that of Linux 5.2, the first with fsopen(2).
const minor = 31

func (s *server) lookup(h *fuse.InHeader, name string) error {
	switch name {
	case fileName:
		out := wire.Result[fuse.EntryOut](s.out)
		out.NodeId, out.Generation, out.EntryValid, out.AttrValid = fileID, 1, valid, valid
		s.attr(fileID, &out.Attr)
		return s.reply(h.Unique, 0, wire.SizeOf(out))
	case nameAppended:
		if s.append == 0 {
			s.waiting = h.Unique
			return nil
		}
	case nameFinish:
		s.size += uint64(len(appendedData))
		if err := s.wrote(s.append, uint32(len(appendedData))); err != nil {
			return err
		}
	case nameNone:
		s.found = None
	case nameFound:
		s.found = Found
	}
	return s.reply(h.Unique, unix.ENOENT, 0)
}

func (s *server) attr(id uint64, a *fuse.Attr) {
	*a = fuse.Attr{Ino: id, Mode: unix.S_IFDIR | 0o700, Nlink: 1, Blksize: wire.PageSize}
	if id == fileID {
		a.Mode, a.Size = unix.S_IFREG|0o600, s.size
	}
}

func (s *server) wrote(unique uint64, size uint32) error {
	out := wire.Result[fuse.WriteOut](s.out)
	out.Size = size
	return s.reply(unique, 0, wire.SizeOf(out))
}

// reply answers a request with size bytes of data, or with an error.
func (s *server) reply(unique uint64, errno unix.Errno, size int) error {
	wire.PutHeader(s.out, unique, fuse.Status(errno), size)
	return s.dev.Write(s.out[:wire.OutHeaderSize+size])
}
