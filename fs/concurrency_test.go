package fs

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
)

// together runs f in many goroutines, each a kernel of its own, and fails the test when one is
// stuck.
func (s *site) together(workers int, f func(k *kernel, worker int)) {
	s.t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		var wg sync.WaitGroup
		for i := range workers {
			wg.Add(1)
			go func() {
				defer wg.Done()
				k := newKernel(s.o)
				defer k.forget(nil)
				f(k, i)
			}()
		}
		wg.Wait()
	}()
	select {
	case <-done:
	case <-time.After(2 * time.Minute):
		stacks := make([]byte, 1<<20)
		s.t.Fatalf("stuck:\n%s", stacks[:runtime.Stack(stacks, true)])
	}
}

// wantConsistent fails the test if the overlay, which no request uses any more, does not agree with
// itself and with a new mount of its folders, or has a reference or descriptor left.
func (s *site) wantConsistent(fds int) {
	s.t.Helper()
	s.audit("afterwards")
	view := s.view()
	s.forget(nil)
	if n := s.o.nodes.Len(); n != 1 {
		s.t.Errorf("%d nodes are left", n-1)
	}
	if n := openFDs(s.t); n != fds {
		s.t.Errorf("%d descriptors are left open, %d of them as handles", n-fds, s.o.handles.Len())
	}
	s.remount()
	s.wantEmptyWork("afterwards")
	if d := testkit.Diff(view, s.view()); d != "" {
		s.t.Errorf("a fresh look gives another view (- was shown, + lies there):\n%s", d)
	}
}

// ordinary are the errors of requests that others were quicker than.
var ordinary = []error{
	nil, unix.ENOENT, unix.EEXIST, unix.ENOTEMPTY, unix.EISDIR, unix.ENOTDIR, unix.EXDEV, unix.EINVAL, unix.EBUSY,
	unix.EPERM, unix.EOPNOTSUPP, // attributes and modes of symbolic links
}

// chaos makes random requests on a few names that all goroutines use. Directories that move, m0 to
// m3, lie in a and b, which do not: the kernel lets no directory go below itself.
type chaos struct {
	*kernel
	r *rand.Rand
}

func (c *chaos) dir() string { return [...]string{"a", "b"}[c.r.IntN(2)] }

func (c *chaos) moving() string { return fmt.Sprintf("%s/m%d", c.dir(), c.r.IntN(4)) }

func (c *chaos) file() string {
	dir := c.dir()
	if c.r.IntN(2) == 0 {
		dir = c.moving()
	}
	return fmt.Sprintf("%s/f%d", dir, c.r.IntN(4))
}

func (c *chaos) step() (what string, err error) {
	p := c.file()
	steps := []struct {
		what string
		send func() request
	}{
		{"mknod", func() request { return c.mknod(p, unix.S_IFREG|0o644, 0) }},
		{"mknod", func() request { return c.mknod(p, unix.S_IFREG|0o644, 0) }},
		{"symlink", func() request { return c.symlink("to", p) }},
		{"mkdir", func() request { return c.mkdir(c.moving(), 0o755) }},
		{"mkdir", func() request { return c.mkdir(c.moving(), 0o755) }},
		{"write", func() request { return c.write(p, 0, "written by one of many") }},
		{"append", func() request { return c.write(p, 100_000, "x") }},
		{"truncate", func() request { return c.truncate(p, 0) }},
		{"chmod", func() request { return c.chmod(p, 0o600) }},
		{"chmod of a directory", func() request { return c.chmod(c.moving(), 0o700) }},
		{"setxattr", func() request { return c.setxattr(p, "user.note", "x") }},
		{"unlink", func() request { return c.unlink(p) }},
		{"rmdir", func() request { return c.rmdir(c.moving()) }},
		{"link", func() request { return c.link(p, c.file()) }},
		{"rename", func() request { return c.rename(p, c.file(), 0) }},
		{"exchange", func() request { return c.rename(p, c.file(), unix.RENAME_EXCHANGE) }},
		{"rename of a directory", func() request { return c.rename(c.moving(), c.moving(), 0) }},
		{"exchange of directories", func() request { return c.rename(c.moving(), c.moving(), unix.RENAME_EXCHANGE) }},
		{"read", func() request { return func() error { _, err := c.read(p); return err } }},
		{"read a small file", func() request {
			return c.onNode(p, func(id uint64) error { _, err := c.readNode(id, 0, 4096); return err })
		}},
		{"use the time between", func() request { c.o.Idle(); return failed(nil) }},
		{"list", func() request {
			return c.onNode(c.moving(), func(id uint64) error { _, err := c.list(id, 600); return err })
		}},
		{"list", func() request {
			return c.onNode(c.dir(), func(id uint64) error { _, err := c.list(id, 600); return err })
		}},
		{"forget", func() request {
			c.forget(func(uint64) bool { return c.r.IntN(2) == 0 })
			return failed(nil)
		}},
	}
	i := c.r.IntN(len(steps))
	return steps[i].what + " " + p, steps[i].send()()
}

const chaosLower = `
	file a/f0 "lower"
	file a/f1 "lower"
	link b/f1 a/f1
	file a/m0/f0 "lower"
	file a/m0/f1
	file b/f0 "lower"
	dir b/m2
	symlink b/m3/f0 x
`

