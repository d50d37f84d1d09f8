package fs

import (
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// What the kernel writes back from its cache changes no st_mtime: the kernel keeps that. If the
// time cannot be kept, the WRITE fails; a daemon without the right to date the file goes on.
func TestWriteBackKeepsTheTime(t *testing.T) {
	s := newSite(t, "file f \"text\"", "")
	s.o.policy.Writeback = true
	id, err := s.walk("f")
	must(t, err)
	before, err := s.getattr(id)
	must(t, err)
	write := func(flags uint32) error {
		in := &fuse.WriteIn{InHeader: s.header(id), WriteFlags: flags, Size: 4}
		_, status := s.o.Write(nil, in, []byte("TEXT"))
		return errorOf(status)
	}
	must(t, write(fuse.WRITE_CACHE))
	after, err := s.getattr(id)
	must(t, err)
	if after.Mtime != before.Mtime || after.Mtimensec != before.Mtimensec {
		t.Errorf("st_mtime was %d.%09d, is %d.%09d", before.Mtime, before.Mtimensec, after.Mtime, after.Mtimensec)
	}
	if text, err := s.readNode(id, 0, 9); err != nil || text != "TEXT" {
		t.Errorf("the file has %q, %v", text, err)
	}
	for fault, want := range map[unix.Errno]error{unix.EIO: unix.EIO, unix.EPERM: nil} {
		sys.SetFault(func(op sys.Op) error {
			if op.Call == "utimensat" {
				return fault
			}
			return nil
		})
		err := write(fuse.WRITE_CACHE)
		sys.SetFault(nil)
		if err != want {
			t.Errorf("with %v of utimensat the WRITE is %v, want %v", fault, err, want)
		}
	}
	must(t, write(0)) // by write(2) without the cache
	if now, err := s.getattr(id); err != nil || now.Mtimensec == before.Mtimensec {
		t.Errorf("a WRITE that does not come from the cache has not changed st_mtime: %v", err)
	}
}

// The time that the kernel sends for a file of a lower that has lost its last name is not stored,
// since a copy-up would be made for it alone. A file without a name that may still get one, by
// O_TMPFILE, takes it.
func TestTimeOfARemovedFile(t *testing.T) {
	s := newSite(t, "", "file f \"text\"")
	s.o.policy.Writeback = true
	id, err := s.walk("f")
	must(t, err)
	s.do(s.unlink("f"))
	n, err := s.o.node(id)
	must(t, err)
	in := &fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{InHeader: s.header(id), Valid: fuse.FATTR_MTIME | fuse.FATTR_CTIME, Mtime: 7}}
	var out fuse.AttrOut
	must(t, errorOf(s.o.SetAttr(nil, in, &out)))
	if n.inUpper() {
		t.Error("it has been copied up")
	}
	n.mu.Lock()
	n.setRareLocked().linkable = true
	n.mu.Unlock()
	must(t, errorOf(s.o.SetAttr(nil, in, &out)))
	if out.Mtime != 7 {
		t.Errorf("st_mtime is %d, want 7", out.Mtime)
	}
}
