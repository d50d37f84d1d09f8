//go:build !race

// The race detector makes pools forget: make unit runs this by itself.

package fs

import (
	"encoding/binary"
	"testing"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// message makes a request as it comes from the kernel: the fixed part and what follows it.
func message[T any](code uint32, fixed T, rest string) []byte {
	size := int(unsafe.Sizeof(fixed))
	b := make([]byte, size, size+len(rest)+1)
	copy(b, unsafe.Slice((*byte)(unsafe.Pointer(&fixed)), size))
	b = append(b, rest...)
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	binary.NativeEndian.PutUint32(b[4:], code)
	return b
}

// The requests that speed depends on are served without making garbage.
func TestServingAllocatesNothing(t *testing.T) {
	s := newSite(t, "file d/up text", "file d/low text\nfile d/more x\ndir d/sub")
	w := s.o.newWorker(nil, nil, 1<<20, false)
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
		{"LOOKUP of a known name", message(codeLookup, header(ids["d"]), "low\x00"), 0},
		{"LOOKUP of a missing name", message(codeLookup, header(ids["d"]), "none\x00"), 0},
		{"GETATTR of a lower file", message(codeGetattr, fuse.GetAttrIn{InHeader: header(ids["d/low"])}, ""), 0},
		{"GETATTR of a directory", message(codeGetattr, fuse.GetAttrIn{InHeader: header(ids["d"])}, ""), 0},
		{"GETXATTR that coreutils asks", message(codeGetxattr, fuse.GetXAttrIn{InHeader: header(ids["d/low"]), Size: 255}, "security.selinux\x00"), 0},
		{"READ", message(codeRead, fuse.ReadIn{InHeader: header(ids["d/low"]), Size: 4096}, ""), 0},
		{"READ of as much as may be", message(codeRead, fuse.ReadIn{InHeader: header(ids["d/low"]), Size: 1 << 20}, ""), 0},
		{"WRITE", message(codeWrite, fuse.WriteIn{InHeader: header(ids["d/up"]), Size: 4}, "more"), 0},
		// go-fuse's list of entries, and what goes through them.
		{"READDIRPLUS", message(codeReaddirplus, fuse.ReadIn{InHeader: header(ids["d"]), Size: 4096}, ""), 2},
	} {
		serve := func() {
			copy(w.in, c.msg)
			h := (*fuse.InHeader)(unsafe.Pointer(&w.in[0]))
			if _, status, answered := w.answer(h, w.in[:len(c.msg)]); status != fuse.OK && status != errNoSuchAttr || !answered {
				t.Fatalf("%s: %v", c.what, status)
			}
		}
		serve()
		if got := testing.AllocsPerRun(200, serve); got > c.most {
			t.Errorf("%s: %v allocations, want at most %v", c.what, got, c.most)
		}
	}
}
