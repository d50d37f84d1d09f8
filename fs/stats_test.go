package fs

import (
	"path/filepath"
	"slices"
	"testing"
)

// Each way in which an object gets its copy counts once, with the bytes of data that the copy took.
func TestStatsOfCopyUps(t *testing.T) {
	cfg := newFolders(t, "", "file d/changed 0123456789\nfile d/cut 0123456789\nfile d/open 0123456789\nfile d/mode 0123456789\nsymlink d/link x")
	cfg.Features.MetaCopy, cfg.Redirects = true, RedirectsOn
	s := openSite(t, cfg)
	check := func(what string, objects, bytes uint64) {
		t.Helper()
		if got := s.o.Stats(); got.CopyUps != objects || got.CopyUpBytes != bytes {
			t.Errorf("%s: %d objects and %d bytes were copied up, want %d and %d", what, got.CopyUps, got.CopyUpBytes, objects, bytes)
		}
	}
	check("at first", 0, 0)
	s.do(s.write("d/changed", 0, "x"))
	check("a write, with its directory", 2, 10)
	s.do(s.write("d/changed", 0, "y"))
	check("another write to the copy", 2, 10)
	s.do(s.truncate("d/cut", 3))
	check("a truncation", 3, 13)
	s.do(s.chmod("d/mode", 0o600))
	check("a change of the mode of a metacopy", 4, 13)
	s.do(s.write("d/mode", 0, "x"))
	check("the data of the metacopy", 4, 23)
	id, err := s.walk("d/open")
	must(t, err)
	s.do(s.unlink("d/open"))
	must(t, s.writeNode(id, 0, "x"))
	check("a write to a removed file", 5, 33)
	s.do(s.chown("d/link", 1, 1))
	check("a symbolic link", 6, 33)
}

// With index=on a copy is published in another way.
func TestStatsOfSharedCopyUps(t *testing.T) {
	cfg := newFolders(t, "", "file a 0123456789\nlink b a")
	cfg.Features.Index = true
	s := openSite(t, cfg)
	s.do(s.write("a", 0, "x"))
	s.do(s.write("b", 0, "y"))
	if got := s.o.Stats(); got.CopyUps != 1 || got.CopyUpBytes != 10 {
		t.Errorf("%d objects and %d bytes, want 1 and 10", got.CopyUps, got.CopyUpBytes)
	}
}

func TestStatsOfCaches(t *testing.T) {
	s := newSite(t, "dir d", "file d/a x\nfile d/b y\nfile d/c z", "file d/low text")
	before := s.o.Stats()
	if before.Inodes != 1 || before.InodesMade != 1 {
		t.Errorf("%d inodes of %d at first, want the root", before.Inodes, before.InodesMade)
	}
	for range 3 {
		for _, p := range []string{"d/a", "d/b"} {
			if _, err := s.read(p); err != nil {
				t.Fatal(err)
			}
		}
	}
	got := s.o.Stats()
	if got.Inodes != 4 || got.InodesMade != 4 { // the root, d, a, b
		t.Errorf("%d inodes of %d after six lookups of two files", got.Inodes, got.InodesMade)
	}
	if n := got.DirLoads - before.DirLoads; n != 1 {
		t.Errorf("%d directories were loaded, want d", n)
	}
	if h := got.Handles; h.Added == 0 || h.Found <= h.Added || h.Open == 0 || h.Open > h.Added {
		t.Errorf("handles: %+v", h)
	}
	s.forget(nil)
	if after := s.o.Stats(); after.Inodes != 1 || after.InodesMade != 4 {
		t.Errorf("%d inodes of %d after FORGET", after.Inodes, after.InodesMade)
	}
}

func TestStatsOfPrefetch(t *testing.T) {
	r := newReading(t, "", letters('a', 'z'))
	var fromMemory uint64
	for _, name := range r.inOrder() {
		if called := r.read(name, "text of "+name); !called {
			fromMemory++
		}
	}
	if got := r.o.Stats().PrefetchedReads; got != fromMemory || got == 0 {
		t.Errorf("%d READs count as prefetched, and %d called no layer", got, fromMemory)
	}
}

func TestLayersAndMode(t *testing.T) {
	t.Run("writable", func(t *testing.T) {
		s := newSite(t, "", "dir a", "dir b")
		l := s.o.Layers()
		if l.Upper != s.cfg.Upper || !slices.Equal(l.Lowers, s.cfg.Lowers) || len(l.DataOnly) > 0 || s.o.Mode() != ModeDurable {
			t.Errorf("%+v, %s", l, s.o.Mode())
		}
	})
	t.Run("volatile", func(t *testing.T) {
		cfg := newFolders(t, "", "dir a")
		cfg.Volatile = true
		if s := openSite(t, cfg); s.o.Mode() != ModeVolatile {
			t.Errorf("%s", s.o.Mode())
		}
	})
	t.Run("read-only", func(t *testing.T) {
		cfg := newFolders(t, "", "dir a")
		cfg.Upper, cfg.Work = "", ""
		t.Chdir(filepath.Dir(cfg.Lowers[0]))
		cfg.Lowers = []string{filepath.Base(cfg.Lowers[0])}
		s := openSite(t, cfg)
		if l := s.o.Layers(); l.Upper != "" || len(l.Lowers) != 1 || !filepath.IsAbs(l.Lowers[0]) || s.o.Mode() != ModeReadOnly {
			t.Errorf("%+v, %s", l, s.o.Mode())
		}
	})
}
