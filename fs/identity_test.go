package fs

import (
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// A process that has a file open never reads another file that has got its name, and never gets
// ENOENT for it. While the name goes from file to file by removal, by replacement and by renames,
// each file keeps reading what was written to it.
func TestFilesAreNotTakenForEachOther(t *testing.T) {
	s := newSite(t, "dir d", "dir d")
	fds := openFDs(t)
	var over atomic.Bool
	s.together(4, func(k *kernel, worker int) {
		if worker == 0 {
			defer over.Store(true)
			for i := range 600 {
				if err := k.succeed(i); err != nil {
					t.Error(err)
					return
				}
			}
			return
		}
		for !over.Load() {
			id, err := k.walk("d/f")
			if err != nil {
				continue
			}
			first, err := k.readNode(id, 0, 100)
			for i := 0; i < 20 && err == nil; i++ {
				if i%3 == worker%3 {
					k.o.handles.Clear() // so that it is opened again
				}
				var text string
				text, err = k.readNode(id, 0, 100)
				a, errAttr := k.getattr(id)
				if err == nil {
					err = errAttr
				}
				if err == nil && (text != first || a.Size != uint64(len(first))) {
					t.Errorf("a file reads %q, then %q; size %d", first, text, a.Size)
				}
			}
			if err != nil {
				t.Errorf("a file in use: %v", err)
			}
			k.forget(nil)
		}
	})
	s.wantConsistent(fds)
}

// succeed makes another file the one with the name d/f, by one way or another.
func (k *kernel) succeed(i int) error {
	text := strings.Repeat(fmt.Sprint(i, " "), i%10+1)
	fill := func(p string) request {
		return func() error {
			if err := k.mknod(p, unix.S_IFREG|0o600, 0)(); err != nil {
				return err
			}
			return k.write(p, 0, text)()
		}
	}
	ways := [][]func() error{
		{
			fill("d/new"),
			func() error { return k.rename("d/new", "d/f", 0)() },
		},
		{
			fill("d/new"),
			func() error { return k.unlink("d/f")() },
			func() error { return k.link("d/new", "d/f")() },
			func() error { return k.unlink("d/new")() },
		},
		{
			fill("d/new"),
			func() error { return k.rename("d/f", "d/old", 0)() },
			func() error { return k.rename("d/new", "d/f", 0)() },
			func() error { return k.unlink("d/old")() },
		},
		{
			fill("d/new"),
			func() error { return k.rename("d/f", "d/new", unix.RENAME_EXCHANGE)() },
			func() error { return k.unlink("d/new")() },
		},
	}
	for _, step := range ways[i%len(ways)] {
		if err := step(); err != nil {
			return fmt.Errorf("step of way %d: %w", i%len(ways), err)
		}
	}
	k.forget(nil)
	return nil
}

// Names of one object that are looked up at the same time for the first time lead to one node.
func TestLinksLookedUpTogetherAreOneNode(t *testing.T) {
	var table strings.Builder
	const links = 4
	table.WriteString("file d0/f\n")
	for i := 1; i < links; i++ {
		fmt.Fprintf(&table, "link d%d/f d0/f\n", i)
	}
	s := newSite(t, table.String(), "")
	fds := openFDs(t)
	for range 100 {
		var ids [links]uint64
		var ready atomic.Int64
		s.together(links, func(k *kernel, worker int) {
			dir, err := k.walk(fmt.Sprint("d", worker))
			if err != nil {
				t.Error(err)
			}
			for ready.Add(1); ready.Load() < links; { // all at once
				runtime.Gosched()
			}
			out, err := k.lookup(dir, "f")
			if err != nil {
				t.Error(err)
			}
			ids[worker] = out.NodeId
			for ready.Add(1); ready.Load() < 2*links; { // no forget before all have looked it up
				runtime.Gosched()
			}
		})
		for _, id := range ids {
			if id != ids[0] {
				t.Fatalf("one object has the nodes %v", ids)
			}
		}
	}
	s.wantConsistent(fds)
}

// A file that lost the name it was opened by and one that is looked up by another of its names are
// one file.
func TestLinkOfARemovedNameIsTheSameFile(t *testing.T) {
	s := newSite(t, "file a \"text\"\nlink d/b a", "")
	id, err := s.walk("a")
	must(t, err)
	a, err := s.getattr(id)
	must(t, err)
	s.do(s.unlink("a"))
	if again, err := s.walk("d/b"); err != nil || again != id {
		t.Errorf("the other name is node %d, %v; want %d", again, err, id)
	}
	s.do(s.truncate("d/b", 2))
	if text, err := s.readNode(id, 0, 100); err != nil || text != "te" {
		t.Errorf("it reads %q, %v", text, err)
	}
	s.do(s.unlink("d/b"))
	s.wantRemoved(id, a.Ino, "te")
	s.forget(nil)
	s.do(s.mknod("new", unix.S_IFREG|0o600, 0)) // its inode number may be used again
	s.audit("another file")
}

// A lookup of a name that no layer can have calls no layer, also in directories of lowers alone.
func TestNamesThatCannotBe(t *testing.T) {
	s := newSite(t, "file up/f", "file low/f\nfile both/f", "file both/g\nfile up/g")
	for _, dir := range []string{"up", "low", "both"} {
		id, err := s.walk(dir)
		must(t, err)
		_, err = s.lookup(id, strings.Repeat("x", 256))
		want(t, "a name of 256 bytes in "+dir, err, unix.ENAMETOOLONG)
		var out fuse.EntryOut
		h := s.header(id)
		if status := s.o.Lookup(nil, &h, ".wh.f", &out); out.NodeId != 0 || status != fuse.OK { // kept as missing
			t.Errorf("a marker in %s: %d, %v", dir, out.NodeId, status)
		}
	}
}
