package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// eachPassthrough is eachMode of root, with passthrough.
func eachPassthrough(t *testing.T, fn func(t *testing.T, e *env)) {
	t.Helper()
	needDaemon(t)
	eachMode(t, onlyRoot, func(t *testing.T, e *env) {
		e.opts = []string{passthrough}
		fn(t, e)
	})
}

// closing is during for what closes files: the kernel tells of that in the background.
func (o *overlay) closing(opens int64, fn func()) counts {
	o.t.Helper()
	before := o.requests()
	fn()
	var got counts
	if !eventually(5*time.Second, func() bool { got = o.requests().minus(before); return got["RELEASE"] >= opens }) {
		o.t.Errorf("not closed: %s", got)
	}
	return got
}

func TestPassthroughRequests(t *testing.T) {
	eachPassthrough(t, func(t *testing.T, e *env) {
		o := e.overlay(t, "file low \"of the lower\"\nfile big \"\"\nsize big 67108864")
		build(t, e, o.upper, "file up \"of the upper\"\nfile over \"of the upper\"")
		o.mount()
		read := func(name string) func() { return func() { readText(t, o.path(name)) } }
		// A read makes the kernel doubt the atime: one GETATTR, by Go's fstat.
		once := counts{"OPEN": 1, "RELEASE": 1}
		for _, name := range []string{"up", "low"} {
			o.closing(1, read(name))
			wantCounts(t, "reading "+name+" again", o.closing(1, read(name)), once, counts{"GETATTR": 1})
		}
		o.closing(1, func() { write(t, o.path("first"), "learns what the kernel need not ask") })
		got := o.closing(1, func() { write(t, o.path("new"), strings.Repeat("text", 100_000)) })
		wantCounts(t, "create and write", got, counts{"LOOKUP": 1, "CREATE": 1, "RELEASE": 1}, byKernel)
		got = o.closing(1, func() { write(t, o.path("over"), "other") })
		wantCounts(t, "overwrite", got, once, counts{"LOOKUP": 1, "GETATTR": 1, "GETXATTR": 2})
		got = o.closing(1, func() { write(t, o.path("big"), "other") })
		wantCounts(t, "overwrite a lower", got, once, counts{"LOOKUP": 1, "GETATTR": 1, "GETXATTR": 2})
		got = o.closing(1, func() {
			f := open(t, o.path("over"), os.O_WRONLY|os.O_APPEND)
			for range 10_000 {
				_, err := f.WriteString("line\n")
				check(t, err)
			}
			check(t, f.Close())
		})
		wantCounts(t, "10,000 appends", got, once, counts{"GETATTR": 1, "GETXATTR": 1})
		o.unmount()
		wantText(t, filepath.Join(o.upper, "over"), "other"+strings.Repeat("line\n", 10_000))
		wantText(t, filepath.Join(o.upper, "big"), "other")
	})
}

// Nothing of a read-only overlay can be copied up: its lowers are passed through.
func TestPassthroughReadOnly(t *testing.T) {
	eachPassthrough(t, func(t *testing.T, e *env) {
		text := strings.Repeat("0123456789abcdef", 10_000)
		o := e.overlay(t, "file f "+quote(text), "file g \"below\"")
		o.upper, o.work = "", ""
		o.mount()
		got := o.closing(2, func() {
			wantText(t, o.path("f"), text)
			wantText(t, o.path("g"), "below")
		})
		equal(t, "reads", got["READ"], 0)
		f := open(t, o.path("f"), os.O_RDONLY)
		m, err := unix.Mmap(int(f.Fd()), 0, len(text), unix.PROT_READ, unix.MAP_SHARED)
		check(t, err)
		equal(t, "mapped", string(m), text)
		check(t, unix.Munmap(m))
		_, err = os.OpenFile(o.path("f"), os.O_RDWR, 0)
		wantErr(t, "open for writing", err, syscall.EROFS)
	})
}

