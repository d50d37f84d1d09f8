package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const mib = 1 << 20

// A sparse file keeps its holes through copy-up, and one beyond 4 GiB is whole.
func TestSparseAndHugeFiles(t *testing.T) {
	needDaemon(t) // the kernel copies up in pieces of 1 MiB
	eachIO(t, allModes, func(t *testing.T, e *env) {
		o := e.overlay(t, "file sparse \"head\"\nsize sparse 1073741824\nfile huge \"head\"\nsize huge 5368709120\nfile allhole \"\"\nsize allhole 1048576")
		for name, at := range map[string]int64{"sparse": 512 * mib, "huge": 4097 * mib} {
			f := open(t, filepath.Join(o.lowers[0], name), os.O_WRONLY)
			_, err := f.WriteAt([]byte("middle"), at)
			check(t, err)
			check(t, f.Close())
		}
		o.mount()
		for name, at := range map[string]int64{"sparse": 512 * mib, "huge": 4097 * mib, "allhole": 100} {
			size := lstat(t, o.path(name)).Size
			f := open(t, o.path(name), os.O_RDWR)
			_, err := f.WriteAt([]byte("tail"), size)
			check(t, err)
			if name != "allhole" {
				buf := make([]byte, 6)
				_, err = f.ReadAt(buf, at)
				check(t, err)
				equal(t, name+": data in the middle", string(buf), "middle")
				where, err := unix.Seek(int(f.Fd()), 4096, unix.SEEK_DATA)
				check(t, err)
				equal(t, name+": SEEK_DATA", where, at)
			}
			check(t, f.Sync())
			check(t, f.Close())
			up := lstat(t, filepath.Join(o.upper, name))
			equal(t, name+": size in the upper", up.Size, size+4)
			if up.Blocks > 200 {
				t.Errorf("%s: %d blocks in the upper: the holes are gone", name, up.Blocks)
			}
			equal(t, name+": blocks shown", lstat(t, o.path(name)).Size, size+4)
		}
	})
}

// The st_mtime that a file shows after it was made and written, within one tick of the clock, is the one that a later mount shows.
func TestTimeOfAWriteLasts(t *testing.T) {
	eachIO(t, allModes, func(t *testing.T, e *env) {
		o := e.overlay(t, "")
		o.mount()
		const files = 50
		shown := map[string]unix.Timespec{}
		for i := range files {
			name := fmt.Sprint("f", i)
			check(t, os.WriteFile(o.path(name), []byte("text"), 0o644))
			shown[name] = lstat(t, o.path(name)).Mtim
		}
		o.remount()
		for name, before := range shown {
			equal(t, name+": st_mtime", lstat(t, o.path(name)).Mtim, before)
		}
	})
}

// Bytes that fallocate makes zeros stay zeros in the upper, though a mapping changes the bytes beside them and the page is written
// back meanwhile.
func TestClearedBytesBesideAMapping(t *testing.T) {
	needDaemon(t)
	eachIO(t, allModes, func(t *testing.T, e *env) {
		o := e.overlay(t, "")
		o.mount()
		f := open(t, o.path("f"), os.O_RDWR|os.O_CREATE)
		defer f.Close()
		const cleared, size = 11, 4096
		check(t, f.Truncate(size))
		m, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		check(t, err)
		defer func() { check(t, unix.Munmap(m)) }()
		stop, done := make(chan struct{}), make(chan struct{})
		go func() { // as other users of the file and the flusher do
			defer close(done)
			for {
				select {
				case <-stop:
					return
				default:
					m[cleared]++
					_ = unix.SyncFileRange(int(f.Fd()), 0, size, unix.SYNC_FILE_RANGE_WRITE)
				}
			}
		}()
		lost := 0
		for range 300 {
			_, err := f.WriteAt(bytes.Repeat([]byte("x"), cleared), 0)
			check(t, err)
			check(t, unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_ZERO_RANGE|unix.FALLOC_FL_KEEP_SIZE, 0, cleared))
			check(t, f.Sync())
			got := make([]byte, cleared)
			up := open(t, filepath.Join(o.upper, "f"), os.O_RDONLY)
			_, err = up.ReadAt(got, 0)
			check(t, errors.Join(err, up.Close()))
			if !bytes.Equal(got, make([]byte, cleared)) {
				lost++
			}
		}
		close(stop)
		<-done
		equal(t, "times that the upper had the old bytes", lost, 0)
	})
}

