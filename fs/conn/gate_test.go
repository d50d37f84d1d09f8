package conn

import (
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs/conn/wire"
)

// The gate distinguishes requests that change the upper from others, some by their arguments.
func TestMayChange(t *testing.T) {
	header := func(op wire.Opcode) []byte { return wire.Bytes(&fuse.InHeader{Opcode: uint32(op)}) }
	open := func(flags uint32) []byte {
		return wire.Bytes(&fuse.OpenIn{InHeader: fuse.InHeader{Opcode: uint32(wire.OpOpen)}, Flags: flags})
	}
	ioctl := func(cmd uint32) []byte {
		return wire.Bytes(&fuse.IoctlIn{InHeader: fuse.InHeader{Opcode: uint32(wire.OpIoctl)}, Cmd: cmd})
	}
	for what, c := range map[string]struct {
		in   []byte
		want bool
	}{
		"LOOKUP": {header(wire.OpLookup), false}, "GETATTR": {header(wire.OpGetattr), false}, "READ": {header(wire.OpRead), false},
		"READDIRPLUS": {header(wire.OpReaddirplus), false}, "GETXATTR": {header(wire.OpGetxattr), false}, "FSYNC": {header(wire.OpFsync), false},
		"SETATTR": {header(wire.OpSetattr), true}, "WRITE": {header(wire.OpWrite), true}, "UNLINK": {header(wire.OpUnlink), true},
		"RENAME2": {header(wire.OpRename2), true}, "SETXATTR": {header(wire.OpSetxattr), true}, "CREATE": {header(wire.OpCreate), true},
		"LINK": {header(wire.OpLink), true}, "COPY_FILE_RANGE": {header(wire.OpCopyFileRange), true},
		"OPEN to read": {open(unix.O_RDONLY), false}, "OPEN to write": {open(unix.O_RDWR), true},
		"OPEN that truncates": {open(unix.O_RDONLY | unix.O_TRUNC), true},
		"GETFLAGS":            {ioctl(wire.IoctlGetFlags), false}, "SETFLAGS": {ioctl(wire.IoctlSetFlags), true},
		"an OPEN that is too short": {header(wire.OpOpen), false},
	} {
		if got := mayChange(wire.Header(c.in), c.in); got != c.want {
			t.Errorf("%s: %v", what, got)
		}
	}
}

func TestGate(t *testing.T) {
	var g Gate
	if errno := g.Enter(); errno != 0 {
		t.Fatalf("open: %v", errno)
	}
	g.Shut(unix.EROFS)
	if errno := g.Enter(); errno != unix.EROFS {
		t.Errorf("shut: %v", errno)
	}
	if n := g.Running(); n != 1 {
		t.Errorf("%d are under way, want the one that has begun", n)
	}
	g.Leave()
	if n := g.Running(); n != 0 {
		t.Errorf("%d are under way in the end", n)
	}
}
