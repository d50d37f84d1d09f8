//go:build !race

// The race detector makes pools forget: make unit runs this by itself.

package fs

import (
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/fuse-overlay/fuse-overlay/fs/conn/wire"
)

// The requests that speed depends on are served without making garbage.
func TestServingAllocatesNothing(t *testing.T) {
	withoutRanks(t)
	s := newSite(t, "file d/up text", "file d/low text\nfile d/more x\ndir d/sub")
	w := s.newWorker()
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
			if status := w.serve(c.msg); status != fuse.OK && status != errNoSuchAttr {
				t.Fatalf("%s: %v", c.what, status)
			}
		}
		serve()
		if got := testing.AllocsPerRun(200, serve); got > c.most {
			t.Errorf("%s: %v allocations, want at most %v", c.what, got, c.most)
		}
	}
}