// Who has a lower file open sees what is written after its copy-up, by whichever way.
func TestPassthroughCopyUpWhileOpen(t *testing.T) {
	eachPassthrough(t, func(t *testing.T, e *env) {
		o := e.mounted(t, "file f \"0123456789\"\nfile g \"0123456789\"")
		read := func(f *os.File) string { return readAt(t, f, 0, 100) }
		before := open(t, o.path("f"), os.O_RDONLY)
		equal(t, "before", read(before), "0123456789")
		w := open(t, o.path("f"), os.O_RDWR)
		after := open(t, o.path("f"), os.O_RDONLY)
		_, err := w.WriteAt([]byte("NEW, LONGER"), 3)
		check(t, err)
		for _, f := range []*os.File{before, w, after} {
			equal(t, "after a write", read(f), "012NEW, LONGER")
			equal(t, "size", fstat(t, f).Size, 14)
		}
		check(t, os.Truncate(o.path("f"), 2))
		for _, f := range []*os.File{before, w, after} {
			equal(t, "after a truncation", read(f), "01")
		}
		for _, f := range []*os.File{before, w, after} {
			check(t, f.Close())
		}
		// Now nobody has it open, and the next one is passed through; pages of the lower's time are not shown again.
		got := o.closing(1, func() { wantText(t, o.path("f"), "01") })
		equal(t, "reads", got["READ"], 0)
		// Opened for writing is copied up, as in the kernel (no D2).
		r := open(t, o.path("g"), os.O_RDONLY)
		equal(t, "before", read(r), "0123456789")
		check(t, open(t, o.path("g"), os.O_WRONLY).Close())
		wantText(t, filepath.Join(o.upper, "g"), "0123456789")
		write(t, o.path("g"), "whole new")
		equal(t, "after O_TRUNC", read(r), "whole new")
		wantText(t, filepath.Join(o.lowers[0], "g"), "0123456789")
	})
}

// Pages that were read through the mount's cache are not shown after passthrough has written.
func TestPassthroughLeavesNoStalePages(t *testing.T) {
	eachPassthrough(t, func(t *testing.T, e *env) {
		o := e.overlay(t, "dir d")
		build(t, e, o.upper, "file f 4755 \"0123456789\"")
		check(t, os.Chmod(filepath.Join(o.upper, "f"), 0o755|os.ModeSetuid))
		o.mount()
		readText(t, o.path("f"))
		for i := range 3 {
			check(t, os.Chmod(o.path("f"), 0o755))
			text := fmt.Sprintf("by passthrough %d", i)
			passed := o.closing(2, func() {
				write(t, o.path("f"), text)
				wantText(t, o.path("f"), text)
			})
			equal(t, "reads by passthrough", passed["READ"]+passed["WRITE"], 0)
			check(t, os.Chmod(o.path("f"), 0o755|os.ModeSetuid))
			cached := o.closing(1, func() { wantText(t, o.path("f"), text) }) // with suid through the cache
			equal(t, "read through the cache", cached["READ"] > 0, true)
		}
	})
}

func TestPassthroughManyAppend(t *testing.T) {
	eachPassthrough(t, func(t *testing.T, e *env) {
		o := e.mounted(t, "file f \"start\\n\"")
		const writers, lines = 8, 500
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				f, err := os.OpenFile(o.path("f"), os.O_WRONLY|os.O_APPEND, 0)
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
		text := readText(t, o.path("f"))
		equal(t, "lines", strings.Count(text, "\n"), writers*lines+1)
		equal(t, "size", lstat(t, o.path("f")).Size, int64(len(text)))
		for w := range writers {
			equal(t, fmt.Sprint("lines of ", w), strings.Count(text, fmt.Sprintf("writer %d line", w)), lines)
		}
	})
}

