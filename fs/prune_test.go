package fs

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// forgetful is a kernel that drops every inode of a notification, but for those in use.
type forgetful struct {
	s     *site
	inUse uint64
	old   bool // it does not know FUSE_NOTIFY_PRUNE

	mu      sync.Mutex // guards entries
	entries int
}

func (k *forgetful) PruneNotify(nodes []uint64) fuse.Status {
	if k.old {
		return fuse.ENOSYS
	}
	asked := map[uint64]bool{}
	for _, id := range nodes {
		asked[id] = true
	}
	k.s.forget(func(id uint64) bool { return asked[id] && id != k.inUse })
	return fuse.OK
}

func (k *forgetful) EntryNotify(parent uint64, name string) fuse.Status {
	k.mu.Lock()
	k.entries++
	k.mu.Unlock()
	if n := k.s.o.named(parent, name); n != 0 && n != k.inUse {
		k.s.forget(func(id uint64) bool { return id == n })
	}
	return fuse.OK
}

// named is the id of the node that a name has.
func (o *Overlay) named(parent uint64, name string) uint64 {
	p, ok := o.nodes.Get(parent)
	if !ok {
		return 0
	}
	p.dir.mu.Lock()
	defer p.dir.mu.Unlock()
	if n := p.dir.children[name]; n != nil {
		return n.ID()
	}
	return 0
}

func TestCacheInodesBoundsTheTable(t *testing.T) {
	const bound = 20
	for _, tt := range []struct {
		name   string
		old    bool
		inodes int
		memory int64
	}{
		{"inodes", false, bound, 0},
		{"inodes, old kernel", true, bound, 0},
		{"memory", false, 0, bound * bytesPerNode},
		{"memory, old kernel", true, 0, bound * bytesPerNode},
	} {
		t.Run(tt.name, func(t *testing.T) {
			old := tt.old
			cfg := newFolders(t, "", forests(40))
			cfg.CacheInodes, cfg.CacheMemory = tt.inodes, tt.memory
			s := openSite(t, cfg)
			used, err := s.walk("d0/f")
			must(t, err)
			kernel := &forgetful{s: s, inUse: used, old: old}
			done, ended := make(chan struct{}), make(chan struct{})
			go func() {
				s.o.pruner.run(kernel, done)
				close(ended)
			}()
			for round := range 3 {
				for i := range 40 {
					for _, name := range []string{"f", "g", "sub"} {
						// What was dropped meanwhile is looked up again, as the kernel does.
						if _, err := s.walk(fmt.Sprintf("d%d/%s", i, name)); err != nil && err != unix.ESTALE {
							t.Fatalf("round %d: %v", round, err)
						}
					}
				}
				for range 2000 {
					if s.o.nodes.Len() <= bound {
						break
					}
					time.Sleep(time.Millisecond)
					s.o.pruner.wake() // as the next new node would
				}
				if n := s.o.nodes.Len(); n > bound {
					t.Errorf("round %d: %d nodes stay, want at most %d", round, n, bound)
				}
			}
			if _, ok := s.o.nodes.Get(used); !ok {
				t.Error("a node in use is gone")
			}
			kernel.mu.Lock()
			if old != (kernel.entries > 0) {
				t.Errorf("%d names invalidated", kernel.entries)
			}
			kernel.mu.Unlock()
			close(done)
			<-ended
			s.wantView("after all", forests(40))
		})
	}
}

// The names in name tables are counted, and no more when their directories are dropped.
func TestNamesAreCounted(t *testing.T) {
	s := newSite(t, "file a/f\nfile b/c/g", "file a/g\nfile a/h\nfile b/c/f")
	for range 2 {
		for _, name := range []string{"a/f", "a/g", "b/c/f"} {
			_, err := s.walk(name)
			must(t, err)
		}
		held := s.o.listed.Load()
		if held < 3+1+2 {
			t.Errorf("%d names are counted", held)
		}
		s.forget(func(uint64) bool { return true })
		if left := s.o.listed.Load(); left != int64(s.o.root.dir.counted) {
			t.Errorf("%d names are counted when no node is left but the root, which has %d", left, s.o.root.dir.counted)
		}
	}
}

// What hangs below a directory is looked at while names come and go there.
func TestPruningWhileNamesMove(t *testing.T) {
	s := newSite(t, "dir a\ndir b", "dir a")
	fds := openFDs(t)
	var over atomic.Bool
	s.together(3, func(k *kernel, worker int) {
		if worker == 0 {
			defer over.Store(true)
			for i := range 200 {
				from, to := fmt.Sprintf("a/f%d", i), fmt.Sprintf("b/g%d", i%7)
				for _, r := range []request{k.mknod(from, unix.S_IFREG|0o644, 0), k.rename(from, to, 0), k.rename(to, from, 0), k.unlink(from)} {
					if err := r(); err != nil {
						t.Errorf("round %d: %v", i, err)
					}
				}
			}
			return
		}
		for !over.Load() {
			s.o.nodes.Sample(pruneBatch, (*Node).leaf)
		}
	})
	s.wantConsistent(fds)
}
