package io

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// eachPassthrough is EachMode for root, with passthrough.
func eachPassthrough(t *testing.T, fn func(t *testing.T, e *harness.Env)) {
	t.Helper()
	harness.NeedDaemon(t)
	harness.NeedPassthrough(t, harness.Passthrough)
	harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		e.Opts = []string{harness.Passthrough}
		fn(t, e)
	})
}

// duringClose is Overlay.During for an fn that closes files. The kernel sends RELEASE in the
// background.
func duringClose(o *harness.Overlay, opens int64, fn func()) harness.Counts {
	o.T.Helper()
	before := o.Requests()
	fn()
	var got harness.Counts
	if !harness.Eventually(5*time.Second, func() bool { got = o.Requests().Minus(before); return got["RELEASE"] >= opens }) {
		o.T.Errorf("not closed: %s", got)
	}
	return got
}

func TestPassthroughRequests(t *testing.T) {
	harness.Raced(t)
	eachPassthrough(t, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "file low \"of the lower\"\nfile big \"\"\nsize big 67108864")
		harness.Build(t, e, o.Upper, "file up \"of the upper\"\nfile over \"of the upper\"")
		o.Mount()
		read := func(name string) func() { return func() { harness.ReadText(t, o.Path(name)) } }
		// A read invalidates the atime: one GETATTR, by Go's fstat.
		once := harness.Counts{"OPEN": 1, "RELEASE": 1}
		for _, name := range []string{"up", "low"} {
			duringClose(o, 1, read(name))
			harness.WantCounts(t, "reading "+name+" again", duringClose(o, 1, read(name)), once, harness.Counts{"GETATTR": 1})
		}
		duringClose(o, 1, func() { harness.Write(t, o.Path("first"), "learns what the kernel need not ask") })
		got := duringClose(o, 1, func() { harness.Write(t, o.Path("new"), strings.Repeat("text", 100_000)) })
		harness.WantCounts(t, "create and write", got, harness.Counts{"LOOKUP": 1, "CREATE": 1, "RELEASE": 1},
			harness.ByKernel)
		got = duringClose(o, 1, func() { harness.Write(t, o.Path("over"), "other") })
		harness.WantCounts(t, "overwrite", got, once, harness.Counts{"LOOKUP": 1, "GETATTR": 1, "GETXATTR": 2})
		got = duringClose(o, 1, func() { harness.Write(t, o.Path("big"), "other") })
		harness.WantCounts(t, "overwrite a lower", got, once, harness.Counts{"LOOKUP": 1, "GETATTR": 1, "GETXATTR": 2})
		got = duringClose(o, 1, func() {
			f := harness.Open(t, o.Path("over"), os.O_WRONLY|os.O_APPEND)
			for range 10_000 {
				_, err := f.WriteString("line\n")
				harness.Check(t, err)
			}
			harness.Check(t, f.Close())
		})
		harness.WantCounts(t, "10,000 appends", got, once, harness.Counts{"GETATTR": 1, "GETXATTR": 1})
		o.Unmount()
		harness.WantText(t, filepath.Join(o.Upper, "over"), "other"+strings.Repeat("line\n", 10_000))
		harness.WantText(t, filepath.Join(o.Upper, "big"), "other")
	})
}

// Nothing of a read-only overlay can be copied up, so passthrough reads its lowers.
func TestPassthroughReadOnly(t *testing.T) {
	harness.Raced(t)
	eachPassthrough(t, func(t *testing.T, e *harness.Env) {
		text := strings.Repeat("0123456789abcdef", 10_000)
		o := e.Overlay(t, "file f "+strconv.Quote(text), "file g \"below\"")
		o.Upper, o.Work = "", ""
		o.Mount()
		got := duringClose(o, 2, func() {
			harness.WantText(t, o.Path("f"), text)
			harness.WantText(t, o.Path("g"), "below")
		})
		harness.Equal(t, "reads", got["READ"], 0)
		f := harness.Open(t, o.Path("f"), os.O_RDONLY)
		m, err := unix.Mmap(int(f.Fd()), 0, len(text), unix.PROT_READ, unix.MAP_SHARED)
		harness.Check(t, err)
		harness.Equal(t, "mapped", string(m), text)
		harness.Check(t, unix.Munmap(m))
		_, err = os.OpenFile(o.Path("f"), os.O_RDWR, 0)
		harness.WantErr(t, "open for writing", err, syscall.EROFS)
	})
}

