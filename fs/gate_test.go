package fs

import (
	"testing"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// The gate distinguishes requests that change the upper from others, some by their arguments.
func TestMayChange(t *testing.T) {
	header := func(code uint32) []byte { return raw(&fuse.InHeader{Opcode: code}) }
	open := func(flags uint32) []byte {
		return raw(&fuse.OpenIn{InHeader: fuse.InHeader{Opcode: codeOpen}, Flags: flags})
	}
	ioctl := func(cmd uint32) []byte {
		return raw(&fuse.IoctlIn{InHeader: fuse.InHeader{Opcode: codeIoctl}, Cmd: cmd})
	}
	for what, c := range map[string]struct {
		in   []byte
		want bool
	}{
		"LOOKUP": {header(codeLookup), false}, "GETATTR": {header(codeGetattr), false}, "READ": {header(codeRead), false},
		"READDIRPLUS": {header(codeReaddirplus), false}, "GETXATTR": {header(codeGetxattr), false}, "FSYNC": {header(20), false},
		"SETATTR": {header(codeSetattr), true}, "WRITE": {header(codeWrite), true}, "UNLINK": {header(codeUnlink), true},
		"RENAME2": {header(codeRename2), true}, "SETXATTR": {header(codeSetxattr), true}, "CREATE": {header(codeCreate), true},
		"LINK": {header(codeLink), true}, "COPY_FILE_RANGE": {header(codeCopyFileRange), true},
		"OPEN to read": {open(unix.O_RDONLY), false}, "OPEN to write": {open(unix.O_RDWR), true},
		"OPEN that truncates": {open(unix.O_RDONLY | unix.O_TRUNC), true},
		"GETFLAGS":            {ioctl(fsIocGetFlags), false}, "SETFLAGS": {ioctl(fsIocSetFlags), true},
		"an OPEN that is too short": {header(codeOpen), false},
	} {
		if got := mayChange((*fuse.InHeader)(unsafe.Pointer(&c.in[0])), c.in); got != c.want {
			t.Errorf("%s: %v", what, got)
		}
	}
}

func raw[T any](v *T) []byte { return unsafe.Slice((*byte)(unsafe.Pointer(v)), unsafe.Sizeof(*v)) }

func TestGate(t *testing.T) {
	var g gate
	if errno := g.enter(); errno != 0 {
		t.Fatalf("open: %v", errno)
	}
	g.shut(unix.EROFS)
	if errno := g.enter(); errno != unix.EROFS {
		t.Errorf("shut: %v", errno)
	}
	if n := g.running.Load(); n != 1 {
		t.Errorf("%d are under way, want the one that has passed", n)
	}
	g.leave()
	if n := g.running.Load(); n != 0 {
		t.Errorf("%d are under way in the end", n)
	}
}
