package conn

import (
	"testing"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/fuse-overlay/fuse-overlay/fs/conn/wire"
)

// A worker has room for small replies, and makes room for large ones up to the maximum of INIT.
func TestRoomForReplies(t *testing.T) {
	const most = 1 << 20
	conn := newConn(t, Config{})
	for _, debug := range []bool{false, true} {
		w := conn.NewWorker(WorkerConfig{Handler: newOneFile("text"), MaxWrite: most, RestOnly: debug})
		if all := len(w.out)-wire.OutHeaderSize >= most; all != debug {
			t.Errorf("debug %v: room for %d bytes at first", debug, len(w.out)-wire.OutHeaderSize)
		}
		for _, c := range []struct {
			size uint32
			want bool
		}{{0, true}, {maxOtherReply, true}, {maxOtherReply + 1, true}, {most, true}, {most + 1, false}, {1<<32 - 1, false}, {4096, true}} {
			if got := w.hasRoom(c.size); got != c.want {
				t.Errorf("debug %v: room for %d: %v, want %v", debug, c.size, got, c.want)
			} else if got && len(w.out)-wire.OutHeaderSize < int(c.size) {
				t.Errorf("debug %v: %d bytes are room for %d", debug, len(w.out)-wire.OutHeaderSize, c.size)
			}
			if uintptr(unsafe.Pointer(&w.out[wire.OutHeaderSize]))%wire.PageSize != 0 {
				t.Errorf("debug %v, after %d: data does not begin at a page", debug, c.size)
			}
		}
	}
}

// The worker leaves a READ of more than the maximum to go-fuse, which refuses it.
func TestTooLargeReadIsNotServed(t *testing.T) {
	w := newConn(t, Config{}).NewWorker(WorkerConfig{Handler: newOneFile("text"), MaxWrite: 128 << 10})
	in := fuse.ReadIn{Size: 128<<10 + 1}
	in.Opcode = uint32(wire.OpRead)
	msg := wire.Bytes(&in)
	if _, _, served := w.serveFrequent(&in.InHeader, msg); served {
		t.Error("a READ of more than the maximum was served")
	}
	in.Size--
	n, status, served := w.serveFrequent(&in.InHeader, msg)
	if !served || status != fuse.OK || string(w.out[wire.OutHeaderSize:wire.OutHeaderSize+n]) != "text" {
		t.Errorf("a READ of as much: served %v, %v, %d bytes", served, status, n)
	}
}
