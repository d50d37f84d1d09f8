package io

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

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// The space of a file that is closed and removed is free at once: neither the kernel holds its
// backing file nor the daemon a descriptor. The upper can be unmounted right after the overlay.
func TestPassthroughLeaksNothing(t *testing.T) {
	harness.Raced(t)
	eachPassthrough(t, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "dir d")
		small := filepath.Join(e.Dir, "small")
		harness.Mkdir(t, small)
		harness.Check(t, unix.Mount("small", small, "tmpfs", 0, "size=64m"))
		defer func() { harness.Check(t, unix.Unmount(small, 0)) }()
		o.Upper, o.Work = small+"/upper", small+"/work"
		harness.Mkdir(t, o.Upper)
		o.Mount()
		defer o.Unmount()
		used := func() uint64 {
			var st unix.Statfs_t
			harness.Check(t, unix.Statfs(small, &st))
			return st.Blocks - st.Bfree
		}
		fds := len(harness.OpenFDs(o.PID))
		before := used()
		mega := bytes.Repeat([]byte("x"), harness.MiB)
		var wg sync.WaitGroup
		for w := range 4 {
			wg.Go(func() {
				for i := range 100 { // 400 MiB in all, on 64
					if err := useAndRemove(fmt.Sprintf("%s/f%d", o.Point, w), mega, i); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		if !harness.Eventually(5*time.Second, func() bool { return used() <= before+64 }) {
			t.Errorf("%d pages are still in use, %d before", used(), before)
		}
		if now := len(harness.OpenFDs(o.PID)); now > fds+8 {
			t.Errorf("%d descriptors, %d before", now, fds)
		}
	})
}

// If the reply to an open differs in its mode from those before, the kernel makes EIO of it. No
// process gets that EIO, whatever the order of opens of both layers, copy-ups and changes of the
// mode.
func TestPassthroughOpensAtTheSameTime(t *testing.T) {
	harness.Raced(t)
	eachPassthrough(t, func(t *testing.T, e *harness.Env) {
		const files = 12
		var table strings.Builder
		for i := range files {
			fmt.Fprintf(&table, "file f%d \"text\"\n", i)
		}
		o := e.Mounted(t, table.String())
		flags := []int{os.O_RDONLY, os.O_RDWR, os.O_RDONLY, os.O_WRONLY | os.O_TRUNC, os.O_RDONLY, os.O_WRONLY | os.O_APPEND}
		var wg sync.WaitGroup
		for w := range 6 {
			wg.Go(func() {
				for i := range 1500 {
					path := o.Path(fmt.Sprint("f", i/100%files))
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

// useAndRemove makes a file, opens it in several ways at once and removes it, before or after
// closing.
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

// The kernel allows two levels of stacked file systems. A mount with passthrough is one level, any
// other is none.
func TestPassthroughNested(t *testing.T) {
	harness.Raced(t)
	eachPassthrough(t, func(t *testing.T, e *harness.Env) {
		inner := e.Mounted(t, "file d/f \"inner\"")
		harness.Mkdir(t, inner.Path("upper"), inner.Path("mnt"))
		outer := func(name string) *harness.Overlay {
			o := &harness.Overlay{T: t, Env: e, Log: filepath.Join(e.Dir, name+".log"), Opts: e.Opts,
				Point: filepath.Join(e.Dir, name)}
			o.Lowers = []string{inner.Path("d")}
			harness.Mkdir(t, o.Point)
			return o
		}
		o := outer("writable")
		o.Upper, o.Work = inner.Path("upper"), inner.Path("work")
		out, err := o.TryMount()
		if harness.ExitCode(err) != 1 || !strings.Contains(out,
			"io=passthrough: the file system of the upperdir is itself stacked") || o.IsMounted() {
			t.Errorf("an upper on a mount with passthrough: exit %d, %q", harness.ExitCode(err), out)
		}
		o = outer("readonly") // each file for itself: there, through the page cache
		o.Mount()
		harness.WantText(t, o.Path("f"), "inner")
		o.Unmount()
		harness.Check(t, harness.MountOverlayfs(o.Point, 0, "lowerdir="+inner.Path("d")+":"+inner.Path("upper")))
		harness.WantText(t, o.Path("f"), "inner")
		harness.Check(t, harness.UnmountAt(o.Point))

		inner.Unmount()
		inner.Opts = []string{"io=cached"}
		inner.Mount()
		o = outer("on a cached one")
		o.Upper, o.Work = inner.Path("upper"), inner.Path("work")
		o.Mount()
		harness.Write(t, o.Path("new"), "passed through twice")
		harness.Equal(t, "reads", duringClose(o, 1, func() {
			harness.WantText(t, o.Path("new"),
				"passed through twice")
		})["READ"], 0)
		o.Unmount()
		harness.WantText(t, inner.Path("upper/new"), "passed through twice")
	})
}

// If passthrough is not allowed, the mount fails with a message.
func TestPassthroughRefused(t *testing.T) {
	harness.Raced(t)
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes[1:], func(t *testing.T, e *harness.Env) {
		for _, upper := range []bool{true, false} {
			o := e.Overlay(t, "file f \"x\"")
			if !upper {
				o.Upper, o.Work = "", ""
			}
			o.Opts = []string{harness.Passthrough}
			out, err := o.TryMount()
			want := "fuse-overlay: io=passthrough: only root of the first user namespace may (CAP_SYS_ADMIN)\n"
			if !harness.KernelHas(t, harness.BackingFiles) {
				want = "fuse-overlay: io=passthrough: this kernel has no FUSE passthrough " +
					"(Linux 6.9 has, with CONFIG_FUSE_PASSTHROUGH)\n"
			}
			if harness.ExitCode(err) != 1 || out != want {
				t.Errorf("exit %d, %q, want %q", harness.ExitCode(err), out, want)
			}
			if o.IsMounted() {
				t.Error("mounted all the same")
			}
			if !harness.Eventually(5*time.Second, func() bool { return len(harness.DaemonsOf(o.Point)) == 0 }) {
				t.Error("a daemon is left")
			}
		}
	})
}
