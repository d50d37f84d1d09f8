package stack

import (
	"errors"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit/systest"
)

// A stack that only reads an upper finds the copies in its index, while another mount has the
// upper.
func TestIndexIsRead(t *testing.T) {
	s := newLinked(t)
	s.copyUp("d/f")
	c := s.cfg
	c.ReadOnly = true
	var writes []string
	reader := &site{}
	for _, op := range systest.Calls(func() { reader = openSite(t, c) }) {
		switch op.Call {
		case "setxattr", "mkdirat", "unlinkat", "renameat2", "linkat", "fchmodat", "fchownat":
			writes = append(writes, op.Call)
		}
	}
	if len(writes) > 0 {
		t.Errorf("opening it makes %v", writes)
	}
	for _, path := range []string{"d/f", "d/g", "e/h"} {
		if _, _, f := reader.at(path); f.Layer != Upper || f.Shared == nil || f.Stat.Nlink != 3 {
			t.Errorf("%s: %+v", path, f)
		}
	}
	c.Features.Index = false
	if _, _, f := openSite(t, c).at("e/h"); f.Layer == Upper {
		t.Errorf("without index: %+v", f)
	}
}

// The index counts only with the layers that it was made with. Without an index there is none.
func TestIndexThatIsReadBelongsToItsLayers(t *testing.T) {
	s := newLinked(t)
	s.copyUp("d/f")
	s.shut()
	other := newFolders(t, "dir d", linkedLower)
	open := func(change func(c *Config)) error {
		c := s.cfg
		c.ReadOnly = true
		change(&c)
		reader, err := Open(c)
		if err == nil {
			reader.Close()
		}
		return err
	}
	if err := open(func(c *Config) { c.Lowers = other.Lowers }); !errors.Is(err, errOtherLower) {
		t.Errorf("another lower: %v", err)
	}
	if err := open(func(c *Config) { c.Upper = other.Upper }); !errors.Is(err, errOtherUpper) {
		t.Errorf("another upper: %v", err)
	}
	if err := open(func(c *Config) { c.Work = filepath.Join(c.Upper, "d") }); err != nil {
		t.Errorf("a work directory without an index: %v", err)
	}
	systest.While(func(op sys.Op) bool { return op.Call == "open" && op.Name == filepath.Join(s.cfg.Work, indexName) }, unix.EIO, func() {
		if err := open(func(*Config) {}); !errors.Is(err, unix.EIO) {
			t.Errorf("an index that cannot be opened: %v", err)
		}
	})
}
