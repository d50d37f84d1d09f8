package e2e

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// largeText is a file that passthrough reads from a lower: smaller ones come in one READ.
var largeText = strings.Repeat("0123456789abcdef", 16<<10)

func readAt(t *testing.T, f *os.File, off int64, size int) string {
	t.Helper()
	buf := make([]byte, size)
	n, err := f.ReadAt(buf, off)
	if err != io.EOF {
		check(t, err)
	}
	return string(buf[:n])
}

// Large files of a lower are read, mapped and run without a READ.
func TestPassthroughLower(t *testing.T) {
	eachPassthrough(t, func(t *testing.T, e *env) {
		o := e.overlay(t, "file large "+quote(largeText)+"\nfile small \"text\"")
		busybox, err := exec.LookPath("busybox")
		check(t, err)
		sh(t, o.lowers[0], "cp "+busybox+" busybox")
		o.mount()
		got := o.closing(2, func() {
			wantText(t, o.path("large"), largeText)
			f := open(t, o.path("large"), os.O_RDONLY)
			m, err := unix.Mmap(int(f.Fd()), 0, len(largeText), unix.PROT_READ, unix.MAP_PRIVATE)
			check(t, err)
			check(t, f.Close())
			equal(t, "mapped", string(m) == largeText, true)
			check(t, unix.Munmap(m))
			equal(t, "run", sh(t, o.mnt, "./busybox echo it"), "it\n")
		})
		equal(t, "reads of large files", got["READ"], 0)
		got = o.closing(1, func() { wantText(t, o.path("small"), "text") })
		equal(t, "reads of a small file", got["READ"], 1)
	})
}

// Who has a large file of a lower open goes on reading that (D19), and everybody else reads what is written. It is one file all
// the same: its attributes are changed and seen through either.
func TestPassthroughLowerIsParted(t *testing.T) {
	eachPassthrough(t, func(t *testing.T, e *env) {
		o := e.overlay(t, "file d/large "+quote(largeText))
		sh(t, o.lowers[0], "ln d/large other; cp d/large plain")
		o.opts = append(o.opts, "index=on")
		o.mount()
		for _, name := range []string{"d/large", "plain"} {
			reader := open(t, o.path(name), os.O_RDONLY)
			ino := fstat(t, reader).Ino
			check(t, os.Chmod(o.path(name), 0o600))
			joined := open(t, o.path(name), os.O_RDONLY)
			equal(t, "after a chmod", readAt(t, joined, 0, 20), largeText[:20])
			writer := open(t, o.path(name), os.O_RDWR)
			_, err := writer.WriteAt([]byte("NEW"), 3)
			check(t, err)
			for what, f := range map[string]*os.File{"reader": reader, "joined": joined} {
				equal(t, what, readAt(t, f, 0, len(largeText)+1) == largeText, true)
			}
			for what, path := range map[string]string{"fresh": o.path(name), "other": o.path("other")} {
				if what == "fresh" || name != "plain" {
					equal(t, what, readText(t, path)[:8], "012NEW67")
				}
			}
			equal(t, "writer", readAt(t, writer, 0, 8), "012NEW67")

			check(t, writer.Truncate(100))
			check(t, reader.Chmod(0o640))
			check(t, unix.Fsetxattr(int(joined.Fd()), "user.of", []byte("the reader"), 0))
			check(t, setTimes(o.path(name), oldTime))
			fresh := open(t, o.path(name), os.O_RDONLY)
			for what, f := range map[string]*os.File{"reader": reader, "writer": writer, "fresh": fresh} {
				st := fstat(t, f)
				equal(t, what+": size", st.Size, 100)
				equal(t, what+": mode", st.Mode, unix.S_IFREG|0o640)
				equal(t, what+": mtime", st.Mtim.Sec, oldTime.Unix())
				equal(t, what+": ino", st.Ino, ino)
			}
			equal(t, "an attribute", xattrOf(o.path(name), "user.of"), "the reader")
			off, err := reader.Seek(0, unix.SEEK_HOLE)
			check(t, err)
			equal(t, "the end of what is read", off, int64(len(largeText)))

			check(t, os.Rename(o.path(name), o.path("renamed")))
			wantText(t, o.path("renamed"), "012NEW"+largeText[6:100])
			check(t, os.Remove(o.path("renamed")))
			equal(t, "removed", readAt(t, reader, 100, 10), largeText[100:110])
			equal(t, "removed, written", readAt(t, writer, 0, 8), "012NEW67")
			for _, f := range []*os.File{reader, joined, writer, fresh} {
				check(t, f.Close())
			}
		}
		got := o.closing(1, func() { wantText(t, o.path("other"), "012NEW"+largeText[6:100]) })
		equal(t, "reads of the copy", got["READ"], 0)
		o.remount()
		wantText(t, o.path("other"), "012NEW"+largeText[6:100])
		for _, name := range []string{"d/large", "other", "plain"} {
			wantText(t, filepath.Join(o.lowers[0], name), largeText)
		}
	})
}

