package e2e

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What is closed and removed gives its space back at once: the kernel holds no backing file that nobody needs, nor does the
// daemon a descriptor. The upper can be unmounted right after the overlay.
func TestPassthroughLeaksNothing(t *testing.T) {
	eachPassthrough(t, func(t *testing.T, e *env) {
		o := e.overlay(t, "dir d")
		small := filepath.Join(e.dir, "small")
		mkdir(t, small)
		check(t, unix.Mount("small", small, "tmpfs", 0, "size=64m"))
		defer func() { check(t, unix.Unmount(small, 0)) }()
		o.upper, o.work = small+"/upper", small+"/work"
		mkdir(t, o.upper)
		o.mount()
		defer o.unmount()
		used := func() uint64 {
			var st unix.Statfs_t
			check(t, unix.Statfs(small, &st))
			return st.Blocks - st.Bfree
		}
		fds := len(openFDs(o.pid))
		before := used()
		mega := bytes.Repeat([]byte("x"), mib)
		var wg sync.WaitGroup
		for w := range 4 {
			wg.Go(func() {
				for i := range 100 { // 400 MiB in all, on 64
					if err := useAndRemove(fmt.Sprintf("%s/f%d", o.mnt, w), mega, i); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		if !eventually(5*time.Second, func() bool { return used() <= before+64 }) {
			t.Errorf("%d pages are still in use, %d before", used(), before)
		}
		if now := len(openFDs(o.pid)); now > fds+8 {
			t.Errorf("%d descriptors, %d before", now, fds)
		}
	})
}

// The kernel makes EIO of an open that is not answered as those before: nobody meets that, however opens of both layers,
// copy-ups and changes of the mode fall together.
func TestPassthroughOpensAtTheSameTime(t *testing.T) {
	eachPassthrough(t, func(t *testing.T, e *env) {
		const files = 12
		var table strings.Builder
		for i := range files {
			fmt.Fprintf(&table, "file f%d \"text\"\n", i)
		}
		o := e.mounted(t, table.String())
		flags := []int{os.O_RDONLY, os.O_RDWR, os.O_RDONLY, os.O_WRONLY | os.O_TRUNC, os.O_RDONLY, os.O_WRONLY | os.O_APPEND}
		var wg sync.WaitGroup
		for w := range 6 {
			wg.Go(func() {
				for i := range 1500 {
					path := o.path(fmt.Sprint("f", i/100%files))
					f, err := os.OpenFile(path, flags[(i+w)%len(flags)], 0)
					if err == nil && i%9 == 0 {
						err = f.Chmod([]os.FileMode{0o644, 0o755 | os.ModeSetuid}[w%2])
					}
					if err != nil {
						t.Error(err)
						return
					}
					_ = f.Close()
				}
			})
		}
		wg.Wait()
	})
}

// useAndRemove makes a file, opens it in several ways at once and removes it, before or after closing.
func useAndRemove(path string, data []byte, round int) error {
	w, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer w.Close()
	r, err := os.Open(path)
	if err != nil {
		return err
	}
	defer r.Close()
	if _, err := w.Write(data); err != nil {
		return err
	}
	if round%2 == 0 {
		w.Close()
		r.Close()
		return os.Remove(path)
	}
	if err := os.Remove(path); err != nil {
		return err
	}
	got, err := io.ReadAll(r)
	if err == nil && !bytes.Equal(got, data) {
		err = fmt.Errorf("%s: %d bytes read, %d written", path, len(got), len(data))
	}
	return err
}

// The kernel allows two levels of stacked file systems; a mount with passthrough is one, another is none.
func TestPassthroughNested(t *testing.T) {
	eachPassthrough(t, func(t *testing.T, e *env) {
		inner := e.mounted(t, "file d/f \"inner\"")
		mkdir(t, inner.path("upper"), inner.path("mnt"))
		outer := func(name string) *overlay {
			o := &overlay{t: t, env: e, log: filepath.Join(e.dir, name+".log"), opts: e.opts, mnt: filepath.Join(e.dir, name)}
			o.lowers = []string{inner.path("d")}
			mkdir(t, o.mnt)
			return o
		}
		o := outer("writable")
		o.upper, o.work = inner.path("upper"), inner.path("work")
		out, err := o.tryMount()
		if exitCode(err) != 1 || !strings.Contains(out, "io=passthrough: the file system of the upperdir is itself stacked") || o.isMounted() {
			t.Errorf("an upper on a mount with passthrough: exit %d, %q", exitCode(err), out)
		}
		o = outer("readonly") // each file for itself: there, through the page cache
		o.mount()
		wantText(t, o.path("f"), "inner")
		o.unmount()
		check(t, mountOverlayfs(o.mnt, 0, "lowerdir="+inner.path("d")+":"+inner.path("upper")))
		wantText(t, o.path("f"), "inner")
		check(t, unmountAt(o.mnt))

		inner.unmount()
		inner.opts = []string{"io=cached"}
		inner.mount()
		o = outer("on a cached one")
		o.upper, o.work = inner.path("upper"), inner.path("work")
		o.mount()
		write(t, o.path("new"), "passed through twice")
		equal(t, "reads", o.closing(1, func() { wantText(t, o.path("new"), "passed through twice") })["READ"], 0)
		o.unmount()
		wantText(t, inner.path("upper/new"), "passed through twice")
	})
}

// Who may not have it is told so, and nothing is mounted.
func TestPassthroughRefused(t *testing.T) {
	needDaemon(t)
	eachMode(t, allModes[1:], func(t *testing.T, e *env) {
		for _, upper := range []bool{true, false} {
			o := e.overlay(t, "file f \"x\"")
			if !upper {
				o.upper, o.work = "", ""
			}
			o.opts = []string{passthrough}
			out, err := o.tryMount()
			want := "fuse-overlay: io=passthrough: only root of the first user namespace may (CAP_SYS_ADMIN)\n"
			if exitCode(err) != 1 || out != want {
				t.Errorf("exit %d, %q, want %q", exitCode(err), out, want)
			}
			if o.isMounted() {
				t.Error("mounted all the same")
			}
			if !eventually(5*time.Second, func() bool { return len(daemonsOf(o.mnt)) == 0 }) {
				t.Error("a daemon is left")
			}
		}
	})
}
