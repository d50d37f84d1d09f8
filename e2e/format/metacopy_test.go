package format

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// metacopy is the option under which a change of metadata copies no data.
const metacopy = "metacopy=on"

// blocksOf is the space of a file on disk, in units of 512 bytes.
func blocksOf(t *testing.T, path string) int64 {
	t.Helper()
	st := harness.Lstat(t, path)
	return st.Blocks
}

// A change of metadata copies no data. A process that reads the file, maps it or has it open sees
// no difference. The first write copies the data.
func TestMetacopy(t *testing.T) {
	harness.EachIO(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		text := strings.Repeat("0123456789abcdef", 1<<14) // 256 KiB
		o := e.Overlay(t, "file d/f 0644\nfile d/g 0644\nfile d/cut 0644\ndir e")
		for _, name := range []string{"d/f", "d/g", "d/cut"} {
			harness.Write(t, filepath.Join(o.Lowers[0], name), text)
		}
		o.Opts = append(o.Opts, metacopy)
		o.Mount()
		reader, err := os.Open(o.Path("d/f"))
		harness.Check(t, err)
		defer reader.Close()
		before := blocksOf(t, o.Path("d/f"))
		harness.Check(t, os.Chmod(o.Path("d/f"), 0o600))
		harness.Check(t, unix.Setxattr(o.Path("d/f"), "user.note", []byte("n"), 0))
		for range 2 {
			upper := filepath.Join(o.Upper, "d/f")
			if n := blocksOf(t, upper); n > 16 {
				t.Errorf("%d blocks were copied", n)
			}
			harness.Equal(t, "blocks shown", blocksOf(t, o.Path("d/f")), before)
			harness.WantText(t, o.Path("d/f"), text)
			if reader != nil {
				wantRead(t, reader, text)
				reader.Close()
				reader = nil
			}
			o.Remount()
		}
		// Each of the other names leads to the data.
		harness.Check(t, os.Rename(o.Path("d/f"), o.Path("e/moved")))
		harness.Check(t, os.Link(o.Path("e/moved"), o.Path("linked")))
		harness.Check(t, os.Rename(o.Path("d/g"), o.Path("d/beside")))
		for range 2 {
			harness.WantText(t, o.Path("e/moved"), text)
			harness.WantText(t, o.Path("linked"), text)
			harness.WantText(t, o.Path("d/beside"), text)
			o.Remount()
		}
		for _, name := range []string{"e/moved", "d/beside"} {
			if n := blocksOf(t, filepath.Join(o.Upper, name)); n > 16 {
				t.Errorf("%s: %d blocks were copied", name, n)
			}
		}
		// A write through one name, with the file open through the other.
		reader, err = os.Open(o.Path("linked"))
		harness.Check(t, err)
		wantRead(t, reader, text)
		harness.AppendTo(t, o.Path("e/moved"), "+")
		wantRead(t, reader, text+"+")
		reader.Close()
		harness.Check(t, os.Chmod(o.Path("d/cut"), 0o640))
		harness.Check(t, os.Truncate(o.Path("d/cut"), 10))
		harness.Check(t, os.Remove(o.Path("d/beside")))
		for range 2 {
			harness.WantText(t, o.Path("linked"), text+"+")
			harness.WantText(t, o.Path("e/moved"), text+"+")
			harness.WantText(t, o.Path("d/cut"), text[:10])
			harness.WantNames(t, o.Path("d"), "cut")
			o.Remount()
		}
		// Without the option the file must not be read as an empty one.
		harness.Check(t, os.Chmod(o.Path("d/cut"), 0o644)) // has its data
		o.Unmount()
		o.Opts = o.Opts[:len(o.Opts)-1]
		o.Mount()
		harness.WantText(t, o.Path("linked"), text+"+")
		harness.WantText(t, o.Path("d/cut"), text[:10])
	})
}

// wantRead reads an open file from its start.
func wantRead(t *testing.T, f *os.File, want string) {
	t.Helper()
	got := make([]byte, len(want)+10)
	n, err := f.ReadAt(got, 0)
	if n == 0 {
		harness.Check(t, err)
	}
	if string(got[:n]) != want {
		t.Errorf("%d bytes that are not the %d wanted", n, len(want))
	}
}

