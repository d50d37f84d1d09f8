package view

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// A copy-up keeps the holes of a sparse file, and copies all of a file beyond 4 GiB.
func TestSparseAndHugeFiles(t *testing.T) {
	harness.NeedDaemon(t) // the kernel copies up in pieces of 1 MiB
	harness.EachIO(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "file sparse \"head\"\nsize sparse 1073741824\nfile huge \"head\"\nsize huge 5368709120\nfile allhole \"\"\nsize allhole 1048576")
		for name, at := range map[string]int64{"sparse": 512 * harness.MiB, "huge": 4097 * harness.MiB} {
			f := harness.Open(t, filepath.Join(o.Lowers[0], name), os.O_WRONLY)
			_, err := f.WriteAt([]byte("middle"), at)
			harness.Check(t, err)
			harness.Check(t, f.Close())
		}
		o.Mount()
		for name, at := range map[string]int64{"sparse": 512 * harness.MiB, "huge": 4097 * harness.MiB, "allhole": 100} {
			size := harness.Lstat(t, o.Path(name)).Size
			f := harness.Open(t, o.Path(name), os.O_RDWR)
			_, err := f.WriteAt([]byte("tail"), size)
			harness.Check(t, err)
			if name != "allhole" {
				buf := make([]byte, 6)
				_, err = f.ReadAt(buf, at)
				harness.Check(t, err)
				harness.Equal(t, name+": data in the middle", string(buf), "middle")
				where, err := unix.Seek(int(f.Fd()), 4096, unix.SEEK_DATA)
				harness.Check(t, err)
				harness.Equal(t, name+": SEEK_DATA", where, at)
			}
			harness.Check(t, f.Sync())
			harness.Check(t, f.Close())
			up := harness.Lstat(t, filepath.Join(o.Upper, name))
			harness.Equal(t, name+": size in the upper", up.Size, size+4)
			if up.Blocks > 200 {
				t.Errorf("%s: %d blocks in the upper: the holes are gone", name, up.Blocks)
			}
			harness.Equal(t, name+": blocks shown", harness.Lstat(t, o.Path(name)).Size, size+4)
		}
	})
}

// A file that is made and written within one tick of the clock shows the same st_mtime in a later
// mount.
func TestTimeOfAWriteLasts(t *testing.T) {
	harness.EachIO(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "")
		o.Mount()
		const files = 50
		shown := map[string]unix.Timespec{}
		for i := range files {
			name := fmt.Sprint("f", i)
			harness.Check(t, os.WriteFile(o.Path(name), []byte("text"), 0o644))
			shown[name] = harness.Lstat(t, o.Path(name)).Mtim
		}
		o.Remount()
		for name, before := range shown {
			harness.Equal(t, name+": st_mtime", harness.Lstat(t, o.Path(name)).Mtim, before)
		}
	})
}

func TestSeekDataAndHole(t *testing.T) {
	harness.NeedDaemon(t) // the kernel copies up in pieces of 1 MiB
	harness.EachIO(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "file low \"\"\nsize low 1048576")
		f := harness.Open(t, filepath.Join(o.Lowers[0], "low"), os.O_WRONLY)
		_, err := f.WriteAt(bytes.Repeat([]byte("x"), 4096), 65536)
		harness.Check(t, err)
		harness.Check(t, f.Close())
		o.Mount()
		seek := func(f *os.File, off int64, whence int) string {
			n, err := unix.Seek(int(f.Fd()), off, whence)
			return fmt.Sprint(n, harness.ErrnoName(err))
		}
		f = harness.Open(t, o.Path("low"), os.O_RDWR)
		harness.Equal(t, "lower: data from 0", seek(f, 0, unix.SEEK_DATA), fmt.Sprint(65536, "ok"))
		harness.Equal(t, "lower: hole from data", seek(f, 65536, unix.SEEK_HOLE), fmt.Sprint(65536+4096, "ok"))
		harness.Equal(t, "lower: data behind the end", seek(f, 1048576, unix.SEEK_DATA), fmt.Sprint(-1, "ENXIO"))
		// Dirty pages count as data before the kernel writes them.
		_, err = f.WriteAt(bytes.Repeat([]byte("y"), 4096), 524288)
		harness.Check(t, err)
		harness.Equal(t, "dirty: data", seek(f, 65536+4096, unix.SEEK_DATA), fmt.Sprint(524288, "ok"))
		harness.Equal(t, "dirty: hole", seek(f, 524288, unix.SEEK_HOLE), fmt.Sprint(524288+4096, "ok"))
		_, err = f.WriteAt([]byte("z"), 2*harness.MiB)
		harness.Check(t, err)
		harness.Equal(t, "dirty: data behind the old end", seek(f, 600000, unix.SEEK_DATA), fmt.Sprint(2*harness.MiB, "ok"))
	})
}