// A process that has a lower file open sees writes after its copy-up, by read and by mapping.
func TestPassthroughCopyUpWhileOpen(t *testing.T) {
	harness.Raced(t)
	eachPassthrough(t, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, "file f \"0123456789\"\nfile g \"0123456789\"")
		read := func(f *os.File) string { return readAt(t, f, 0, 100) }
		before := harness.Open(t, o.Path("f"), os.O_RDONLY)
		harness.Equal(t, "before", read(before), "0123456789")
		w := harness.Open(t, o.Path("f"), os.O_RDWR)
		after := harness.Open(t, o.Path("f"), os.O_RDONLY)
		_, err := w.WriteAt([]byte("NEW, LONGER"), 3)
		harness.Check(t, err)
		for _, f := range []*os.File{before, w, after} {
			harness.Equal(t, "after a write", read(f), "012NEW, LONGER")
			harness.Equal(t, "size", harness.Fstat(t, f).Size, 14)
		}
		harness.Check(t, os.Truncate(o.Path("f"), 2))
		for _, f := range []*os.File{before, w, after} {
			harness.Equal(t, "after a truncation", read(f), "01")
		}
		for _, f := range []*os.File{before, w, after} {
			harness.Check(t, f.Close())
		}
		// No process has the file open, so the next open is passthrough. It does not show cached pages of
		// the lower.
		got := duringClose(o, 1, func() { harness.WantText(t, o.Path("f"), "01") })
		harness.Equal(t, "reads", got["READ"], 0)
		// An open for writing copies up, as in the kernel (no D2).
		r := harness.Open(t, o.Path("g"), os.O_RDONLY)
		harness.Equal(t, "before", read(r), "0123456789")
		harness.Check(t, harness.Open(t, o.Path("g"), os.O_WRONLY).Close())
		harness.WantText(t, filepath.Join(o.Upper, "g"), "0123456789")
		harness.Write(t, o.Path("g"), "whole new")
		harness.Equal(t, "after O_TRUNC", read(r), "whole new")
		harness.WantText(t, filepath.Join(o.Lowers[0], "g"), "0123456789")
	})
}

// Pages in the cache of the mount do not show after a write by passthrough.
func TestPassthroughLeavesNoStalePages(t *testing.T) {
	harness.Raced(t)
	eachPassthrough(t, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "dir d")
		harness.Build(t, e, o.Upper, "file f 4755 \"0123456789\"")
		harness.Check(t, os.Chmod(filepath.Join(o.Upper, "f"), 0o755|os.ModeSetuid))
		o.Mount()
		harness.ReadText(t, o.Path("f"))
		for i := range 3 {
			harness.Check(t, os.Chmod(o.Path("f"), 0o755))
			text := fmt.Sprintf("by passthrough %d", i)
			passed := duringClose(o, 2, func() {
				harness.Write(t, o.Path("f"), text)
				harness.WantText(t, o.Path("f"), text)
			})
			harness.Equal(t, "reads by passthrough", passed["READ"]+passed["WRITE"], 0)
			harness.Check(t, os.Chmod(o.Path("f"), 0o755|os.ModeSetuid))
			cached := duringClose(o, 1, func() { harness.WantText(t, o.Path("f"), text) }) // with suid through the cache
			harness.Equal(t, "read through the cache", cached["READ"] > 0, true)
		}
	})
}

func TestPassthroughManyAppend(t *testing.T) {
	harness.Raced(t)
	eachPassthrough(t, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, "file f \"start\\n\"")
		const writers, lines = 8, 500
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				f, err := os.OpenFile(o.Path("f"), os.O_WRONLY|os.O_APPEND, 0)
				for i := 0; i < lines && err == nil; i++ {
					_, err = fmt.Fprintf(f, "writer %d line %d\n", w, i)
				}
				if err != nil {
					t.Error(err)
				}
				_ = f.Close()
			})
		}
		wg.Wait()
		text := harness.ReadText(t, o.Path("f"))
		harness.Equal(t, "lines", strings.Count(text, "\n"), writers*lines+1)
		harness.Equal(t, "size", harness.Lstat(t, o.Path("f")).Size, int64(len(text)))
		for w := range writers {
			harness.Equal(t, fmt.Sprint("lines of ", w), strings.Count(text, fmt.Sprintf("writer %d line", w)), lines)
		}
	})
}

