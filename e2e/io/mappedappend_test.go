package io

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// Data is appended to a file whose last page is dirty through a shared mapping, while the kernel
// writes the page back (docs/design/mapped-append.md).

// envAppends is the number of files of each mount; the default is appendFiles.
const (
	envAppends  = "FUSE_OVERLAY_APPEND_FILES"
	appendFiles = 72
)

const (
	appendRecords  = 20   // to each file
	appendBatch    = 1100 // files of one mount, the time of which is limited
	appendParallel = 8    // files at a time
	appendClosers  = 2    // threads that open and close each file, and so write its pages back
)

// appendWay is a way in which a file gets longer.
type appendWay struct {
	name string
	// inLower: the file begins in a lower, and another process has it open for reading.
	inLower bool
	// flags are the open flags of the appending process. With O_CREAT the file is new. Otherwise it
	// exists before.
	flags int
	// writer: the mapping belongs to another open of the file.
	writer bool
	put    func(f *os.File, record []byte, at int64) error
}

func pwrite(f *os.File, record []byte, at int64) error {
	_, err := unix.Pwrite(int(f.Fd()), record, at)
	return err
}

func appendIt(f *os.File, record []byte, _ int64) error {
	_, err := f.Write(record)
	return err
}

func allocated(f *os.File, record []byte, at int64) error {
	if err := unix.Fallocate(int(f.Fd()), 0, at, int64(len(record))); err != nil {
		return err
	}
	return pwrite(f, record, at)
}

func lengthened(f *os.File, record []byte, at int64) error {
	if err := f.Truncate(at + int64(len(record))); err != nil {
		return err
	}
	return pwrite(f, record, at)
}

// cutAndWritten truncates the record that was just written, and writes it again.
func cutAndWritten(f *os.File, record []byte, at int64) error {
	return errors.Join(pwrite(f, record, at), f.Truncate(at), pwrite(f, record, at))
}

// copied makes the kernel copy the record from another file of the mount.
func copied(f *os.File, record []byte, at int64) error {
	from, err := os.OpenFile(f.Name()+".source", os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer from.Close()
	if err := pwrite(from, record, 0); err != nil {
		return err
	}
	zero := int64(0)
	n, err := unix.CopyFileRange(int(from.Fd()), &zero, int(f.Fd()), &at, len(record), 0)
	if err == nil && n != len(record) {
		err = io.ErrShortWrite
	}
	return err
}

var appendWays = []appendWay{
	{"reopened", false, os.O_RDWR, false, pwrite},
	{"O_APPEND", false, os.O_RDWR | os.O_APPEND, false, appendIt},
	{"another's mapping", false, os.O_WRONLY | os.O_APPEND, true, appendIt},
	{"of a lower", true, os.O_RDWR, false, pwrite},
	{"of a lower, fallocate", true, os.O_RDWR, false, allocated},
	{"O_EXCL", false, os.O_RDWR | os.O_CREATE | os.O_EXCL, false, pwrite},
	{"O_TRUNC", false, os.O_RDWR | os.O_CREATE | os.O_TRUNC, false, pwrite},
	{"maker, another's mapping", false, os.O_WRONLY | os.O_CREATE | os.O_TRUNC, true, pwrite},
	{"fallocate", false, os.O_RDWR, false, allocated},
	{"ftruncate", false, os.O_RDWR, false, lengthened},
	{"cut off and written", false, os.O_RDWR, false, cutAndWritten},
	{"copy_file_range", false, os.O_RDWR, false, copied},
}

// start is the content of file number i. Its length in the last page differs from file to file.
func start(i int) []byte {
	sizes := []int{64, 1, 2000, 3900, 4096 + 64, 2*4096 + 3000}
	return bytes.Repeat([]byte{'H'}, sizes[i%len(sizes)])
}

// appendTo appends to one file in one way, while a mapping changes its last page. It returns the
// content of the file.
func (w *appendWay) appendTo(p string, i int) (want []byte, err error) {
	want = start(i)
	if !w.inLower && w.flags&os.O_CREATE == 0 {
		if err := os.WriteFile(p, want, 0o644); err != nil {
			return nil, err
		}
	}
	if w.inLower {
		reader, err := os.Open(p)
		if err != nil {
			return nil, err
		}
		defer reader.Close()
	}
	f, err := os.OpenFile(p, w.flags, 0o644)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if w.flags&os.O_CREATE != 0 {
		if err := pwrite(f, want, 0); err != nil {
			return nil, err
		}
	}
	mapped := f
	if w.writer {
		if mapped, err = os.OpenFile(p, os.O_RDWR, 0); err != nil {
			return nil, err
		}
		defer mapped.Close()
	}
	page := (len(want) - 1) &^ 4095
	m, err := unix.Mmap(int(mapped.Fd()), int64(page), 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, unix.Munmap(m)) }()
	var stop atomic.Bool
	var closers sync.WaitGroup
	last := want[page] // what was last put into the first byte of the page
	defer func() {
		if err == nil {
			want[page] = last
		}
	}()
	defer closers.Wait()
	defer stop.Store(true)
	for range appendClosers {
		closers.Go(func() {
			for !stop.Load() {
				if c, err := os.Open(p); err == nil {
					c.Close()
				}
			}
		})
	}
	closers.Go(func() {
		for ; !stop.Load(); time.Sleep(20 * time.Microsecond) {
			last++
			m[0] = last
		}
	})
	for j := range appendRecords {
		record := fmt.Appendf(nil, "%04d-record\n", j)
		if err := w.put(f, record, int64(len(want))); err != nil {
			return nil, fmt.Errorf("record %d: %w", j, err)
		}
		want = append(want, record...)
	}
	return want, nil
}

