package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// metacopy is the option under which changes of attributes leave data where it is.
const metacopy = "metacopy=on"

// blocksOf is what a file takes on the disk, in 512 bytes.
func blocksOf(t *testing.T, path string) int64 {
	t.Helper()
	st := lstat(t, path)
	return st.Blocks
}

// A change of attributes copies no data, and whoever reads, maps or has the file open sees no difference; the first write brings
// the data.
func TestMetacopy(t *testing.T) {
	eachIO(t, allModes, func(t *testing.T, e *env) {
		text := strings.Repeat("0123456789abcdef", 1<<14) // 256 KiB
		o := e.overlay(t, "file d/f 0644\nfile d/g 0644\nfile d/cut 0644\ndir e")
		for _, name := range []string{"d/f", "d/g", "d/cut"} {
			write(t, filepath.Join(o.lowers[0], name), text)
		}
		o.opts = append(o.opts, metacopy)
		o.mount()
		reader, err := os.Open(o.path("d/f"))
		check(t, err)
		defer reader.Close()
		before := blocksOf(t, o.path("d/f"))
		check(t, os.Chmod(o.path("d/f"), 0o600))
		check(t, unix.Setxattr(o.path("d/f"), "user.note", []byte("n"), 0))
		for range 2 {
			upper := filepath.Join(o.upper, "d/f")
			if n := blocksOf(t, upper); n > 16 {
				t.Errorf("%d blocks were copied", n)
			}
			equal(t, "blocks shown", blocksOf(t, o.path("d/f")), before)
			wantText(t, o.path("d/f"), text)
			if reader != nil {
				wantRead(t, reader, text)
				reader.Close()
				reader = nil
			}
			o.remount()
		}
		// Other names, of which each leads to the data.
		check(t, os.Rename(o.path("d/f"), o.path("e/moved")))
		check(t, os.Link(o.path("e/moved"), o.path("linked")))
		check(t, os.Rename(o.path("d/g"), o.path("d/beside")))
		for range 2 {
			wantText(t, o.path("e/moved"), text)
			wantText(t, o.path("linked"), text)
			wantText(t, o.path("d/beside"), text)
			o.remount()
		}
		for _, name := range []string{"e/moved", "d/beside"} {
			if n := blocksOf(t, filepath.Join(o.upper, name)); n > 16 {
				t.Errorf("%s: %d blocks were copied", name, n)
			}
		}
		// A write through one name, with the file open through the other.
		reader, err = os.Open(o.path("linked"))
		check(t, err)
		wantRead(t, reader, text)
		appendTo(t, o.path("e/moved"), "+")
		wantRead(t, reader, text+"+")
		reader.Close()
		check(t, os.Chmod(o.path("d/cut"), 0o640))
		check(t, os.Truncate(o.path("d/cut"), 10))
		check(t, os.Remove(o.path("d/beside")))
		for range 2 {
			wantText(t, o.path("linked"), text+"+")
			wantText(t, o.path("e/moved"), text+"+")
			wantText(t, o.path("d/cut"), text[:10])
			wantNames(t, o.path("d"), "cut")
			o.remount()
		}
		// Without the option it must not be read as what it is not.
		check(t, os.Chmod(o.path("d/cut"), 0o644)) // has its data
		o.unmount()
		o.opts = o.opts[:len(o.opts)-1]
		o.mount()
		wantText(t, o.path("linked"), text+"+")
		wantText(t, o.path("d/cut"), text[:10])
	})
}

// wantRead reads an open file from its start.
func wantRead(t *testing.T, f *os.File, want string) {
	t.Helper()
	got := make([]byte, len(want)+10)
	n, err := f.ReadAt(got, 0)
	if n == 0 {
		check(t, err)
	}
	if string(got[:n]) != want {
		t.Errorf("%d bytes that are not the %d wanted", n, len(want))
	}
}

// A file that its owner may not write to loses nothing by that.
func TestMetacopyOfClosedFile(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, e *env) {
		o := e.overlay(t, "file a 0444 \"text\"\nfile b 0400 \"text\"\nlink b2 b\nfile c 0644 \"text\"")
		o.opts = append(o.opts, metacopy)
		o.mount()
		f := open(t, o.path("c"), os.O_RDWR)
		check(t, os.Chmod(o.path("c"), 0o444))
		_, err := f.WriteAt([]byte("T"), 0) // who has it open may
		check(t, err)
		check(t, f.Close())
		for _, name := range []string{"a", "b"} {
			check(t, os.Chmod(o.path(name), 0o440))
		}
		for range 2 {
			wantText(t, o.path("a"), "text")
			wantText(t, o.path("b"), "text")
			wantText(t, o.path("b2"), "text")
			wantText(t, o.path("c"), "Text")
			equal(t, "mode", lstat(t, o.path("c")).Mode&0o7777, 0o444)
			o.remount()
		}
	})
}

