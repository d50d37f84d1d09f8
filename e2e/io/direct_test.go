package io

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// A process that creates a file only to write it writes past the page cache of the mount, while
// other processes read the file through it. After a write has returned, every process reads the new
// data, by read and by mapping.
func TestReadersOfWhatIsJustWritten(t *testing.T) {
	harness.Raced(t)
	harness.EachIO(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, "file below")
		const pages, page = 4, 4096
		for round := range 8 {
			p := fmt.Sprintf("%s/new%d", o.Point, round)
			flags := []int{os.O_WRONLY | os.O_EXCL, os.O_RDWR | os.O_TRUNC}[round%2]
			f, err := os.OpenFile(p, os.O_CREATE|flags, 0o644)
			harness.Check(t, err)
			var written [pages]atomic.Uint32 // the last number that a write has put into the page
			write := func(at int, number uint32) {
				block := make([]byte, page-16*at) // not all of the page
				for i := 0; i < len(block); i += 4 {
					binary.NativeEndian.PutUint32(block[i:], number)
				}
				_, err := f.WriteAt(block, int64(at*page))
				harness.Check(t, err)
				written[at].Store(number)
			}
			for at := range pages {
				write(at, 1)
			}
			var done atomic.Bool
			var readers sync.WaitGroup
			for way, by := range map[string]pageReader{"read": byRead, "mapping": byMapping} {
				readers.Go(func() {
					if err := lookAtPages(p, page, written[:], by, &done); err != nil {
						t.Errorf("by %s: %v", way, err)
					}
				})
			}
			until := time.Now().Add(150 * time.Millisecond)
			for number := uint32(2); time.Now().Before(until); number++ {
				write(int(number)%pages, number)
			}
			done.Store(true)
			readers.Wait()
			harness.Check(t, f.Close())
		}
	})
}

// pageReader opens a file and returns a function that reads n bytes at an offset, and one that
// closes the file.
type pageReader func(path string, size int) (at func(offset, n int) ([]byte, error), end func(), err error)

func byRead(path string, _ int) (func(offset, n int) ([]byte, error), func(), error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	return func(offset, n int) ([]byte, error) {
		buf := make([]byte, n)
		m, err := f.ReadAt(buf, int64(offset))
		if err != nil {
			err = fmt.Errorf("%d bytes: %w", m, err)
		}
		return buf, err
	}, func() { _ = f.Close() }, nil
}

func byMapping(path string, size int) (func(offset, n int) ([]byte, error), func(), error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	buf, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return func(offset, n int) ([]byte, error) { return buf[offset : offset+n], nil },
		func() { _, _ = unix.Munmap(buf), f.Close() }, nil
}

// lookAtPages reads the file until done. It returns an error for a page that is older than the last
// write before the read.
func lookAtPages(p string, page int, written []atomic.Uint32, by pageReader, done *atomic.Bool) error {
	read, end, err := by(p, page*len(written))
	if err != nil {
		return err
	}
	defer end()
	for looks := 0; !done.Load(); looks++ {
		at := looks % len(written)
		least := written[at].Load()
		block, err := read(at*page, page-16*at)
		if err != nil {
			return err
		}
		for i := 0; i < len(block); i += 256 {
			if got := binary.NativeEndian.Uint32(block[i:]); got < least {
				return fmt.Errorf("at %d reads %d, and the write of %d had returned", at*page+i, got, least)
			}
		}
	}
	return nil
}

// A process that follows a file that grows by small pieces reads each of them, and no zeros in
// their place.
func TestFollowerOfWhatIsJustWritten(t *testing.T) {
	harness.Raced(t)
	harness.EachIO(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, "file below")
		p := o.Point + "/log"
		f, err := os.OpenFile(p, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
		harness.Check(t, err)
		defer f.Close()
		var size atomic.Int64
		var done atomic.Bool
		var followers sync.WaitGroup
		for range 2 {
			followers.Go(func() {
				if err := follow(p, &size, &done); err != nil {
					t.Error(err)
				}
			})
		}
		until := time.Now().Add(time.Second)
		for number := 1; time.Now().Before(until); number++ {
			n, err := fmt.Fprintf(f, "line %d\n", number)
			harness.Check(t, err)
			size.Add(int64(n))
		}
		done.Store(true)
		followers.Wait()
	})
}

