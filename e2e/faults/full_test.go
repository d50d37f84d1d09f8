package faults

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// onSmallUpper puts upper and work on a file system of a given size.
func onSmallUpper(t *testing.T, o *harness.Overlay, size string) {
	t.Helper()
	small := filepath.Join(o.Env.Dir, "small")
	harness.Mkdir(t, small)
	harness.Check(t, unix.Mount("tmpfs", small, "tmpfs", 0, "size="+size+",mode=755"))
	t.Cleanup(func() {
		if err := unix.Unmount(small, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	o.Upper, o.Work = filepath.Join(small, "upper"), filepath.Join(small, "work")
	harness.Mkdir(t, o.Upper, o.Work)
}

// fsync and close return the error of a full upper. Data whose write they have confirmed is there.
func TestFullUpperIsTold(t *testing.T) {
	harness.EachMode(t, harness.RootModes, func(t *testing.T, e *harness.Env) {
		for _, told := range []string{"fsync", "close", "write"} {
			t.Run(told, func(t *testing.T) {
				o := harness.NewEnv(t, e.Mode).Overlay(t, "file low \"lower\"")
				onSmallUpper(t, o, "1m")
				if !harness.Oracle {
					o.Opts = []string{map[bool]string{true: "writeback=0", false: "writeback=1"}[told == "write"]}
				}
				o.Mount()
				harness.Write(t, o.Path("small"), "fits")
				f := harness.Open(t, o.Path("big"), os.O_WRONLY|os.O_CREATE)
				piece := []byte(strings.Repeat("x", 64<<10))
				var err error
				for range 64 { // 4 MiB
					if _, err = f.Write(piece); err != nil {
						break
					}
				}
				if told == "write" && !harness.Oracle || err != nil {
					harness.WantErr(t, "write", err, syscall.ENOSPC)
				} else {
					err = f.Sync()
					if told == "write" {
						told = "fsync" // the kernel's overlayfs over a file system that collects writes
					}
					if told == "close" {
						// After fsync has returned the error of a file, its error state is cleared. So a second file.
						_ = f.Close()
						harness.Check(t, os.Remove(o.Path("big")))
						f = harness.Open(t, o.Path("big2"), os.O_WRONLY|os.O_CREATE)
						for range 64 {
							if _, err = f.Write(piece); err != nil {
								break
							}
						}
						if err == nil {
							err = f.Close()
						}
					}
					harness.WantErr(t, told, err, syscall.ENOSPC)
				}
				_ = f.Close()
				harness.WantText(t, o.Path("small"), "fits")
				harness.WantText(t, o.Path("low"), "lower")
				_ = os.Remove(o.Path("big"))
				_ = os.Remove(o.Path("big2"))
				// There is room again after the kernel has sent FORGET for the removed file.
				again := []byte(strings.Repeat("y", 300_000))
				if !harness.Eventually(3*time.Second, func() bool { return os.WriteFile(o.Path("again"), again, 0o644) == nil }) {
					t.Error("no room after the removal of the big file")
				}
				o.Remount()
				harness.WantText(t, o.Path("again"), strings.Repeat("y", 300_000))
				harness.WantText(t, o.Path("small"), "fits")
			})
		}
	})
}

// A copy-up without room fails at once or at close, and the mount still shows the lower.
func TestFullUpperAtCopyUp(t *testing.T) {
	harness.EachMode(t, harness.RootModes, func(t *testing.T, e *harness.Env) {
		text := strings.Repeat("lower", 500_000)
		o := e.Overlay(t, "file low "+strconv.Quote(text)+"\nfile small \"s\"")
		onSmallUpper(t, o, "1m")
		o.Mount()
		err := harness.AppendErr(o.Path("low"))
		harness.WantErr(t, "append to a file that does not fit", err, syscall.ENOSPC)
		harness.WantErr(t, "chmod of a file that does not fit", os.Chmod(o.Path("low"), 0o600), syscall.ENOSPC)
		harness.WantText(t, o.Path("small"), "s")
		if !harness.Oracle {
			harness.Check(t, os.Truncate(o.Path("low"), 0)) // copies nothing
		}
		harness.Write(t, o.Path("low"), "short")
		o.Remount()
		harness.WantText(t, o.Path("low"), "short")
		o.Unmount()
		if rest := harness.WorkRest(o.Work); len(rest) > 0 && !harness.Oracle {
			t.Errorf("the work directory still holds %v", rest)
		}
		harness.WantTree(t, "the upper", o.Upper, "file low \"short\"")
	})
}

func TestFullUpperAtCopyUpShowsTheLower(t *testing.T) {
	harness.EachMode(t, harness.RootModes, func(t *testing.T, e *harness.Env) {
		text := strings.Repeat("lower", 500_000)
		o := e.Overlay(t, "file low "+strconv.Quote(text))
		onSmallUpper(t, o, "1m")
		o.Mount()
		harness.WantErr(t, "chmod", os.Chmod(o.Path("low"), 0o600), syscall.ENOSPC)
		harness.WantErr(t, "rename", os.Rename(o.Path("low"), o.Path("low2")), syscall.ENOSPC)
		harness.WantErr(t, "link", os.Link(o.Path("low"), o.Path("low2")), syscall.ENOSPC)
		harness.WantText(t, o.Path("low"), text)
		harness.WantNames(t, o.Point, "low")
		harness.Equal(t, "mode", harness.Lstat(t, o.Path("low")).Mode&0o777, 0o644)
		harness.Check(t, os.Remove(o.Path("low"))) // copies nothing either
		harness.WantNames(t, o.Point)
	})
}

// Without free inodes every operation that makes an object fails at once.
func TestUpperWithoutInodes(t *testing.T) {
	harness.EachMode(t, harness.RootModes, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "file d/low \"x\"\nfile low2 \"x\"")
		onSmallUpper(t, o, "4m,nr_inodes=40")
		o.Mount()
		var err error
		n := 0
		for ; err == nil && n < 100; n++ {
			err = os.WriteFile(o.Path(fmt.Sprint("f", n)), nil, 0o644)
		}
		harness.WantErr(t, "create", err, syscall.ENOSPC)
		harness.WantErr(t, "mkdir", os.Mkdir(o.Path("dir"), 0o755), syscall.ENOSPC)
		harness.WantErr(t, "symlink", os.Symlink("x", o.Path("s")), syscall.ENOSPC)
		harness.WantErr(t, "chmod", os.Chmod(o.Path("low2"), 0o600), syscall.ENOSPC)
		// A removal needs a whiteout. If it fails, the file is still there.
		if err := os.Remove(o.Path("low2")); err != nil {
			harness.WantErr(t, "unlink", err, syscall.ENOSPC)
			harness.WantText(t, o.Path("low2"), "x")
		} else {
			harness.WantAbsent(t, o.Path("low2"))
		}
		for i := range 10 {
			harness.Check(t, os.Remove(o.Path(fmt.Sprint("f", i))))
		}
		harness.Write(t, o.Path("d/new"), "room again")
		o.Remount()
		harness.WantText(t, o.Path("d/new"), "room again")
		harness.WantAbsent(t, o.Path("f0"))
	})
}

// Upper and work belong to one mount at a time.
func TestTwoMountsOfOneUpper(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		first := e.Mounted(t, "file f \"x\"")
		for what, change := range map[string]func(o *harness.Overlay){
			"the same upper": func(o *harness.Overlay) { o.Work = e.Dir + "/work2" },
			"the same work":  func(o *harness.Overlay) { o.Upper = e.Dir + "/upper2" },
			"both":           func(*harness.Overlay) {},
		} {
			harness.Mkdir(t, e.Dir+"/work2", e.Dir+"/upper2", e.Dir+"/mnt2")
			second := &harness.Overlay{T: t, Env: e, Lowers: first.Lowers, Upper: first.Upper, Work: first.Work, Point: e.Dir +
				"/mnt2"}
			change(second)
			out, err := second.TryMount()
			if err == nil {
				t.Errorf("%s: mounted a second time", what)
				second.Unmount()
				continue
			}
			if !strings.Contains(out, "busy") && !strings.Contains(out, "in use") && !strings.Contains(out, "EBUSY") {
				t.Errorf("%s: the message %q lacks that it is in use", what, out)
			}
			if !strings.Contains(out, first.Upper) && !strings.Contains(out, first.Work) {
				t.Errorf("%s: the message %q does not name the directory", what, out)
			}
			if holder := fmt.Sprintf("the mount on %q, process %d (EBUSY)", first.Point, first.PID); !strings.Contains(out,
				holder) {
				t.Errorf("%s: the message %q lacks %q", what, out, holder)
			}
		}
		harness.AppendTo(t, first.Path("f"), "+")
		first.Remount() // the lock ends with the mount
		harness.WantText(t, first.Path("f"), "x+")
		// The lock of a killed daemon is free.
		first.Crash()
		first.Mount()
		harness.WantText(t, first.Path("f"), "x+")
	})
}