// What is opened and cut off, truncated by name, replaced or run while others read it from the lower.
func TestPassthroughLowerOtherwise(t *testing.T) {
	eachPassthrough(t, func(t *testing.T, e *env) {
		o := e.overlay(t, "file cut "+quote(largeText)+"\nfile trunc "+quote(largeText)+"\nfile over "+quote(largeText))
		busybox, err := exec.LookPath("busybox")
		check(t, err)
		sh(t, o.lowers[0], "cp "+busybox+" busybox")
		o.mount()
		readers := map[string]*os.File{}
		for _, name := range []string{"cut", "trunc", "over"} {
			readers[name] = open(t, o.path(name), os.O_RDONLY)
		}
		write(t, o.path("cut"), "new") // O_CREAT|O_TRUNC
		check(t, os.Truncate(o.path("trunc"), 3))
		write(t, o.path("tmp"), "new")
		check(t, os.Rename(o.path("tmp"), o.path("over")))
		for name, want := range map[string]string{"cut": "new", "trunc": "012", "over": "new"} {
			wantText(t, o.path(name), want)
			equal(t, name+": its reader", readAt(t, readers[name], 0, len(largeText)) == largeText, true)
		}

		running := exec.Command(o.path("busybox"), "sleep", "60")
		check(t, running.Start())
		defer func() { _, _ = running.Process.Kill(), running.Wait() }()
		_, err = os.OpenFile(o.path("busybox"), os.O_RDWR, 0)
		wantErr(t, "write what runs", err, syscall.ETXTBSY)
		check(t, os.Chmod(o.path("busybox"), 0o700))
		equal(t, "what runs is run again", sh(t, o.mnt, fmt.Sprintf("exec -a busybox /proc/%d/exe echo it", running.Process.Pid)), "it\n")

		// By a descriptor the kernel finds the same inode again: no second try helps.
		for _, flags := range []int{os.O_RDONLY, os.O_RDWR} {
			check(t, open(t, o.path("trunc"), flags).Close())
			_, err = os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", readers["trunc"].Fd()), flags, 0)
			wantErr(t, "open by a reader's descriptor", err, syscall.ESTALE)
		}
	})
}

// Readers, writers and who replaces it, all at once, on few files: each open succeeds, each reader reads one state of the file as it
// was while it was open, and nothing written is lost.
func TestPassthroughLowerAtTheSameTime(t *testing.T) {
	eachPassthrough(t, func(t *testing.T, e *env) {
		const files, size = 16, 256 << 10
		var table strings.Builder
		for i := range files {
			fmt.Fprintf(&table, "file f%d %s\n", i, quote(strings.Repeat("0", size)))
		}
		o := e.mounted(t, table.String())
		var wg sync.WaitGroup
		for i := range files {
			path := o.path(fmt.Sprint("f", i))
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
		o.remount()
		for i := range files {
			wantText(t, o.path(fmt.Sprint("f", i)), strings.Repeat("9", size))
			wantText(t, filepath.Join(o.lowers[0], fmt.Sprint("f", i)), strings.Repeat("0", size))
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