// A mapping changes times, which the kernel does not notice; and it lives longer than its descriptor.
func TestPassthroughMapping(t *testing.T) {
	eachPassthrough(t, func(t *testing.T, e *env) {
		o := e.mounted(t, "file d/low \"\"\nsize d/low 8192")
		write(t, o.path("new"), string(make([]byte, 8192)))
		for _, name := range []string{"new", "d/low"} {
			check(t, setTimes(o.path(name), oldTime))
			f := open(t, o.path(name), os.O_RDWR)
			m, err := unix.Mmap(int(f.Fd()), 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			check(t, err)
			copy(m[1000:], "mapped")
			var st unix.Statx_t // the mtime alone: mapping makes the kernel doubt the atime, so that stat asks anyway
			check(t, unix.Statx(unix.AT_FDCWD, o.path(name), 0, unix.STATX_MTIME, &st))
			if st.Mtime.Sec == oldTime.Unix() {
				t.Errorf("%s: the kernel goes on with the mtime it knew before the mapping", name)
			}
			for i, closed := range []bool{false, true} {
				if closed {
					check(t, f.Close())
				}
				check(t, unix.Msync(m, unix.MS_SYNC)) // makes the pages clean, so that the next write is noticed
				check(t, setTimes(o.path(name), oldTime))
				equal(t, name+": mtime set", lstat(t, o.path(name)).Mtim.Sec, oldTime.Unix())
				copy(m[i*100:], "mapped")
				check(t, unix.Msync(m, unix.MS_SYNC))
				if lstat(t, o.path(name)).Mtim.Sec == oldTime.Unix() {
					t.Errorf("%s: a write through a mapping does not show in the mtime (file closed: %v)", name, closed)
				}
				text := readText(t, o.path(name))
				equal(t, name+": read sees the mapping", text[i*100:i*100+6], "mapped")
				appendTo(t, o.path(name), "x")
			}
			check(t, unix.Munmap(m))
			wantText(t, filepath.Join(o.upper, name), readText(t, o.path(name)))
		}
		equal(t, "the lower is unchanged", strings.Trim(readText(t, filepath.Join(o.lowers[0], "d/low")), "\x00"), "")
	})
}

// A file may get suid while it is open by passthrough; a user's write takes it away, and nobody is let on with it.
func TestPassthroughSuidWhileOpen(t *testing.T) {
	eachPassthrough(t, func(t *testing.T, e *env) {
		o := e.overlay(t, "dir d")
		build(t, e, o.upper, "file before 0777 \"text\"\nfile after 0777 \"text\"\nfile caps 0777 \"text\"")
		o.mount()
		change := func(f *os.File) {
			as(t, 1000, 1000, func() {
				_, err := f.WriteAt([]byte("changed"), 0)
				check(t, err)
			})
		}
		f := open(t, o.path("before"), os.O_RDWR)
		check(t, os.Chmod(o.path("before"), 0o777|os.ModeSetuid|os.ModeSetgid))
		equal(t, "set", modeAlone(t, o.path("before")), 0o6777)
		change(f)
		equal(t, "opened before the chmod", modeAlone(t, o.path("before")), 0o777)
		r := open(t, o.path("after"), os.O_RDONLY)
		check(t, os.Chmod(o.path("after"), 0o777|os.ModeSetuid))
		equal(t, "set", modeAlone(t, o.path("after")), 0o4777)
		f = open(t, o.path("after"), os.O_WRONLY)
		change(f)
		equal(t, "opened after the chmod", modeAlone(t, o.path("after")), 0o777)
		check(t, r.Close())
		f = open(t, o.path("caps"), os.O_WRONLY)
		sh(t, o.mnt, "setcap cap_net_raw+ep caps; getcap caps | grep -q net_raw")
		change(f)
		equal(t, "file capability", xattrOf(o.path("caps"), "security.capability"), "ENODATA")
		for _, name := range []string{"before", "after", "caps"} {
			equal(t, name+" in the upper", owner(t, filepath.Join(o.upper, name)), "0:0 0777")
		}
	})
}