// A lower changes under a mount. The mount may show anything, but nothing crashes or hangs, and the
// upper stays whole.
func TestLowerChangedWhileMounted(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, "file d/a \"a\"\nfile d/b \"b\"\nfile d/sub/c \"c\"\nfile kept \"k\"\nfile swapped/x \"x\"")
		harness.Visit(t, o.Point)
		low := o.Lowers[0]
		harness.Check(t, os.Remove(low+"/d/a"))
		harness.Check(t, os.RemoveAll(low+"/d/sub"))
		harness.Write(t, low+"/d/new", "n")
		harness.Check(t, os.Rename(low+"/swapped", low+"/elsewhere"))
		harness.Mkdir(t, e.Dir+"/outside")
		harness.Write(t, e.Dir+"/outside/secret", "secret")
		harness.Check(t, os.Chmod(e.Dir+"/outside/secret", 0o640))
		harness.Check(t, os.Symlink(e.Dir+"/outside", low+"/swapped"))
		for _, name := range []string{"d/a", "d/b", "d/sub/c", "d/new", "swapped/secret", "swapped/x"} {
			_, _ = os.ReadFile(o.Path(name))
			_ = harness.AppendErr(o.Path(name))
			_ = os.Chmod(o.Path(name), 0o600)
			_, _ = os.ReadDir(o.Path(filepath.Dir(name)))
		}
		harness.Write(t, o.Path("fresh"), "written")
		harness.AppendTo(t, o.Path("kept"), "+")
		if !harness.Alive(o.PID) {
			t.Fatal("the daemon died")
		}
		o.Remount()
		harness.WantText(t, o.Path("fresh"), "written")
		harness.WantText(t, o.Path("kept"), "k+")
		// The kernel may follow a symbolic link of the mount. The daemon must not follow one in a layer.
		if harness.KindOf(o.Upper+"/swapped") == unix.S_IFDIR {
			harness.WantAbsent(t, o.Upper+"/swapped/secret")
		}
		harness.WantNames(t, e.Dir+"/outside", "secret")
	})
}
