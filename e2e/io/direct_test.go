package io

import (
	"bytes"
	"encoding/binary"
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

// Who makes a file to write it writes past the page cache of the mount, and others read the file through it meanwhile. Once a write
// has returned, everybody reads what was written, by read and by mapping.
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
			for reader := range 2 {
				readers.Go(func() {
					if err := lookAtPages(p, page, written[:], reader == 1, &done); err != nil {
						t.Error(err)
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

// lookAtPages reads the file until done, and reports a page that has less than what had been written before it was read.
func lookAtPages(p string, page int, written []atomic.Uint32, mapped bool, done *atomic.Bool) error {
	f, err := os.Open(p)
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, page*len(written))
	if mapped {
		if buf, err = unix.Mmap(int(f.Fd()), 0, len(buf), unix.PROT_READ, unix.MAP_SHARED); err != nil {
			return err
		}
		defer func() { _ = unix.Munmap(buf) }()
	}
	for looks := 0; !done.Load(); looks++ {
		at := looks % len(written)
		least := written[at].Load()
		if !mapped {
			if n, err := f.ReadAt(buf[at*page:(at+1)*page-16*at], int64(at*page)); err != nil {
				return fmt.Errorf("%d bytes: %w", n, err)
			}
		}
		for i := at * page; i < (at+1)*page-16*at; i += 256 {
			if got := binary.NativeEndian.Uint32(buf[i:]); got < least {
				return fmt.Errorf("mapped %v: at %d reads %d, and %d had been written", mapped, i, got, least)
			}
		}
	}
	return nil
}

// Who follows a file that grows by small pieces reads each of them, and no zeros in their place.
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

// follow reads what has been written to the file, line by line, until done.
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

// Pieces of every size and alignment, in every way in which data gets into a file, arrive as they are, whoever reads meanwhile.
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
			// What is mapped by another, and what is cut off, is seen by both.
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

// Who makes a file to write and to read it sees one file, whether he writes, reads or maps it, and so do others.
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

// Who writes what is mapped of the same file, dirty, in pieces that cross pages, is not stopped by it.
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