// A mapping changes times without a request of the kernel, and outlives its descriptor.
func TestPassthroughMapping(t *testing.T) {
	harness.Raced(t)
	eachPassthrough(t, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, "file d/low \"\"\nsize d/low 8192")
		harness.Write(t, o.Path("new"), string(make([]byte, 8192)))
		for _, name := range []string{"new", "d/low"} {
			harness.Check(t, harness.SetTimes(o.Path(name), harness.OldTime))
			f := harness.Open(t, o.Path(name), os.O_RDWR)
			m, err := unix.Mmap(int(f.Fd()), 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			harness.Check(t, err)
			copy(m[1000:], "mapped")
			var st unix.Statx_t // only the mtime: a mapping invalidates the atime, so that stat would send GETATTR
			harness.Check(t, unix.Statx(unix.AT_FDCWD, o.Path(name), 0, unix.STATX_MTIME, &st))
			if st.Mtime.Sec == harness.OldTime.Unix() {
				t.Errorf("%s: the kernel shows the mtime from before the mapping", name)
			}
			for i, closed := range []bool{false, true} {
				if closed {
					harness.Check(t, f.Close())
				}
				harness.Check(t, unix.Msync(m, unix.MS_SYNC)) // makes the pages clean, so that the next write is noticed
				harness.Check(t, harness.SetTimes(o.Path(name), harness.OldTime))
				harness.Equal(t, name+": mtime set", harness.Lstat(t, o.Path(name)).Mtim.Sec, harness.OldTime.Unix())
				copy(m[i*100:], "mapped")
				harness.Check(t, unix.Msync(m, unix.MS_SYNC))
				if harness.Lstat(t, o.Path(name)).Mtim.Sec == harness.OldTime.Unix() {
					t.Errorf("%s: a write through a mapping does not show in the mtime (file closed: %v)", name, closed)
				}
				text := harness.ReadText(t, o.Path(name))
				harness.Equal(t, name+": read sees the mapping", text[i*100:i*100+6], "mapped")
				harness.AppendTo(t, o.Path(name), "x")
			}
			harness.Check(t, unix.Munmap(m))
			harness.WantText(t, filepath.Join(o.Upper, name), harness.ReadText(t, o.Path(name)))
		}
		harness.Equal(t, "the lower is unchanged", strings.Trim(harness.ReadText(t, filepath.Join(o.Lowers[0], "d/low")),
			"\x00"), "")
	})
}

// A file may get suid while it is open by passthrough. The write of a user clears it, and no
// process gets its rights.
func TestPassthroughSuidWhileOpen(t *testing.T) {
	harness.Raced(t)
	eachPassthrough(t, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "dir d")
		harness.Build(t, e, o.Upper, "file before 0777 \"text\"\nfile after 0777 \"text\"\nfile caps 0777 \"text\"")
		o.Mount()
		change := func(f *os.File) {
			harness.As(t, 1000, 1000, func() {
				_, err := f.WriteAt([]byte("changed"), 0)
				harness.Check(t, err)
			})
		}
		f := harness.Open(t, o.Path("before"), os.O_RDWR)
		harness.Check(t, os.Chmod(o.Path("before"), 0o777|os.ModeSetuid|os.ModeSetgid))
		harness.Equal(t, "set", harness.ModeAlone(t, o.Path("before")), 0o6777)
		change(f)
		harness.Equal(t, "opened before the chmod", harness.ModeAlone(t, o.Path("before")), 0o777)
		r := harness.Open(t, o.Path("after"), os.O_RDONLY)
		harness.Check(t, os.Chmod(o.Path("after"), 0o777|os.ModeSetuid))
		harness.Equal(t, "set", harness.ModeAlone(t, o.Path("after")), 0o4777)
		f = harness.Open(t, o.Path("after"), os.O_WRONLY)
		change(f)
		harness.Equal(t, "opened after the chmod", harness.ModeAlone(t, o.Path("after")), 0o777)
		harness.Check(t, r.Close())
		f = harness.Open(t, o.Path("caps"), os.O_WRONLY)
		harness.Shell(t, o.Point, "setcap cap_net_raw+ep caps; getcap caps | grep -q net_raw")
		change(f)
		harness.Equal(t, "file capability", harness.XattrOf(o.Path("caps"), "security.capability"), "ENODATA")
		for _, name := range []string{"before", "after", "caps"} {
			harness.Equal(t, name+" in the upper", harness.Owner(t, filepath.Join(o.Upper, name)), "0:0 0777")
		}
	})
}