// A file without write permission for its owner keeps its data.
func TestMetacopyOfClosedFile(t *testing.T) {
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "file a 0444 \"text\"\nfile b 0400 \"text\"\nlink b2 b\nfile c 0644 \"text\"")
		o.Opts = append(o.Opts, metacopy)
		o.Mount()
		f := harness.Open(t, o.Path("c"), os.O_RDWR)
		harness.Check(t, os.Chmod(o.Path("c"), 0o444))
		_, err := f.WriteAt([]byte("T"), 0) // a process that has it open may
		harness.Check(t, err)
		harness.Check(t, f.Close())
		for _, name := range []string{"a", "b"} {
			harness.Check(t, os.Chmod(o.Path(name), 0o440))
		}
		for range 2 {
			harness.WantText(t, o.Path("a"), "text")
			harness.WantText(t, o.Path("b"), "text")
			harness.WantText(t, o.Path("b2"), "text")
			harness.WantText(t, o.Path("c"), "Text")
			harness.Equal(t, "mode", harness.Lstat(t, o.Path("c")).Mode&0o7777, 0o444)
			o.Remount()
		}
	})
}

// A metacopy in the index is a metacopy under each of its names.
func TestSharedMetacopyOff(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "file a 0644 \"text\"\nlink b a")
		o.Opts = append(e.Opts, metacopy, "index=on")
		o.Mount()
		harness.Check(t, os.Chmod(o.Path("a"), 0o600))
		o.Remount()
		harness.WantText(t, o.Path("b"), "text")
		o.Unmount()
		o.Opts = append(e.Opts, "index=on")
		o.Mount()
		for _, name := range []string{"a", "b"} {
			_, err := os.ReadFile(o.Path(name))
			harness.WantErr(t, "reading "+name, err, syscall.EPERM)
		}
		harness.WantNames(t, o.Point, "a", "b")
	})
}

// A metacopy that is removed while it is open can still be read and written.
func TestRemovedMetacopy(t *testing.T) {
	harness.EachIO(t, harness.RootModes, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "file f 0644 \"text\"")
		o.Opts = append(o.Opts, metacopy)
		o.Mount()
		f, err := os.OpenFile(o.Path("f"), os.O_RDWR, 0)
		harness.Check(t, err)
		defer f.Close()
		harness.Check(t, os.Chmod(o.Path("f"), 0o600))
		harness.Check(t, os.Remove(o.Path("f")))
		wantRead(t, f, "text")
		harness.Check(t, f.Chmod(0o640))
		_, err = f.WriteAt([]byte("T"), 0)
		harness.Check(t, err)
		wantRead(t, f, "Text")
	})
}

// A mount without metacopy=on lists metacopies and refuses to open them. Other files work.
func TestMetacopyOff(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.RootModes, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "file d/f 0644 \"text\"\nfile d/g 0644 \"other\"")
		o.Opts = []string{metacopy}
		o.Mount()
		harness.Check(t, os.Chmod(o.Path("d/f"), 0o600))
		o.Unmount()
		o.Opts = nil
		o.Mount()
		_, err := os.ReadFile(o.Path("d/f"))
		harness.WantErr(t, "reading it", err, syscall.EPERM)
		harness.WantNames(t, o.Path("d"), "f", "g")
		harness.WantText(t, o.Path("d/g"), "other")
		harness.AppendTo(t, o.Path("d/g"), "+")
		harness.WantText(t, o.Path("d/g"), "other+")
	})
}

