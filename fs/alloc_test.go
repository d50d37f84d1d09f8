//go:build !race

// The race detector makes pools forget: make unit runs this by itself.

package fs

import (
	"encoding/binary"
	"slices"
	"testing"

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

// The requests that speed depends on are served without making garbage.
func TestServingAllocatesNothing(t *testing.T) {
	withoutRanks(t)
	s := newSite(t, "file d/up text", "file d/low text\nfile d/more x\ndir d/sub")
	var device replied
	w := s.o.conn.NewWorker(conn.WorkerConfig{FileSystem: s.o, Device: &device, MaxWrite: 1 << 20})
	ids := map[string]uint64{}
	for _, p := range []string{"d", "d/up", "d/low"} {
		id, err := s.walk(p)
		must(t, err)
		ids[p] = id
	}
	header := s.header
	for _, c := range []struct {
		what string
		msg  []byte
		most float64
	}{
		{"LOOKUP of a known name", message(wire.OpLookup, header(ids["d"]), "low\x00"), 0},
		{"LOOKUP of a missing name", message(wire.OpLookup, header(ids["d"]), "none\x00"), 0},
		{"GETATTR of a lower file", message(wire.OpGetattr, fuse.GetAttrIn{InHeader: header(ids["d/low"])}, ""), 0},
		{"GETATTR of a directory", message(wire.OpGetattr, fuse.GetAttrIn{InHeader: header(ids["d"])}, ""), 0},
		{"GETXATTR of ls", message(wire.OpGetxattr, fuse.GetXAttrIn{InHeader: header(ids["d/low"]), Size: 255}, "security.selinux\x00"), 0},
		{"READ", message(wire.OpRead, fuse.ReadIn{InHeader: header(ids["d/low"]), Size: 4096}, ""), 0},
		{"READ of as much as may be", message(wire.OpRead, fuse.ReadIn{InHeader: header(ids["d/low"]), Size: 1 << 20}, ""), 0},
		{"WRITE", message(wire.OpWrite, fuse.WriteIn{InHeader: header(ids["d/up"]), Size: 4}, "more"), 0},
		// go-fuse's list of entries, and what goes through them.
		{"READDIRPLUS", message(wire.OpReaddirplus, fuse.ReadIn{InHeader: header(ids["d"]), Size: 4096}, ""), 2},
	} {
		serve := func() {
			copy(w.Buffer(), c.msg)
			device.status = unanswered
			w.Serve(len(c.msg))
			if device.status != fuse.OK && device.status != errNoSuchAttr {
				t.Fatalf("%s: %v", c.what, device.status)
			}
		}
		serve()
		if got := testing.AllocsPerRun(200, serve); got > c.most {
			t.Errorf("%s: %v allocations, want at most %v", c.what, got, c.most)
		}
	}
}