func TestFallocateModes(t *testing.T) {
	harness.EachIO(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
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
				e := &harness.Env{Mode: e.Mode, Dir: filepath.Join(e.Dir, strings.ReplaceAll(c.name, " ", "_")), Opts: e.Opts}
				harness.Mkdir(t, e.Dir)
				o := e.Mounted(t, "file low "+strconv.Quote(text))
				harness.Write(t, o.Path("new"), text)
				for _, name := range []string{"low", "new"} {
					f := harness.Open(t, o.Path(name), os.O_RDWR)
					err := unix.Fallocate(int(f.Fd()), c.mode, c.off, c.n)
					if c.mode == unix.FALLOC_FL_ZERO_RANGE && !o.Kernel && !harness.KernelAtLeast(t, 5, 15) { // D50
						harness.WantErr(t, name, err, syscall.EOPNOTSUPP)
						c.wantSize, c.zeroFrom, c.zeroTo = int64(len(text)), 0, 0
					} else {
						harness.Check(t, err)
					}
					want := make([]byte, c.wantSize)
					copy(want, text)
					clear(want[c.zeroFrom:c.zeroTo])
					got, err := io.ReadAll(f)
					harness.Check(t, err)
					if !bytes.Equal(got, want) {
						t.Errorf("%s: wrong content, %d bytes, want %d", name, len(got), len(want))
					}
					harness.Check(t, f.Close())
					harness.Equal(t, name+": size", harness.Lstat(t, o.Path(name)).Size, c.wantSize)
				}
				harness.WantText(t, filepath.Join(o.Lowers[0], "low"), text)
				o.Remount()
				harness.Equal(t, "size after a remount", harness.Lstat(t, o.Path("low")).Size, c.wantSize)
			})
		}
		o := e.Mounted(t, "file low "+strconv.Quote(text))
		f := harness.Open(t, o.Path("low"), os.O_RDWR)
		for what, mode := range map[string]uint32{ // D45
			"collapse": unix.FALLOC_FL_COLLAPSE_RANGE, "insert": unix.FALLOC_FL_INSERT_RANGE,
			"unshare": unix.FALLOC_FL_UNSHARE_RANGE,
		} {
			if !o.Kernel {
				harness.WantErr(t, what, unix.Fallocate(int(f.Fd()), mode, 4096, 4096), syscall.EOPNOTSUPP)
				harness.WantText(t, o.Path("low"), text)
			}
		}
		harness.WantErr(t, "unknown mode", unix.Fallocate(int(f.Fd()), 0x8000, 0, 4096), syscall.EOPNOTSUPP)
	})
}