// follow reads the file line by line until done.
func follow(p string, size *atomic.Int64, done *atomic.Bool) error {
	f, err := os.Open(p)
	if err != nil {
		return err
	}
	defer f.Close()
	at, number := int64(0), 1
	for !done.Load() {
		part := make([]byte, size.Load()-at)
		if n, err := f.ReadAt(part, at); err != nil {
			return fmt.Errorf("%d bytes of %d from %d on: %w", n, len(part), at, err)
		}
		for len(part) > 0 {
			line := fmt.Sprintf("line %d\n", number)
			if len(part) < len(line) || string(part[:len(line)]) != line {
				return fmt.Errorf("at %d is %q, not %q", at, part[:min(len(part), len(line))], line)
			}
			at, number, part = at+int64(len(line)), number+1, part[len(line):]
		}
	}
	return nil
}

// Pieces of every size and alignment arrive unchanged, in each way of writing, while other
// processes read the file.
func TestEveryWayOfWritingANewFile(t *testing.T) {
	data := make([]byte, 3<<20+17)
	for i := range data {
		data[i] = byte(i * i >> 7)
	}
	source := filepath.Join(t.TempDir(), "source")
	harness.Check(t, os.WriteFile(source, data, 0o600))
	from := harness.Open(t, source, os.O_RDONLY)
	defer from.Close()
	ways := map[string]func(to *os.File, at, n int) (int, error){
		"pwrite": func(to *os.File, at, n int) (int, error) { return to.WriteAt(data[at:at+n], int64(at)) },
		"pwritev": func(to *os.File, at, n int) (int, error) {
			return unix.Pwritev2(int(to.Fd()), halves(data[at:at+n]), int64(at), 0)
		},
		"pwritev dsync": func(to *os.File, at, n int) (int, error) {
			return unix.Pwritev2(int(to.Fd()), halves(data[at:at+n]), int64(at), unix.RWF_DSYNC)
		},
		"sendfile": func(to *os.File, at, n int) (int, error) {
			off := int64(at)
			return unix.Sendfile(int(to.Fd()), int(from.Fd()), &off, n)
		},
		"splice": func(to *os.File, at, n int) (int, error) { return throughPipe(to, from, int64(at), n) },
	}
	harness.EachIO(t, []harness.Mode{harness.ModeRoot}, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, "file below")
		both := func(f func(way string, flags int)) {
			for way := range ways {
				f(way, os.O_WRONLY|os.O_EXCL)
				f(way, os.O_RDWR|os.O_TRUNC)
			}
		}
		place := func(way string, flags int) string { return o.Path(fmt.Sprintf("%s-%o", way, flags)) }
		both(func(way string, flags int) {
			p, put := place(way, flags), ways[way]
			to := harness.Open(t, p, os.O_CREATE|flags)
			sizes := []int{1, 4095, 4096, 70001, 1 << 20, 1500000}
			for i, at := 0, 0; at < len(data); i++ {
				n, err := put(to, at, min(sizes[i%len(sizes)], len(data)-at))
				if err != nil || n <= 0 {
					t.Fatalf("%s at %d: %d, %v", way, at, n, err)
				}
				at += n
				if i%3 == 0 {
					if got, err := os.ReadFile(p); err != nil || !bytes.Equal(got, data[:at]) {
						t.Fatalf("%s: after %d bytes, %d are read and are not what was written, or %v", way, at, len(got), err)
					}
				}
			}
			// Both see the mapping of another process, and a truncation.
			other := harness.Open(t, p, os.O_RDWR)
			mapped, err := unix.Mmap(int(other.Fd()), 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			harness.Check(t, err)
			copy(mapped, "mapped")
			_, err = to.WriteAt([]byte("written"), 6)
			harness.Check(t, err)
			harness.Equal(t, "the mapping", string(mapped[:13]), "mappedwritten")
			harness.Check(t, unix.Munmap(mapped))
			harness.Check(t, to.Truncate(6000))
			_, err = to.WriteAt([]byte("end"), 9000)
			harness.Check(t, err)
			want := append(append([]byte("mappedwritten"), data[13:6000]...), make([]byte, 3000)...)
			got, err := os.ReadFile(p)
			if want = append(want, "end"...); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s: %d bytes are read and are not what was written, or %v", way, len(got), err)
			}
			harness.Check(t, to.Close())
			harness.Check(t, other.Close())
		})
		o.Remount()
		both(func(way string, flags int) {
			got, err := os.ReadFile(place(way, flags))
			if err != nil || len(got) != 9003 || string(got[:13]) != "mappedwritten" {
				t.Errorf("%s: after a remount %d bytes, %v", way, len(got), err)
			}
		})
	})
}

