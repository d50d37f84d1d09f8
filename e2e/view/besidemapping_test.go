package view

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// The kernel writes a page back that a mapping has changed, while another process changes other
// bytes of that page.

// Bytes that fallocate clears stay zeros in the upper, even if a mapping changes the bytes beside
// them and the kernel writes the page back in the meantime.
func TestClearedBytesBesideAMapping(t *testing.T) {
	harness.NeedDaemon(t)
	if !harness.KernelAtLeast(t, 6, 16) {
		t.Skip("not applicable on this kernel: FUSE writes copies of pages back before Linux 6.16 (D75)")
	}
	harness.EachIO(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "")
		o.Mount()
		f := harness.Open(t, o.Path("f"), os.O_RDWR|os.O_CREATE)
		defer f.Close()
		wantBesideMapping(t, o, f, func(round int) []byte {
			_, err := f.WriteAt(bytes.Repeat([]byte("x"), besideMapping), 0)
			harness.Check(t, err)
			harness.Check(t, unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_ZERO_RANGE|unix.FALLOC_FL_KEEP_SIZE, 0, besideMapping))
			return make([]byte, besideMapping)
		})
	})
}

// So it is with bytes of a new file, which are written past the page cache where that is safe.
func TestNewBytesBesideAMapping(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachIO(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "")
		o.Mount()
		f := harness.Open(t, o.Path("f"), os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
		defer f.Close()
		wantBesideMapping(t, o, f, func(round int) []byte {
			text := bytes.Repeat([]byte{byte('a' + round%26)}, besideMapping)
			_, err := f.WriteAt(text, 0)
			harness.Check(t, err)
			return text
		})
	})
}

// besideMapping is how many bytes at the beginning of a page wantBesideMapping compares.
const besideMapping = 11

// wantBesideMapping changes the beginning of o's file f many times, while a mapping changes the
// next byte and the kernel writes the page back. change returns the new bytes, which the upper must
// have after an fsync.
func wantBesideMapping(t *testing.T, o *harness.Overlay, f *os.File, change func(round int) []byte) {
	t.Helper()
	const size = 4096
	harness.Check(t, f.Truncate(size))
	mapped := harness.Open(t, o.Path("f"), os.O_RDWR)
	defer mapped.Close()
	m, err := unix.Mmap(int(mapped.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	harness.Check(t, err)
	defer func() { harness.Check(t, unix.Munmap(m)) }()
	stop, done := make(chan struct{}), make(chan struct{})
	go func() { // as other users of the file and the flusher do
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				m[besideMapping]++
				_ = unix.SyncFileRange(int(mapped.Fd()), 0, size, unix.SYNC_FILE_RANGE_WRITE)
			}
		}
	}()
	lost := 0
	for round := range 300 {
		want := change(round)
		harness.Check(t, f.Sync())
		got := make([]byte, besideMapping)
		up := harness.Open(t, filepath.Join(o.Upper, "f"), os.O_RDONLY)
		_, err = up.ReadAt(got, 0)
		harness.Check(t, errors.Join(err, up.Close()))
		if !bytes.Equal(got, want) {
			lost++
		}
	}
	close(stop)
	<-done
	harness.Equal(t, "times that the upper had the old bytes", lost, 0)
}