// A copy in the index that has no data is not taken for one that has, by whatever name it is met.
func TestSharedMetacopyOff(t *testing.T) {
	needDaemon(t)
	eachMode(t, onlyRoot, func(t *testing.T, e *env) {
		o := e.overlay(t, "file a 0644 \"text\"\nlink b a")
		o.opts = append(e.opts, metacopy, "index=on")
		o.mount()
		check(t, os.Chmod(o.path("a"), 0o600))
		o.remount()
		wantText(t, o.path("b"), "text")
		o.unmount()
		o.opts = append(e.opts, "index=on")
		o.mount()
		for _, name := range []string{"a", "b"} {
			_, err := os.ReadFile(o.path(name))
			wantErr(t, "reading "+name, err, syscall.EPERM)
		}
		wantNames(t, o.mnt, "a", "b")
	})
}

// A file without data that is removed while it is in use goes on, and can still be written to.
func TestRemovedMetacopy(t *testing.T) {
	eachIO(t, rootModes, func(t *testing.T, e *env) {
		o := e.overlay(t, "file f 0644 \"text\"")
		o.opts = append(o.opts, metacopy)
		o.mount()
		f, err := os.OpenFile(o.path("f"), os.O_RDWR, 0)
		check(t, err)
		defer f.Close()
		check(t, os.Chmod(o.path("f"), 0o600))
		check(t, os.Remove(o.path("f")))
		wantRead(t, f, "text")
		check(t, f.Chmod(0o640))
		_, err = f.WriteAt([]byte("T"), 0)
		check(t, err)
		wantRead(t, f, "Text")
	})
}

// A mount without metacopy=on refuses files without data, lists them, and leaves the rest alone.
func TestMetacopyOff(t *testing.T) {
	needDaemon(t)
	eachMode(t, rootModes, func(t *testing.T, e *env) {
		o := e.overlay(t, "file d/f 0644 \"text\"\nfile d/g 0644 \"other\"")
		o.opts = []string{metacopy}
		o.mount()
		check(t, os.Chmod(o.path("d/f"), 0o600))
		o.unmount()
		o.opts = nil
		o.mount()
		_, err := os.ReadFile(o.path("d/f"))
		wantErr(t, "reading it", err, syscall.EPERM)
		wantNames(t, o.path("d"), "f", "g")
		wantText(t, o.path("d/g"), "other")
		appendTo(t, o.path("d/g"), "+")
		wantText(t, o.path("d/g"), "other+")
	})
}

// Layers that have nothing but data show through files of lowers alone, with and without an upper, as in the kernel.
func TestDataOnlyLowers(t *testing.T) {
	eachMode(t, rootModes, func(t *testing.T, e *env) {
		prefix := strings.TrimSuffix(e.opaqueName(), "opaque")
		o := e.overlay(t, "file a 0600\nfile p/b 0640\nfile lost 0644\nfile plain 0644 \"plain\"", "file plain \"no\"")
		for _, f := range []struct {
			path, to string
			size     int64
		}{{"a", "/objects/1", 4}, {"p/b", "/objects/2", 5}, {"lost", "/objects/3", 1}} {
			path := filepath.Join(o.lowers[0], f.path)
			check(t, os.Truncate(path, f.size))
			check(t, unix.Setxattr(path, prefix+"metacopy", nil, 0))
			check(t, unix.Setxattr(path, prefix+"redirect", []byte(f.to), 0))
		}
		first, second := filepath.Join(e.dir, "data1"), filepath.Join(e.dir, "data2")
		mkdir(t, first, second)
		build(t, e, first, "file objects/1 \"text\"")
		build(t, e, second, "file objects/1 \"no\"\nfile objects/2 \"other\"")
		lowers := o.lowers
		o.lowers = []string{strings.Join(lowers, ":") + "::" + first + "::" + second}
		for _, opts := range [][]string{{metacopy}, nil} {
			o.opts = opts
			o.mount()
			wantNames(t, o.mnt, "a", "lost", "p", "plain") // and no objects
			wantText(t, o.path("a"), "text")
			wantText(t, o.path("p/b"), "other")
			wantText(t, o.path("plain"), "plain")
			if _, err := os.ReadFile(o.path("lost")); err == nil {
				t.Error("a file whose data is nowhere was read")
			}
			check(t, os.Chmod(o.path("a"), 0o644))
			wantText(t, o.path("a"), "text")
			appendTo(t, o.path("a"), "+")
			wantText(t, o.path("a"), "text+")
			o.remount()
			wantText(t, o.path("a"), "text+")
			check(t, os.Chtimes(o.path("p/b"), time.Unix(1, 0), time.Unix(2, 0)))
			wantText(t, o.path("p/b"), "other")
			o.unmount()
			check(t, os.RemoveAll(o.upper))
			check(t, os.RemoveAll(o.work))
			mkdir(t, o.upper)
		}
		upper := o.upper
		o.upper, o.opts = "", nil
		o.lowers = []string{upper + ":" + o.lowers[0]}
		o.mount()
		wantText(t, o.path("a"), "text")
		wantText(t, o.path("p/b"), "other")
	})
}
