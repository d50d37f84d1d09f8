package fs

import (
	"fmt"
	"strings"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// withAttributesFor lists a directory for a thread and returns which of its entries have their
// attributes.
func (k *kernel) withAttributesFor(id uint64, thread uint32) (map[string]bool, error) {
	k.thread = thread
	defer func() { k.thread = 0 }()
	entries, err := k.readdir(id, 0, 1<<16)
	complete := map[string]bool{}
	for _, e := range entries {
		if e.name != "." && e.name != ".." {
			complete[e.name] = e.entry.NodeId != 0
		}
	}
	return complete, err
}

// forests makes directories of two files and a directory each.
func forests(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "file d%d/f x\nfile d%d/g x\ndir d%d/sub\n", i, i, i)
	}
	return b.String()
}

// A thread that lists and whose entries are never looked up gets names alone after a few samples.
// After a lookup it gets all again.
func TestThreadsGetTheAttributesThatTheyUse(t *testing.T) {
	const thread, other, count = 77, 78, 12
	s := newSite(t, "", forests(count), "file d0/f below\nfile e/x y")
	dir := func(i int) uint64 {
		id, err := s.walk(fmt.Sprint("d", i))
		must(t, err)
		return id
	}
	list := func(i int, thread uint32) (files int) {
		t.Helper()
		complete, err := s.withAttributesFor(dir(i), thread)
		must(t, err)
		if len(complete) != 3 || !complete["sub"] {
			t.Fatalf("d%d: %v, want three entries, the directory with its attributes", i, complete)
		}
		for _, name := range []string{"f", "g"} {
			if complete[name] {
				files++
			}
		}
		return files
	}
	for i := range enoughSamples {
		if n := list(i, thread); n != 1 {
			t.Errorf("listing %d: %d files with attributes, want all but a sample", i, n)
		}
	}
	for i := enoughSamples; i < enoughSamples+2; i++ {
		if n := list(i, thread); n != 0 {
			t.Errorf("listing %d: %d files with attributes, want none", i, n)
		}
	}
	if n := list(enoughSamples, other); n != 1 {
		t.Errorf("another thread: %d files with attributes, want all but a sample", n)
	}
	if n := list(enoughSamples, 0); n != 2 {
		t.Errorf("an unknown thread: %d files with attributes, want all", n)
	}
	// Another thread looks up an entry that the thread got without attributes.
	if _, err := s.lookup(dir(enoughSamples+1), "f"); err != nil {
		t.Fatal(err)
	}
	for i := enoughSamples + 2; i < count; i++ {
		if n := list(i, thread); n != 2 {
			t.Errorf("after a look, listing %d: %d files with attributes, want all", i, n)
		}
	}
}

// A long listing comes with attributes so far and no further, unless its reader is known to look.
func TestLongListings(t *testing.T) {
	var l listers
	if got := l.detailFor(1, 0); got != allButSample {
		t.Errorf("at the beginning: %v", got)
	}
	if got := l.detailFor(1, maxUnknown); got != allAttributes {
		t.Errorf("at %d: %v, want all", maxUnknown, got)
	}
	if got := l.detailFor(1, maxUnknown+1); got != noAttributes {
		t.Errorf("beyond: %v, want names", got)
	}
	l.noteLookup(1)
	if got := l.detailFor(1, maxUnknown+1); got != allAttributes {
		t.Errorf("beyond, to who looks: %v, want all", got)
	}
}

// A listing without attributes has the same inode numbers and types as the objects.
func TestNumbersInListingsAreThoseOfTheObjects(t *testing.T) {
	s := newSite(t, "file d1/new x", forests(3))
	for _, p := range []string{"d0", "d1", "d2"} {
		id, err := s.walk(p)
		must(t, err)
		in := fuse.ReadIn{InHeader: s.header(id), Size: 1 << 16}
		list := fuse.NewDirEntryList(make([]byte, in.Size), 0)
		must(t, errorOf(s.o.ReadDir(nil, &in, list)))
		entries, err := parseDirents(list.Bytes(), namesOnly)
		must(t, err)
		for _, e := range entries {
			if e.name == "." || e.name == ".." {
				continue
			}
			out, err := s.lookup(id, e.name)
			must(t, err)
			if out.Ino != e.ino || out.Mode>>12 != e.typ {
				t.Errorf("%s/%s: listed as %d of type %d, is %d of type %d", p, e.name, e.ino, e.typ, out.Ino, out.Mode>>12)
			}
		}
	}
}

// TestOldListersGo: the memory of listers is bounded, and one that is forgotten is judged anew.
func TestOldListersGo(t *testing.T) {
	var l listers
	for range enoughSamples {
		l.detailFor(1, 0)
	}
	if l.detailFor(1, 0) != noAttributes {
		t.Fatal("a lister of names is not known as one")
	}
	for thread := range uint32(len(l.known)) {
		l.detailFor(1000+thread, 0)
	}
	if got := l.detailFor(1, 0); got != allButSample {
		t.Errorf("after %d others: %v, want a new judgement", len(l.known), got)
	}
}