func TestCopyFileRange(t *testing.T) {
	harness.EachIO(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		text := bytes.Repeat([]byte("copy me "), 40_000)
		o := e.Mounted(t, "file low "+strconv.Quote(string(text))+"\nfile target \"the lower's target, long enough\"")
		in := harness.Open(t, o.Path("low"), os.O_RDONLY)
		for _, target := range []string{"new", "target"} {
			out := harness.Open(t, o.Path(target), os.O_RDWR|os.O_CREATE)
			_, err := out.WriteAt([]byte("dirty"), 0)
			harness.Check(t, err)
			var roff, woff int64 = 8, 5
			left := len(text) - 8
			for left > 0 {
				n, err := unix.CopyFileRange(int(in.Fd()), &roff, int(out.Fd()), &woff, left, 0)
				harness.Check(t, err)
				if n == 0 {
					t.Fatalf("copy_file_range stopped with %d bytes left", left)
				}
				left -= n
			}
			harness.WantText(t, o.Path(target), "dirty"+string(text[8:]))
			// Within one file: the ranges do not overlap, and the bytes are still dirty.
			_, err = out.WriteAt([]byte("FRESH"), 100)
			harness.Check(t, err)
			roff, woff = 100, 10_000
			n, err := unix.CopyFileRange(int(out.Fd()), &roff, int(out.Fd()), &woff, 5, 0)
			harness.Check(t, err)
			harness.Equal(t, "copied", n, 5)
			buf := make([]byte, 5)
			_, err = out.ReadAt(buf, 10_000)
			harness.Check(t, err)
			harness.Equal(t, "copied within the file", string(buf), "FRESH")
			harness.Check(t, out.Close())
		}
		harness.Shell(t, o.Point, "cp --reflink=auto low copied; cmp low copied")
		harness.WantText(t, filepath.Join(o.Lowers[0], "target"), "the lower's target, long enough")
	})
}

// Many writers and readers use random offsets. The file equals a copy in memory.
func TestRandomWritesReadBack(t *testing.T) {
	harness.EachIO(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		r := rand.New(rand.NewPCG(1, 2))
		model := bytes.Repeat([]byte("lower"), 60_000)
		o := e.Mounted(t, "file f "+strconv.Quote(string(model)))
		f := harness.Open(t, o.Path("f"), os.O_RDWR)
		for i := range 600 {
			off, n := r.IntN(400_000), 1+r.IntN(20_000)
			switch {
			case i%97 == 96:
				size := r.IntN(400_000)
				harness.Check(t, f.Truncate(int64(size)))
				grown := make([]byte, size)
				copy(grown, model)
				model = grown
			case i%2 == 0:
				piece := bytes.Repeat([]byte{byte('a' + i%26)}, n)
				_, err := f.WriteAt(piece, int64(off))
				harness.Check(t, err)
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
				harness.Check(t, f.Close())
				o.Remount()
				f = harness.Open(t, o.Path("f"), os.O_RDWR)
			}
		}
		harness.Check(t, f.Close())
		o.Unmount()
		harness.WantText(t, filepath.Join(o.Upper, "f"), string(model))
	})
}

func TestSharedMapping(t *testing.T) {
	harness.EachIO(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, "file low \"\"\nsize low 65536")
		f := harness.Open(t, o.Path("low"), os.O_RDWR)
		other := harness.Open(t, o.Path("low"), os.O_RDWR)
		m, err := unix.Mmap(int(f.Fd()), 0, 65536, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		harness.Check(t, err)
		copy(m[10_000:], "through the mapping")
		buf := make([]byte, 19)
		_, err = other.ReadAt(buf, 10_000)
		harness.Check(t, err)
		harness.Equal(t, "read sees the mapping", string(buf), "through the mapping")
		_, err = other.WriteAt([]byte("through write"), 20_000)
		harness.Check(t, err)
		harness.Equal(t, "the mapping sees write", string(m[20_000:20_013]), "through write")
		harness.Check(t, f.Close()) // the mapping lives on
		copy(m[30_000:], "after close")
		harness.Check(t, unix.Msync(m, unix.MS_SYNC))
		harness.Check(t, unix.Munmap(m))
		harness.Check(t, other.Close())
		o.Remount()
		text, err := os.ReadFile(o.Path("low"))
		harness.Check(t, err)
		harness.Equal(t, "after a remount", string(text[10_000:10_019])+string(text[20_000:20_013])+
			string(text[30_000:30_011]),
			"through the mappingthrough writeafter close")
		low, err := os.ReadFile(filepath.Join(o.Lowers[0], "low"))
		harness.Check(t, err)
		harness.Equal(t, "the lower is unchanged", string(bytes.Trim(low, "\x00")), "")
	})
}