// Many goroutines do everything at once to a few names. Whatever comes of it, requests end, errors
// are the ordinary ones, and in the end the overlay knows what lies in its folders.
func TestEverythingAtOnce(t *testing.T) {
	const workers, steps = 8, 250
	for name, set := range map[string]struct {
		markers, redirects bool
		features           Features
	}{
		"devices": {}, "markers": {markers: true}, "redirects": {redirects: true},
		"metacopy": {redirects: true, features: Features{MetaCopy: true}},
		"index":    {redirects: true, features: Features{Index: true}},
		"all":      {redirects: true, features: Features{MetaCopy: true, Index: true}},
	} {
		t.Run(name, func(t *testing.T) {
			c := newFolders(t, "file a/f2\nopaque b/m0\nfile b/m0/f0\nwhite b/m1", chaosLower, "file a/f3\nfile b/m1/f2")
			if set.redirects {
				c.Redirects = RedirectsOn
			}
			c.Features = set.features
			s := (&site{t: t, cfg: c, markers: set.markers}).opened()
			if set.features.Index && !s.o.stack.KeepsLinks() {
				t.Fatal("there is no index")
			}
			fds := openFDs(t)
			s.o.helped = true
			s.together(workers, func(k *kernel, worker int) {
				c := &chaos{kernel: k, r: rand.New(rand.NewPCG(uint64(worker), 11))}
				for range steps {
					if what, err := c.step(); !slices.Contains(ordinary, err) {
						t.Errorf("%s: %v", what, err)
					}
				}
			})
			s.wantConsistent(fds)
		})
	}
}

// Many write to one lower file for the first time, each its own part: one copy-up happens, and no
// write is lost.
func TestManyFirstWrites(t *testing.T) {
	const workers, size = 8, 1000
	for range 5 {
		s := newSite(t, "", "file d/e/f \""+strings.Repeat("-", workers*size)+"\"")
		fds := openFDs(t)
		s.together(workers, func(k *kernel, worker int) {
			if err := k.write("d/e/f", uint64(worker*size), strings.Repeat(string(rune('a'+worker)), size))(); err != nil {
				t.Error(err)
			}
			if err := k.chmod("d/e", 0o700)(); err != nil {
				t.Error(err)
			}
			if err := k.mknod(fmt.Sprintf("d/e/new%d", worker), unix.S_IFREG|0o600, 0)(); err != nil {
				t.Error(err)
			}
		})
		want := ""
		for worker := range workers {
			want += strings.Repeat(string(rune('a'+worker)), size)
		}
		if text, err := s.read("d/e/f"); err != nil || text != want {
			t.Errorf("%d bytes, %v; not what was written", len(text), err)
		}
		s.wantConsistent(fds)
	}
}

// Whoever holds a node below a directory that is moved to and fro is not disturbed: no request
// fails.
func TestNodesBelowAMovingDirectory(t *testing.T) {
	s := newSite(t, "file p/m/x/y/f \"text\"\ndir q", "dir p\ndir q")
	fds := openFDs(t)
	var over atomic.Bool
	s.together(5, func(k *kernel, worker int) {
		if worker == 0 {
			for range 150 {
				for _, r := range [][2]string{{"p/m", "q/n"}, {"q/n", "p/m"}} {
					if err := k.rename(r[0], r[1], 0)(); err != nil {
						t.Error(err)
					}
				}
			}
			over.Store(true)
			return
		}
		var dir, file uint64
		for dir == 0 || file == 0 { // a path may miss it on its way
			dir, _ = k.walk("p/m/x/y")
			file, _ = k.walk("p/m/x/y/f")
		}
		for i := 0; !over.Load(); i++ {
			name := fmt.Sprintf("w%d", worker)
			check := func(what string, err error) {
				if err != nil {
					t.Errorf("%s: %v", what, err)
				}
			}
			_, err := k.getattr(file)
			check("getattr", err)
			check("write", k.writeNode(file, uint64(worker*100), name))
			_, err = k.readNode(file, 0, 1000)
			check("read", err)
			_, err = k.lookup(dir, "f")
			check("lookup", err)
			_, err = k.list(dir, 4096)
			check("list", err)
			check("mknod", k.mknodIn(dir, name))
			check("unlink", k.unlinkIn(dir, name))
			k.o.handles.Clear() // so that paths are walked again
		}
	})
	s.wantConsistent(fds)
}

// Every listing contains a name that exists all the time exactly once, while other names come and
// go around it.
func TestListingWhileNamesComeAndGo(t *testing.T) {
	var lower strings.Builder
	for i := range 200 {
		fmt.Fprintf(&lower, "file d/stays%d\nfile d/goes%d\n", i, i)
	}
	s := newSite(t, "", lower.String())
	fds := openFDs(t)
	var over atomic.Bool
	s.together(4, func(k *kernel, worker int) {
		dir, err := k.walk("d")
		if err != nil {
			t.Error(err)
			return
		}
		if worker == 0 {
			for i := range 200 {
				errs := []error{
					k.unlink(fmt.Sprintf("d/goes%d", i))(), k.mknodIn(dir, fmt.Sprintf("comes%d", i)),
					k.chmod(fmt.Sprintf("d/stays%d", i), 0o600)(), k.rename(fmt.Sprintf("d/comes%d", i), fmt.Sprintf("d/stays%d", i), 0)(),
				}
				for _, err := range errs {
					if err != nil {
						t.Error(err)
					}
				}
			}
			over.Store(true)
			return
		}
		for !over.Load() {
			entries, err := k.list(dir, 500*worker)
			if err != nil {
				t.Error(err)
			}
			seen := map[string]bool{}
			for _, e := range entries {
				if seen[e.name] {
					t.Errorf("%s is listed twice", e.name)
				}
				seen[e.name] = true
			}
			for i := range 200 {
				if !seen[fmt.Sprintf("stays%d", i)] {
					t.Errorf("stays%d is not listed", i)
				}
			}
			k.forget(func(id uint64) bool { return id != dir })
		}
	})
	s.wantConsistent(fds)
}
