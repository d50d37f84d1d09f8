package io

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// largeText is the content of a file that passthrough reads from a lower. A smaller file is one
// READ.
var largeText = strings.Repeat("0123456789abcdef", 16<<10)

func readAt(t *testing.T, f *os.File, off int64, size int) string {
	t.Helper()
	buf := make([]byte, size)
	n, err := f.ReadAt(buf, off)
	if err != io.EOF {
		harness.Check(t, err)
	}
	return string(buf[:n])
}

// Reads, mappings and executions of large lower files need no READ.
func TestPassthroughLower(t *testing.T) {
	harness.Raced(t)
	eachPassthrough(t, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "file large "+strconv.Quote(largeText)+"\nfile small \"text\"")
		busybox, err := exec.LookPath("busybox")
		harness.Check(t, err)
		harness.Shell(t, o.Lowers[0], "cp "+busybox+" busybox")
		o.Mount()
		got := duringClose(o, 2, func() {
			harness.WantText(t, o.Path("large"), largeText)
			f := harness.Open(t, o.Path("large"), os.O_RDONLY)
			m, err := unix.Mmap(int(f.Fd()), 0, len(largeText), unix.PROT_READ, unix.MAP_PRIVATE)
			harness.Check(t, err)
			harness.Check(t, f.Close())
			harness.Equal(t, "mapped", string(m) == largeText, true)
			harness.Check(t, unix.Munmap(m))
			harness.Equal(t, "run", harness.Shell(t, o.Point, "./busybox echo it"), "it\n")
		})
		harness.Equal(t, "reads of large files", got["READ"], 0)
		got = duringClose(o, 1, func() { harness.WantText(t, o.Path("small"), "text") })
		harness.Equal(t, "reads of a small file", got["READ"], 1)
	})
}

// A process that has a large lower file open reads the lower on (D19), and all other processes read
// the new data. It stays one file: a change of its attributes through either shows through both.
func TestPassthroughLowerIsParted(t *testing.T) {
	harness.Raced(t)
	eachPassthrough(t, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "file d/large "+strconv.Quote(largeText))
		harness.Shell(t, o.Lowers[0], "ln d/large other; cp d/large plain")
		o.Opts = append(o.Opts, "index=on")
		o.Mount()
		for _, name := range []string{"d/large", "plain"} {
			reader := harness.Open(t, o.Path(name), os.O_RDONLY)
			ino := harness.Fstat(t, reader).Ino
			harness.Check(t, os.Chmod(o.Path(name), 0o600))
			joined := harness.Open(t, o.Path(name), os.O_RDONLY)
			harness.Equal(t, "after a chmod", readAt(t, joined, 0, 20), largeText[:20])
			writer := harness.Open(t, o.Path(name), os.O_RDWR)
			_, err := writer.WriteAt([]byte("NEW"), 3)
			harness.Check(t, err)
			for what, f := range map[string]*os.File{"reader": reader, "joined": joined} {
				harness.Equal(t, what, readAt(t, f, 0, len(largeText)+1) == largeText, true)
			}
			for what, path := range map[string]string{"fresh": o.Path(name), "other": o.Path("other")} {
				if what == "fresh" || name != "plain" {
					harness.Equal(t, what, harness.ReadText(t, path)[:8], "012NEW67")
				}
			}
			harness.Equal(t, "writer", readAt(t, writer, 0, 8), "012NEW67")

			harness.Check(t, writer.Truncate(100))
			harness.Check(t, reader.Chmod(0o640))
			harness.Check(t, unix.Fsetxattr(int(joined.Fd()), "user.of", []byte("the reader"), 0))
			harness.Check(t, harness.SetTimes(o.Path(name), harness.OldTime))
			fresh := harness.Open(t, o.Path(name), os.O_RDONLY)
			for what, f := range map[string]*os.File{"reader": reader, "writer": writer, "fresh": fresh} {
				st := harness.Fstat(t, f)
				harness.Equal(t, what+": size", st.Size, 100)
				harness.Equal(t, what+": mode", st.Mode, unix.S_IFREG|0o640)
				harness.Equal(t, what+": mtime", st.Mtim.Sec, harness.OldTime.Unix())
				harness.Equal(t, what+": ino", st.Ino, ino)
			}
			harness.Equal(t, "an attribute", harness.XattrOf(o.Path(name), "user.of"), "the reader")
			off, err := reader.Seek(0, unix.SEEK_HOLE)
			harness.Check(t, err)
			harness.Equal(t, "the end of what is read", off, int64(len(largeText)))

			harness.Check(t, os.Rename(o.Path(name), o.Path("renamed")))
			harness.WantText(t, o.Path("renamed"), "012NEW"+largeText[6:100])
			harness.Check(t, os.Remove(o.Path("renamed")))
			harness.Equal(t, "removed", readAt(t, reader, 100, 10), largeText[100:110])
			harness.Equal(t, "removed, written", readAt(t, writer, 0, 8), "012NEW67")
			for _, f := range []*os.File{reader, joined, writer, fresh} {
				harness.Check(t, f.Close())
			}
		}
		got := duringClose(o, 1, func() { harness.WantText(t, o.Path("other"), "012NEW"+largeText[6:100]) })
		harness.Equal(t, "reads of the copy", got["READ"], 0)
		o.Remount()
		harness.WantText(t, o.Path("other"), "012NEW"+largeText[6:100])
		for _, name := range []string{"d/large", "other", "plain"} {
			harness.WantText(t, filepath.Join(o.Lowers[0], name), largeText)
		}
	})
}