// A mapping from before the copy-up shows later writes (D3).
func TestMappingBeforeCopyUp(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachIO(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, "file low \"0123456789\"")
		f := harness.Open(t, o.Path("low"), os.O_RDONLY)
		m, err := unix.Mmap(int(f.Fd()), 0, 10, unix.PROT_READ, unix.MAP_SHARED)
		harness.Check(t, err)
		harness.Equal(t, "before", string(m), "0123456789")
		w := harness.Open(t, o.Path("low"), os.O_WRONLY)
		_, err = w.WriteAt([]byte("NEW"), 3)
		harness.Check(t, err)
		harness.Equal(t, "after a write", string(m), "012NEW6789")
		harness.Check(t, unix.Munmap(m))
	})
}

// Open objects of both layers can still be used after their last name is removed.
func TestUnlinkedButOpen(t *testing.T) {
	harness.EachIO(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "file low \"lower text\"\nfile over \"lower text\"\ndir d")
		harness.Build(t, e, o.Upper, "file up \"upper text\"")
		o.Mount()
		harness.Write(t, o.Path("new"), "new text")
		for name, text := range map[string]string{"low": "lower text", "up": "upper text", "new": "new text",
			"over": "lower text"} {
			f := harness.Open(t, o.Path(name), os.O_RDWR)
			if harness.Oracle && (name == "low" || name == "over") {
				// The kernel has copied up at the open.
				text = "lower text"
			}
			if name == "over" {
				harness.Write(t, o.Path("over.new"), "replacement")
				harness.Check(t, os.Rename(o.Path("over.new"), o.Path("over")))
			} else {
				harness.Check(t, os.Remove(o.Path(name)))
				harness.WantAbsent(t, o.Path(name))
			}
			got, err := io.ReadAll(f)
			harness.Check(t, err)
			harness.Equal(t, name+": read", string(got), text)
			_, err = f.WriteAt([]byte("!"), int64(len(text)))
			harness.Check(t, err)
			harness.Check(t, f.Sync())
			st := harness.Fstat(t, f)
			harness.Equal(t, name+": nlink", st.Nlink, 0)
			harness.Equal(t, name+": size", st.Size, int64(len(text)+1))
			harness.Check(t, f.Chmod(0o600))
			harness.Equal(t, name+": mode", harness.Fstat(t, f).Mode&0o777, 0o600)
			harness.Check(t, f.Truncate(4))
			m, err := unix.Mmap(int(f.Fd()), 0, 4, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			harness.Check(t, err)
			harness.Equal(t, name+": mapped", string(m), text[:4])
			copy(m, "MMAP")
			harness.Check(t, unix.Munmap(m))
			buf := make([]byte, 10)
			n, err := f.ReadAt(buf, 0)
			if err != nil && err != io.EOF {
				t.Errorf("%s: read: %v", name, err)
			}
			harness.Equal(t, name+": after mmap", string(buf[:n]), "MMAP")
			harness.Check(t, f.Close())
		}
		d := harness.Open(t, o.Path("d"), os.O_RDONLY)
		harness.Check(t, os.Remove(o.Path("d")))
		_, err := unix.Openat(int(d.Fd()), "x", unix.O_CREAT|unix.O_WRONLY, 0o644)
		harness.WantErr(t, "create in a removed directory", err, syscall.ENOENT)
		harness.Check(t, d.Close())
		o.Unmount()
		harness.WantTree(t, "the upper", o.Upper, "white low\nwhite d\nfile over \"replacement\"")
		harness.WantTree(t, "the lower", o.Lowers[0], "file low \"lower text\"\nfile over \"lower text\"\ndir d")
	})
}