// A process that creates a file to write and read it sees the same data by write, read and mapping,
// and so do other processes.
func TestMakersMapping(t *testing.T) {
	harness.EachIO(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, "file below")
		const page = 4096
		f := harness.Open(t, o.Path("new"), os.O_RDWR|os.O_CREATE|os.O_TRUNC)
		harness.Check(t, f.Truncate(4*page))
		shared, err := unix.Mmap(int(f.Fd()), 0, 4*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		harness.Check(t, err)
		buf := make([]byte, page)
		for number := range 300 {
			at := number % 4 * page
			mapped, written := fmt.Sprintf("mapped %d ", number), fmt.Sprintf("written %d ", number)
			copy(shared[at:], mapped)
			_, err := f.ReadAt(buf, int64(at))
			harness.Check(t, err)
			harness.Equal(t, "read of what was mapped", string(buf[:len(mapped)]), mapped)
			_, err = f.WriteAt([]byte(written), int64(at+100))
			harness.Check(t, err)
			harness.Equal(t, "the mapping of what was written", string(shared[at+100:at+100+len(written)]), written)
			harness.Equal(t, "the mapping beside it", string(shared[at:at+len(mapped)]), mapped)
			private, err := unix.Mmap(int(f.Fd()), 0, 4*page, unix.PROT_READ, unix.MAP_PRIVATE)
			harness.Check(t, err)
			harness.Equal(t, "a private mapping", string(private[at+100:at+100+len(written)]), written)
			harness.Check(t, unix.Munmap(private))
			if number%50 == 0 {
				other, err := os.ReadFile(o.Path("new"))
				harness.Check(t, err)
				if !bytes.Equal(other, shared) {
					t.Fatalf("after %d rounds others read something else", number)
				}
			}
		}
		want := bytes.Clone(shared)
		harness.Check(t, unix.Munmap(shared))
		harness.Check(t, f.Close())
		o.Remount()
		if got, err := os.ReadFile(o.Path("new")); err != nil || !bytes.Equal(got, want) {
			t.Errorf("after a remount %d bytes are read and are not what was there, or %v", len(got), err)
		}
	})
}

// A write from a dirty mapping of the same file, in pieces that cross pages, does not hang.
func TestMakerWritesFromHisMapping(t *testing.T) {
	harness.Raced(t)
	harness.EachIO(t, []harness.Mode{harness.ModeRoot}, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, "file below")
		const page, pages = 4096, 64
		f := harness.Open(t, o.Path("new"), os.O_RDWR|os.O_CREATE|os.O_TRUNC)
		defer f.Close()
		harness.Check(t, f.Truncate(pages*page))
		shared, err := unix.Mmap(int(f.Fd()), 0, pages*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		harness.Check(t, err)
		defer func() { harness.Check(t, unix.Munmap(shared)) }()
		for i := range shared {
			shared[i] = byte(i / 7)
		}
		want := bytes.Clone(shared)
		copy(want[10*page+100:], want[:8*page+50]) // from dirty pages to dirty pages
		n, err := f.WriteAt(shared[:8*page+50], 10*page+100)
		harness.Check(t, err)
		harness.Equal(t, "bytes written", n, 8*page+50)
		if !bytes.Equal(shared, want) {
			t.Error("the mapping is not what was written")
		}
		if got, err := os.ReadFile(o.Path("new")); err != nil || !bytes.Equal(got, want) {
			t.Errorf("others read something else, or %v", err)
		}
	})
}

func halves(b []byte) [][]byte { return [][]byte{b[:len(b)/2], b[len(b)/2:]} }

// throughPipe moves up to n bytes without copying them.
func throughPipe(to, from *os.File, at int64, n int) (int, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer r.Close()
	defer w.Close()
	out := at
	moved, err := unix.Splice(int(from.Fd()), &at, int(w.Fd()), nil, min(n, 32<<10), 0)
	for left := moved; err == nil && left > 0; {
		var done int64
		done, err = unix.Splice(int(r.Fd()), nil, int(to.Fd()), &out, int(left), 0)
		left -= done
	}
	return int(moved), err
}
