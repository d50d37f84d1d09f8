package stack

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// inodesOf counts the whiteouts of an upper by their inodes. It fails on any other object.
func inodesOf(t *testing.T, dir string) map[uint64]int {
	t.Helper()
	count := map[uint64]int{}
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range entries {
		var st unix.Stat_t
		must(t, unix.Lstat(filepath.Join(dir, e.Name()), &st))
		if st.Mode != unix.S_IFCHR || st.Rdev != 0 {
			t.Errorf("%s is no whiteout: mode %o", e.Name(), st.Mode)
		}
		count[st.Ino]++
	}
	return count
}

// sharedDevice returns the name of the device in a directory that the whiteouts are links of;
// empty: there is none.
func sharedDevice(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if !errors.Is(err, os.ErrNotExist) {
		must(t, err)
	}
	for _, e := range entries {
		if e.Type() == os.ModeDevice|os.ModeCharDevice {
			return e.Name()
		}
	}
	return ""
}

// manyFiles are lines of a table, and their names.
func manyFiles(n int) (table string, names []string) {
	for i := range n {
		names = append(names, fmt.Sprint("f", i))
	}
	return "file " + strings.Join(names, "\nfile "), names
}

// Whiteouts of files and directories are links of one inode, over nothing and over objects of the
// upper. A remount leaves no other link of it.
func TestWhiteoutsShareAnInode(t *testing.T) {
	table, names := manyFiles(50)
	s := newSite(t, "file f0 up\nfile f1 up\ndir d\nwhite d/x", table+"\ndir d\nfile d/x\ndir e")
	root := s.dir("").withNames()
	for _, name := range append(names, "d", "e") {
		must(t, root.remove(name))
	}
	if got := inodesOf(t, s.cfg.Upper); len(got) != 1 {
		t.Errorf("52 whiteouts are %d inodes", len(got))
	}
	s.wantView("removed", "")
	if sharedDevice(t, filepath.Join(s.cfg.Work, workName)) != "" {
		t.Error("a new mount has a device already")
	}
}

// With index=on the device lies in the index, so whiteouts need no other part of the work
// directory, as in the kernel (xfstests overlay/073). Without index=on, and if the work directory
// was removed, each whiteout is a device.
func TestSharedWhiteoutWithoutWorkDirectory(t *testing.T) {
	for index, want := range map[bool]int{true: 1, false: 12} {
		table, names := manyFiles(10)
		c := newFolders(t, "", table+"\ndir d\nfile l\nlink l2 l\ndir e")
		c.Features.Index = index
		s := openSite(t, c)
		if s.KeepsLinks() != index {
			t.Fatal(s.Warnings())
		}
		must(t, os.Remove(filepath.Join(c.Work, workName)))
		root := s.dir("").withNames()
		for _, name := range append(names, "d", "e") {
			must(t, root.remove(name))
		}
		if got := inodesOf(t, c.Upper); len(got) != want {
			t.Errorf("index %v: 12 whiteouts are %d inodes, want %d", index, len(got), want)
		}
		must(t, os.Mkdir(filepath.Join(c.Work, workName), 0o700))
		s.remount()
		if index {
			if left, err := os.ReadDir(filepath.Join(c.Work, indexName)); err != nil || len(left) > 0 {
				t.Errorf("left in the index: %v, %v", left, err)
			}
		}
	}
}

// If the device has its largest number of links, another device replaces it. Without links each
// whiteout is a device.
func TestWhiteoutsWithoutLinks(t *testing.T) {
	for _, tt := range []struct {
		errno  unix.Errno
		every  int // so many links succeed before one fails
		inodes int
	}{
		{unix.EMLINK, 10, 3}, {unix.EXDEV, 0, 30}, {unix.EPERM, 5, 26}, {unix.EOPNOTSUPP, 0, 30},
	} {
		table, names := manyFiles(30)
		s := newSite(t, "", table)
		root := s.dir("").withNames()
		links := 0
		sys.SetFault(func(op sys.Op) error {
			if op.Call != "linkat" {
				return nil
			}
			if links++; links > tt.every {
				links = 0
				return tt.errno
			}
			return nil
		})
		for _, name := range names {
			must(t, root.remove(name))
		}
		sys.SetFault(nil)
		if got := inodesOf(t, s.cfg.Upper); len(got) != tt.inodes {
			t.Errorf("%v: 30 whiteouts are %d inodes, want %d", tt.errno, len(got), tt.inodes)
		}
		s.wantEmptyWork()
		s.wantView("removed", "")
	}
	// Another error is returned, and nothing changes.
	s := newSite(t, "", "file f")
	root := s.dir("").withNames()
	sys.SetFault(func(op sys.Op) error {
		if op.Call == "linkat" {
			return unix.ENOSPC
		}
		return nil
	})
	err := root.remove("f")
	sys.SetFault(nil)
	if f := root.lookup("f"); err != unix.ENOSPC || !f.Exists() {
		t.Errorf("a full disk: %v", err)
	}
}