// A file is opened with O_TRUNC, truncated by name, replaced and executed while other processes
// read it from the lower.
func TestPassthroughLowerOtherwise(t *testing.T) {
	harness.Raced(t)
	eachPassthrough(t, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "file cut "+strconv.Quote(largeText)+"\nfile trunc "+strconv.Quote(largeText)+"\nfile over "+
			strconv.Quote(largeText))
		busybox, err := exec.LookPath("busybox")
		harness.Check(t, err)
		harness.Shell(t, o.Lowers[0], "cp "+busybox+" busybox")
		o.Mount()
		readers := map[string]*os.File{}
		for _, name := range []string{"cut", "trunc", "over"} {
			readers[name] = harness.Open(t, o.Path(name), os.O_RDONLY)
		}
		harness.Write(t, o.Path("cut"), "new") // O_CREAT|O_TRUNC
		harness.Check(t, os.Truncate(o.Path("trunc"), 3))
		harness.Write(t, o.Path("tmp"), "new")
		harness.Check(t, os.Rename(o.Path("tmp"), o.Path("over")))
		for name, want := range map[string]string{"cut": "new", "trunc": "012", "over": "new"} {
			harness.WantText(t, o.Path(name), want)
			harness.Equal(t, name+": its reader", readAt(t, readers[name], 0, len(largeText)) == largeText, true)
		}

		running := exec.Command(o.Path("busybox"), "sleep", "60")
		harness.Check(t, running.Start())
		defer func() { _, _ = running.Process.Kill(), running.Wait() }()
		_, err = os.OpenFile(o.Path("busybox"), os.O_RDWR, 0)
		harness.WantErr(t, "write what runs", err, syscall.ETXTBSY)
		harness.Check(t, os.Chmod(o.Path("busybox"), 0o700))
		harness.Equal(t, "what runs is run again", harness.Shell(t, o.Point,
			fmt.Sprintf("exec -a busybox /proc/%d/exe echo it", running.Process.Pid)), "it\n")

		// By a descriptor the kernel finds the same inode again, so a retry does not help.
		for _, flags := range []int{os.O_RDONLY, os.O_RDWR} {
			harness.Check(t, harness.Open(t, o.Path("trunc"), flags).Close())
			_, err = os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", readers["trunc"].Fd()), flags, 0)
			harness.WantErr(t, "open by a reader's descriptor", err, syscall.ESTALE)
		}
	})
}

// Processes read, write and replace few files at the same time. Each open succeeds, each reader
// reads one state of the file during its open, and no written data is lost.
func TestPassthroughLowerAtTheSameTime(t *testing.T) {
	harness.Raced(t)
	eachPassthrough(t, func(t *testing.T, e *harness.Env) {
		const files, size = 16, 256 << 10
		var table strings.Builder
		for i := range files {
			fmt.Fprintf(&table, "file f%d %s\n", i, strconv.Quote(strings.Repeat("0", size)))
		}
		o := e.Mounted(t, table.String())
		var wg sync.WaitGroup
		for i := range files {
			path := o.Path(fmt.Sprint("f", i))
			for range 2 { // the text of a file is one digit throughout, written in one call, never a lower one
				wg.Go(func() {
					last := byte('0')
					for range 60 {
						text, err := os.ReadFile(path)
						if err != nil {
							t.Error(err)
							return
						}
						if len(text) != size || text[0] < last {
							t.Errorf("%d bytes, %q after %q", len(text), text[:1], last)
							return
						}
						last = text[0]
					}
				})
			}
			wg.Go(func() {
				for digit := byte('1'); digit <= '9'; digit++ {
					if err := overwrite(path, digit, size); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		o.Remount()
		for i := range files {
			harness.WantText(t, o.Path(fmt.Sprint("f", i)), strings.Repeat("9", size))
			harness.WantText(t, filepath.Join(o.Lowers[0], fmt.Sprint("f", i)), strings.Repeat("0", size))
		}
	})
}

func overwrite(path string, digit byte, size int) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt([]byte(strings.Repeat(string(rune(digit)), size)), 0)
	return errors.Join(err, f.Close())
}