func TestAppendsToMappedFiles(t *testing.T) {
	files := appendFiles
	if n, err := strconv.Atoi(os.Getenv(envAppends)); err == nil {
		files = n
	}
	for _, opt := range []string{"", "writeback=1", "metacopy=on", "index=on", "volatile", "timeout=0", "max_write=4096",
		harness.Passthrough} {
		modes := harness.AllModes
		switch {
		case harness.Oracle && opt != "":
			continue
		case opt == harness.Passthrough:
			modes = harness.OnlyRoot
		}
		// The time of a child process is limited, so there is one for each option and batch.
		for done := 0; done < files; done += appendBatch {
			name := max(opt, "default")
			if files > appendBatch {
				name = fmt.Sprintf("%s,%d", name, done)
			}
			t.Run(name, func(t *testing.T) {
				harness.NeedPassthrough(t, opt)
				harness.EachMode(t, modes, func(t *testing.T, e *harness.Env) {
					if opt != "" {
						e.Opts = append(e.Opts, opt)
					}
					appendOnOneMount(t, e, min(appendBatch, files-done))
				})
			})
		}
	}
}

// appendOnOneMount distributes a number of files over the ways.
func appendOnOneMount(t *testing.T, e *harness.Env, files int) {
	t.Helper()
	each := (files + len(appendWays) - 1) / len(appendWays)
	var lower strings.Builder
	for _, w := range appendWays {
		for i := range each {
			if w.inLower {
				fmt.Fprintf(&lower, "file %s %s\n", w.file(i), strconv.Quote(string(start(i))))
			}
		}
	}
	o := e.Mounted(t, lower.String())
	var written []appended
	for _, w := range appendWays {
		written = append(written, w.try(t, o, each)...)
	}
	o.Unmount()
	wantInUpper(t, o, written)
}

// appended is the content that a file must have.
type appended struct {
	name string
	want []byte
}

// try appends to a number of files in one way, and checks their content through the mount.
func (w *appendWay) try(t *testing.T, o *harness.Overlay, files int) []appended {
	t.Helper()
	var mu sync.Mutex // guards what follows
	var written []appended
	var lost, failed int
	next := make(chan int)
	var workers sync.WaitGroup
	for range appendParallel {
		workers.Go(func() {
			for i := range next {
				name := w.file(i)
				want, err := w.appendTo(o.Path(name), i)
				var diff error
				if err == nil {
					diff = differs(o.Path(name), want)
				}
				mu.Lock()
				switch {
				case err != nil:
					if failed++; failed == 1 {
						t.Errorf("%s: %s: %v", w.name, name, err)
					}
				case diff != nil:
					if lost++; lost == 1 {
						t.Errorf("%s: %v", w.name, diff)
					}
				default:
					written = append(written, appended{name, want})
				}
				mu.Unlock()
			}
		})
	}
	for i := range files {
		next <- i
	}
	close(next)
	workers.Wait()
	if lost+failed > 0 {
		t.Errorf("%s: of %d files %d lost data, %d failed", w.name, files, lost, failed)
	}
	return written
}

// wantInUpper compares the content through the mount with that in the upper.
func wantInUpper(t *testing.T, o *harness.Overlay, written []appended) {
	t.Helper()
	lost := 0
	for _, f := range written {
		if err := differs(filepath.Join(o.Upper, f.name), f.want); err != nil {
			if lost++; lost == 1 {
				t.Error(err)
			}
		}
	}
	if lost > 0 {
		t.Errorf("in the upper: of %d files %d lost data", len(written), lost)
	}
	t.Logf("%d files are whole", len(written)-lost)
}

// file is the name of file number i.
func (w *appendWay) file(i int) string { return fmt.Sprintf("%s.%d", strings.Map(letters, w.name), i) }

func letters(r rune) rune {
	if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
		return r
	}
	return '_'
}

// differs returns an error with the first offset at which a file differs from want.
func differs(p string, want []byte) error {
	got, err := os.ReadFile(p)
	if err != nil {
		return err
	}
	for i := range want {
		if i >= len(got) || got[i] != want[i] {
			return fmt.Errorf("%s: %d bytes, should be %d, differs from byte %d on", p, len(got), len(want), i)
		}
	}
	if len(got) > len(want) {
		return fmt.Errorf("%s: %d bytes, should be %d", p, len(got), len(want))
	}
	return nil
}