func TestSeekDataAndHole(t *testing.T) {
	needDaemon(t) // the kernel copies up in pieces of 1 MiB
	eachIO(t, allModes, func(t *testing.T, e *env) {
		o := e.overlay(t, "file low \"\"\nsize low 1048576")
		f := open(t, filepath.Join(o.lowers[0], "low"), os.O_WRONLY)
		_, err := f.WriteAt(bytes.Repeat([]byte("x"), 4096), 65536)
		check(t, err)
		check(t, f.Close())
		o.mount()
		seek := func(f *os.File, off int64, whence int) string {
			n, err := unix.Seek(int(f.Fd()), off, whence)
			return fmt.Sprint(n, errnoName(err))
		}
		f = open(t, o.path("low"), os.O_RDWR)
		equal(t, "lower: data from 0", seek(f, 0, unix.SEEK_DATA), fmt.Sprint(65536, "ok"))
		equal(t, "lower: hole from data", seek(f, 65536, unix.SEEK_HOLE), fmt.Sprint(65536+4096, "ok"))
		equal(t, "lower: data behind the end", seek(f, 1048576, unix.SEEK_DATA), fmt.Sprint(-1, "ENXIO"))
		// Pages that are dirty and not yet written count as data.
		_, err = f.WriteAt(bytes.Repeat([]byte("y"), 4096), 524288)
		check(t, err)
		equal(t, "dirty: data", seek(f, 65536+4096, unix.SEEK_DATA), fmt.Sprint(524288, "ok"))
		equal(t, "dirty: hole", seek(f, 524288, unix.SEEK_HOLE), fmt.Sprint(524288+4096, "ok"))
		_, err = f.WriteAt([]byte("z"), 2*mib)
		check(t, err)
		equal(t, "dirty: data behind the old end", seek(f, 600000, unix.SEEK_DATA), fmt.Sprint(2*mib, "ok"))
	})
}

func TestFallocateModes(t *testing.T) {
	eachIO(t, allModes, func(t *testing.T, e *env) {
		text := string(bytes.Repeat([]byte("0123456789abcdef"), 2048)) // 32 KiB
		for _, c := range []struct {
			name     string
			mode     uint32
			off, n   int64
			wantSize int64
			zeroFrom int64
			zeroTo   int64
		}{
			{"extend", 0, 30000, 10000, 40000, 32768, 40000},
			{"keep size", unix.FALLOC_FL_KEEP_SIZE, 30000, 10000, 32768, 0, 0},
			{"punch", unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE, 4096, 8192, 32768, 4096, 12288},
			{"punch odd", unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE, 100, 5000, 32768, 100, 5100},
			{"zero", unix.FALLOC_FL_ZERO_RANGE, 30000, 10000, 40000, 30000, 40000},
		} {
			t.Run(c.name, func(t *testing.T) {
				e := &env{mode: e.mode, dir: filepath.Join(e.dir, strings.ReplaceAll(c.name, " ", "_")), opts: e.opts}
				mkdir(t, e.dir)
				o := e.mounted(t, "file low "+quote(text))
				write(t, o.path("new"), text)
				for _, name := range []string{"low", "new"} {
					f := open(t, o.path(name), os.O_RDWR)
					check(t, unix.Fallocate(int(f.Fd()), c.mode, c.off, c.n))
					want := make([]byte, c.wantSize)
					copy(want, text)
					clear(want[c.zeroFrom:c.zeroTo])
					got, err := io.ReadAll(f)
					check(t, err)
					if !bytes.Equal(got, want) {
						t.Errorf("%s: wrong content, %d bytes, want %d", name, len(got), len(want))
					}
					check(t, f.Close())
					equal(t, name+": size", lstat(t, o.path(name)).Size, c.wantSize)
				}
				wantText(t, filepath.Join(o.lowers[0], "low"), text)
				o.remount()
				equal(t, "size after a remount", lstat(t, o.path("low")).Size, c.wantSize)
			})
		}
		o := e.mounted(t, "file low "+quote(text))
		f := open(t, o.path("low"), os.O_RDWR)
		for what, mode := range map[string]uint32{ // D45
			"collapse": unix.FALLOC_FL_COLLAPSE_RANGE, "insert": unix.FALLOC_FL_INSERT_RANGE, "unshare": unix.FALLOC_FL_UNSHARE_RANGE,
		} {
			if !o.kernel {
				wantErr(t, what, unix.Fallocate(int(f.Fd()), mode, 4096, 4096), syscall.EOPNOTSUPP)
				wantText(t, o.path("low"), text)
			}
		}
		wantErr(t, "unknown mode", unix.Fallocate(int(f.Fd()), 0x8000, 0, 4096), syscall.EOPNOTSUPP)
	})
}