// Data-only layers show only through metacopies of lowers, with and without an upper, as in the
// kernel.
func TestDataOnlyLowers(t *testing.T) {
	harness.EachMode(t, harness.RootModes, func(t *testing.T, e *harness.Env) {
		prefix := e.XattrPrefix()
		o := e.Overlay(t, "file a 0600\nfile p/b 0640\nfile lost 0644\nfile plain 0644 \"plain\"", "file plain \"no\"")
		for _, f := range []struct {
			path, to string
			size     int64
		}{{"a", "/objects/1", 4}, {"p/b", "/objects/2", 5}, {"lost", "/objects/3", 1}} {
			path := filepath.Join(o.Lowers[0], f.path)
			harness.Check(t, os.Truncate(path, f.size))
			harness.Check(t, unix.Setxattr(path, prefix+"metacopy", nil, 0))
			harness.Check(t, unix.Setxattr(path, prefix+"redirect", []byte(f.to), 0))
		}
		first, second := filepath.Join(e.Dir, "data1"), filepath.Join(e.Dir, "data2")
		harness.Mkdir(t, first, second)
		harness.Build(t, e, first, "file objects/1 \"text\"")
		harness.Build(t, e, second, "file objects/1 \"no\"\nfile objects/2 \"other\"")
		lowers := o.Lowers
		o.Lowers = []string{strings.Join(lowers, ":") + "::" + first + "::" + second}
		for _, opts := range [][]string{{metacopy}, nil} {
			o.Opts = opts
			o.Mount()
			harness.WantNames(t, o.Point, "a", "lost", "p", "plain") // and no objects
			harness.WantText(t, o.Path("a"), "text")
			harness.WantText(t, o.Path("p/b"), "other")
			harness.WantText(t, o.Path("plain"), "plain")
			if _, err := os.ReadFile(o.Path("lost")); err == nil {
				t.Error("a file whose data is nowhere was read")
			}
			harness.Check(t, os.Chmod(o.Path("a"), 0o644))
			harness.WantText(t, o.Path("a"), "text")
			harness.AppendTo(t, o.Path("a"), "+")
			harness.WantText(t, o.Path("a"), "text+")
			o.Remount()
			harness.WantText(t, o.Path("a"), "text+")
			harness.Check(t, os.Chtimes(o.Path("p/b"), time.Unix(1, 0), time.Unix(2, 0)))
			harness.WantText(t, o.Path("p/b"), "other")
			o.Unmount()
			harness.Check(t, os.RemoveAll(o.Upper))
			harness.Check(t, os.RemoveAll(o.Work))
			harness.Mkdir(t, o.Upper)
		}
		upper := o.Upper
		o.Upper, o.Opts = "", nil
		o.Lowers = []string{upper + ":" + o.Lowers[0]}
		o.Mount()
		harness.WantText(t, o.Path("a"), "text")
		harness.WantText(t, o.Path("p/b"), "other")
	})
}

// A metacopy of one of several linked files has no origin. After a rename or a link to a new
// directory, in a later mount, a mount without metacopy=on refuses it, and does not read its holes.
func TestMovedMetacopyWithoutOrigin(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.RootModes, func(t *testing.T, e *harness.Env) {
		for what, move := range map[string]func(o *harness.Overlay) error{
			"rename": func(o *harness.Overlay) error { return os.Rename(o.Path("a"), o.Path("new/a")) },
			"link":   func(o *harness.Overlay) error { return os.Link(o.Path("a"), o.Path("new/a")) },
			"exchange": func(o *harness.Overlay) error {
				harness.Write(t, o.Path("new/a"), "other")
				return unix.Renameat2(unix.AT_FDCWD, o.Path("new/a"), unix.AT_FDCWD, o.Path("a"), unix.RENAME_EXCHANGE)
			},
		} {
			t.Run(what, func(t *testing.T) {
				e := harness.NewEnv(t, e.Mode)
				e.Opts = []string{metacopy}
				o := e.Mounted(t, "file a \"text of the lower\"\nlink b a")
				harness.Check(t, os.Chmod(o.Path("a"), 0o600))
				o.Remount()
				harness.Mkdir(t, o.Path("new"))
				harness.Check(t, move(o))
				harness.WantText(t, o.Path("new/a"), "text of the lower")
				o.Unmount()
				o.Opts = nil
				o.Mount()
				_, err := os.ReadFile(o.Path("new/a"))
				harness.WantErr(t, "reading the metacopy", err, syscall.EPERM)
				o.Unmount()
			})
		}
	})
}
