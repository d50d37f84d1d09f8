package fs

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// What is copied up is durable before it shows, each directory and each file; without syncing, nothing is synced at all.
func TestCopyUpIsSyncedBeforeItIsPublished(t *testing.T) {
	for _, c := range copyUps {
		if !c.copies {
			continue
		}
		for _, volatile := range []bool{false, true} {
			cfg := newFolders(t, c.upper, c.lower)
			cfg.Volatile = volatile
			s := openSite(t, cfg, false)
			ask := c.ask(s)
			made := calls(func() { s.do(ask) })
			if volatile {
				for _, op := range made {
					if strings.Contains(op.Call, "sync") {
						t.Errorf("%s: volatile, and calls %s", c.name, op.Call)
					}
				}
			} else if err := syncedBeforeRename(made); err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
			s.shut()
		}
	}
}

// syncedBeforeRename reports a copy-up that was published without an fsync after the last change of the copy. Symbolic links
// and special files have nothing to be made durable.
func syncedBeforeRename(made []sys.Op) error {
	changes := []string{"pwrite64", "copy_file_range", "ftruncate", "setxattr", "fchownat", "fchmodat2", "utimensat"}
	published, begin := 0, 0
	for i, op := range made {
		if op.Call != "renameat2" {
			continue
		}
		staging := names(made[begin:i])
		published, begin = published+1, i+1
		if slices.Contains(staging, "mknodat") || slices.Contains(staging, "symlinkat") {
			continue
		}
		synced := slices.Index(staging, "fsync")
		if synced < 0 || slices.ContainsFunc(staging[synced:], func(c string) bool { return slices.Contains(changes, c) }) {
			return fmt.Errorf("published and not durable: %v", staging)
		}
	}
	if published == 0 {
		return fmt.Errorf("nothing was published: %v", names(made))
	}
	return nil
}

// The durability that programs ask for.
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
		s := openSite(t, cfg, false)
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