func TestCopyFileRange(t *testing.T) {
	eachIO(t, allModes, func(t *testing.T, e *env) {
		text := bytes.Repeat([]byte("copy me "), 40_000)
		o := e.mounted(t, "file low "+quote(string(text))+"\nfile target \"the lower's target, long enough\"")
		in := open(t, o.path("low"), os.O_RDONLY)
		for _, target := range []string{"new", "target"} {
			out := open(t, o.path(target), os.O_RDWR|os.O_CREATE)
			_, err := out.WriteAt([]byte("dirty"), 0)
			check(t, err)
			var roff, woff int64 = 8, 5
			left := len(text) - 8
			for left > 0 {
				n, err := unix.CopyFileRange(int(in.Fd()), &roff, int(out.Fd()), &woff, left, 0)
				check(t, err)
				if n == 0 {
					t.Fatalf("copy_file_range stopped with %d bytes left", left)
				}
				left -= n
			}
			wantText(t, o.path(target), "dirty"+string(text[8:]))
			// Within one file: not overlapping, of bytes not yet written.
			_, err = out.WriteAt([]byte("FRESH"), 100)
			check(t, err)
			roff, woff = 100, 10_000
			n, err := unix.CopyFileRange(int(out.Fd()), &roff, int(out.Fd()), &woff, 5, 0)
			check(t, err)
			equal(t, "copied", n, 5)
			buf := make([]byte, 5)
			_, err = out.ReadAt(buf, 10_000)
			check(t, err)
			equal(t, "copied within the file", string(buf), "FRESH")
			check(t, out.Close())
		}
		sh(t, o.mnt, "cp --reflink=auto low copied; cmp low copied")
		wantText(t, filepath.Join(o.lowers[0], "target"), "the lower's target, long enough")
	})
}

// Many writers and readers at random offsets, compared with a copy in memory.
func TestRandomWritesReadBack(t *testing.T) {
	eachIO(t, allModes, func(t *testing.T, e *env) {
		r := rand.New(rand.NewPCG(1, 2))
		model := bytes.Repeat([]byte("lower"), 60_000)
		o := e.mounted(t, "file f "+quote(string(model)))
		f := open(t, o.path("f"), os.O_RDWR)
		for i := range 600 {
			off, n := r.IntN(400_000), 1+r.IntN(20_000)
			switch {
			case i%97 == 96:
				size := r.IntN(400_000)
				check(t, f.Truncate(int64(size)))
				grown := make([]byte, size)
				copy(grown, model)
				model = grown
			case i%2 == 0:
				piece := bytes.Repeat([]byte{byte('a' + i%26)}, n)
				_, err := f.WriteAt(piece, int64(off))
				check(t, err)
				if off+n > len(model) {
					model = append(model, make([]byte, off+n-len(model))...)
				}
				copy(model[off:], piece)
			default:
				buf := make([]byte, n)
				m, err := f.ReadAt(buf, int64(off))
				if err != nil && err != io.EOF {
					t.Fatal(err)
				}
				want := model[min(off, len(model)):min(off+n, len(model))]
				if !bytes.Equal(buf[:m], want) {
					t.Fatalf("step %d: read %d bytes at %d differ", i, n, off)
				}
			}
			if i == 300 {
				check(t, f.Close())
				o.remount()
				f = open(t, o.path("f"), os.O_RDWR)
			}
		}
		check(t, f.Close())
		o.unmount()
		wantText(t, filepath.Join(o.upper, "f"), string(model))
	})
}

