package fs

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
)

// What is copied up is safe on the disk before it shows. If the order of the upper's file system is
// not trusted, each directory and each file is synced by fsync. Otherwise the writeback of each
// file's data is enough. Volatile waits for nothing.
func TestCopyUpIsSyncedBeforeItIsPublished(t *testing.T) {
	for _, where := range []struct {
		name, sync string
		base       func(*testing.T) string
	}{
		{"in memory", "fsync", func(*testing.T) string { return "" }},
		{"on a journal", "sync_file_range", journaled},
	} {
		t.Run(where.name, func(t *testing.T) {
			if base := where.base(t); base != "" {
				t.Setenv("TMPDIR", base)
			}
			for _, c := range copyUps {
				if !c.copies {
					continue
				}
				t.Run(c.name, func(t *testing.T) { // its folders are made where TMPDIR leads now
					if err := publications(c.madeBy(t, false), where.sync); err != nil {
						t.Error(err)
					}
					for _, op := range c.madeBy(t, true) {
						if strings.Contains(op.Call, "sync") {
							t.Errorf("volatile, and calls %s", op.Call)
						}
					}
				})
			}
		})
	}
}

// madeBy are the system calls of a scenario's request.
func (c *scenario) madeBy(t *testing.T, volatile bool) []sys.Op {
	cfg := newFolders(t, c.upper, c.lower)
	cfg.Volatile = volatile
	s := openSite(t, cfg)
	defer s.shut()
	send := c.send(s)
	return calls(func() { s.do(send) })
}

// publications reports a copy-up that was published without the sync it needs after the last change
// that this must cover: any change for fsync, one of data for sync_file_range. Symbolic links and
// special files need none.
func publications(made []sys.Op, sync string) error {
	changes := []string{"pwrite64", "copy_file_range"}
	if sync == "fsync" {
		changes = append(changes, "openat", "mkdirat", "ftruncate", "setxattr", "fchownat", "fchmodat2", "utimensat")
	}
	published, begin := 0, 0
	for i, op := range made {
		if op.Call != "renameat" && op.Call != "renameat2" && op.Call != "linkat" {
			continue
		}
		staging := names(slices.DeleteFunc(slices.Clone(made[begin:i]), marksDirectory))
		published, begin = published+1, i+1
		if slices.Contains(staging, "mknodat") || slices.Contains(staging, "symlinkat") {
			continue
		}
		changed := lastIndex(staging, changes)
		if synced := slices.Index(staging, sync); changed >= 0 && synced < changed {
			return fmt.Errorf("published and not safe: %v", staging)
		}
	}
	if published == 0 {
		return fmt.Errorf("nothing was published: %v", names(made))
	}
	return nil
}

// marksDirectory reports a change of the directory that a copy is about to come to, which may be
// lost.
func marksDirectory(op sys.Op) bool {
	return op.Call == "setxattr" && op.Name == "trusted.overlay.impure"
}

// lastIndex is where the last of any of these is, -1 without.
func lastIndex(in, these []string) int {
	for i := len(in) - 1; i >= 0; i-- {
		if slices.Contains(these, in[i]) {
			return i
		}
	}
	return -1
}

// journaled mounts a file system that copy-up trusts with the order.
func journaled(t *testing.T) string {
	t.Helper()
	return testkit.MountImage(t, "ext4", "")
}

// The durability that programs request.
func TestFsync(t *testing.T) {
	for _, c := range []struct {
		name              string
		volatile, noFsync bool
		want              []string
	}{
		{"usual", false, false, []string{"fsync", "fdatasync", "fsync"}},
		{"volatile", true, false, nil},
		{"fsync=0", false, true, nil},
	} {
		cfg := newFolders(t, "file d/f\nsymlink d/l x", "file lower\nfile dir/lower")
		cfg.Volatile, cfg.NoFsync = c.volatile, c.noFsync
		s := openSite(t, cfg)
		var made []string
		sync := func(p string, flags uint32, f func(<-chan struct{}, *fuse.FsyncIn) fuse.Status) {
			id, err := s.walk(p)
			must(t, err)
			for _, op := range calls(func() {
				want(t, "fsync of "+p, errorOf(f(nil, &fuse.FsyncIn{InHeader: s.header(id), FsyncFlags: flags})), nil)
			}) {
				if strings.Contains(op.Call, "sync") {
					made = append(made, op.Call)
				}
			}
		}
		sync("d/f", 0, s.o.Fsync)
		sync("d/f", fsyncDataOnly, s.o.Fsync)
		sync("d", 0, s.o.FsyncDir)
		sync("lower", 0, s.o.Fsync) // is durable
		sync("dir", 0, s.o.FsyncDir)
		if !slices.Equal(made, c.want) {
			t.Errorf("%s: %v, want %v", c.name, made, c.want)
		}
	}
}

// Data that comes in large pieces is given to the disk from time to time. Only fsync returns an
// error of that.
func TestLargeDataIsWrittenOutAsItComes(t *testing.T) {
	for _, c := range []struct {
		name              string
		volatile, noFsync bool
		piece             int
		fault             error
		want              bool
	}{
		{"usual", false, false, 1 << 20, nil, true},
		{"small pieces", false, false, bulk / 2, nil, false},
		{"volatile", true, false, 1 << 20, nil, false},
		{"fsync=0", false, true, 1 << 20, nil, false},
		{"failing", false, false, 1 << 20, unix.EIO, true},
	} {
		cfg := newFolders(t, "file f", "")
		cfg.Volatile, cfg.NoFsync = c.volatile, c.noFsync
		s := openSite(t, cfg)
		id, err := s.walk("f")
		must(t, err)
		var times atomic.Int32
		sys.SetFault(func(op sys.Op) error {
			if op.Call != "sync_file_range" {
				return nil
			}
			times.Add(1)
			return c.fault
		})
		data := make([]byte, c.piece)
		const steps = 3
		const size = steps * writeOutStep
		for off := 0; off < size; off += len(data) {
			in := &fuse.WriteIn{InHeader: s.header(id), Offset: uint64(off), Size: uint32(len(data))}
			_, status := s.o.Write(nil, in, data)
			want(t, c.name, errorOf(status), nil)
			for off > size/2 && s.o.writingOut.Load() { // the last step finds no other at work
				runtime.Gosched()
			}
		}
		sys.SetFault(nil)
		if got := times.Load(); c.want != (got > 0) || got > steps*(steps+1)/2 { // each time from the beginning
			t.Errorf("%s: given to the disk %d times", c.name, got)
		}
		s.shut()
	}
}