func TestSharedMapping(t *testing.T) {
	eachIO(t, allModes, func(t *testing.T, e *env) {
		o := e.mounted(t, "file low \"\"\nsize low 65536")
		f := open(t, o.path("low"), os.O_RDWR)
		other := open(t, o.path("low"), os.O_RDWR)
		m, err := unix.Mmap(int(f.Fd()), 0, 65536, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		check(t, err)
		copy(m[10_000:], "through the mapping")
		buf := make([]byte, 19)
		_, err = other.ReadAt(buf, 10_000)
		check(t, err)
		equal(t, "read sees the mapping", string(buf), "through the mapping")
		_, err = other.WriteAt([]byte("through write"), 20_000)
		check(t, err)
		equal(t, "the mapping sees write", string(m[20_000:20_013]), "through write")
		check(t, f.Close()) // the mapping lives on
		copy(m[30_000:], "after close")
		check(t, unix.Msync(m, unix.MS_SYNC))
		check(t, unix.Munmap(m))
		check(t, other.Close())
		o.remount()
		text, err := os.ReadFile(o.path("low"))
		check(t, err)
		equal(t, "after a remount", string(text[10_000:10_019])+string(text[20_000:20_013])+string(text[30_000:30_011]),
			"through the mappingthrough writeafter close")
		low, err := os.ReadFile(filepath.Join(o.lowers[0], "low"))
		check(t, err)
		equal(t, "the lower is unchanged", string(bytes.Trim(low, "\x00")), "")
	})
}

// A mapping made before the copy-up shows what is written afterwards (D3).
func TestMappingBeforeCopyUp(t *testing.T) {
	needDaemon(t)
	eachIO(t, allModes, func(t *testing.T, e *env) {
		o := e.mounted(t, "file low \"0123456789\"")
		f := open(t, o.path("low"), os.O_RDONLY)
		m, err := unix.Mmap(int(f.Fd()), 0, 10, unix.PROT_READ, unix.MAP_SHARED)
		check(t, err)
		equal(t, "before", string(m), "0123456789")
		w := open(t, o.path("low"), os.O_WRONLY)
		_, err = w.WriteAt([]byte("NEW"), 3)
		check(t, err)
		equal(t, "after a write", string(m), "012NEW6789")
		check(t, unix.Munmap(m))
	})
}

// The objects of both layers go on working after their last name is gone.
func TestUnlinkedButOpen(t *testing.T) {
	eachIO(t, allModes, func(t *testing.T, e *env) {
		o := e.overlay(t, "file low \"lower text\"\nfile over \"lower text\"\ndir d")
		build(t, e, o.upper, "file up \"upper text\"")
		o.mount()
		write(t, o.path("new"), "new text")
		for name, text := range map[string]string{"low": "lower text", "up": "upper text", "new": "new text", "over": "lower text"} {
			f := open(t, o.path(name), os.O_RDWR)
			if oracle && (name == "low" || name == "over") {
				// The kernel copied up at open already.
				text = "lower text"
			}
			if name == "over" {
				write(t, o.path("over.new"), "replacement")
				check(t, os.Rename(o.path("over.new"), o.path("over")))
			} else {
				check(t, os.Remove(o.path(name)))
				wantAbsent(t, o.path(name))
			}
			got, err := io.ReadAll(f)
			check(t, err)
			equal(t, name+": read", string(got), text)
			_, err = f.WriteAt([]byte("!"), int64(len(text)))
			check(t, err)
			check(t, f.Sync())
			st := fstat(t, f)
			equal(t, name+": nlink", st.Nlink, 0)
			equal(t, name+": size", st.Size, int64(len(text)+1))
			check(t, f.Chmod(0o600))
			equal(t, name+": mode", fstat(t, f).Mode&0o777, 0o600)
			check(t, f.Truncate(4))
			m, err := unix.Mmap(int(f.Fd()), 0, 4, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			check(t, err)
			equal(t, name+": mapped", string(m), text[:4])
			copy(m, "MMAP")
			check(t, unix.Munmap(m))
			buf := make([]byte, 10)
			n, err := f.ReadAt(buf, 0)
			if err != nil && err != io.EOF {
				t.Errorf("%s: read: %v", name, err)
			}
			equal(t, name+": after mmap", string(buf[:n]), "MMAP")
			check(t, f.Close())
		}
		d := open(t, o.path("d"), os.O_RDONLY)
		check(t, os.Remove(o.path("d")))
		_, err := unix.Openat(int(d.Fd()), "x", unix.O_CREAT|unix.O_WRONLY, 0o644)
		wantErr(t, "create in a removed directory", err, syscall.ENOENT)
		check(t, d.Close())
		o.unmount()
		wantTree(t, "the upper", o.upper, "white low\nwhite d\nfile over \"replacement\"")
		wantTree(t, "the lower", o.lowers[0], "file low \"lower text\"\nfile over \"lower text\"\ndir d")
	})
}
