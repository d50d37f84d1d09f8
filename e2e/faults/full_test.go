package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// onSmallUpper puts upper and work on a file system of a given size.
func onSmallUpper(t *testing.T, o *overlay, size string) {
	t.Helper()
	small := filepath.Join(o.env.dir, "small")
	mkdir(t, small)
	check(t, unix.Mount("tmpfs", small, "tmpfs", 0, "size="+size+",mode=755"))
	t.Cleanup(func() {
		if err := unix.Unmount(small, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	o.upper, o.work = filepath.Join(small, "upper"), filepath.Join(small, "work")
	mkdir(t, o.upper, o.work)
}

// A full upper is told at fsync and close, and what was told to be written is there.
func TestFullUpperIsTold(t *testing.T) {
	eachMode(t, rootModes, func(t *testing.T, e *env) {
		for _, told := range []string{"fsync", "close", "write"} {
			t.Run(told, func(t *testing.T) {
				o := newEnv(t, e.mode).overlay(t, "file low \"lower\"")
				onSmallUpper(t, o, "1m")
				if !oracle {
					o.opts = []string{map[bool]string{true: "writeback=0", false: "writeback=1"}[told == "write"]}
				}
				o.mount()
				write(t, o.path("small"), "fits")
				f := open(t, o.path("big"), os.O_WRONLY|os.O_CREATE)
				piece := []byte(strings.Repeat("x", 64<<10))
				var err error
				for range 64 { // 4 MiB
					if _, err = f.Write(piece); err != nil {
						break
					}
				}
				if told == "write" && !oracle || err != nil {
					wantErr(t, "write", err, syscall.ENOSPC)
				} else {
					err = f.Sync()
					if told == "write" {
						told = "fsync" // the kernel's overlayfs over a file system that collects writes
					}
					if told == "close" {
						// A file whose error fsync has told starts anew; so a second one.
						_ = f.Close()
						check(t, os.Remove(o.path("big")))
						f = open(t, o.path("big2"), os.O_WRONLY|os.O_CREATE)
						for range 64 {
							if _, err = f.Write(piece); err != nil {
								break
							}
						}
						if err == nil {
							err = f.Close()
						}
					}
					wantErr(t, told, err, syscall.ENOSPC)
				}
				_ = f.Close()
				wantText(t, o.path("small"), "fits")
				wantText(t, o.path("low"), "lower")
				_ = os.Remove(o.path("big"))
				_ = os.Remove(o.path("big2"))
				// There is room again, as soon as the kernel has forgotten the removed file.
				again := []byte(strings.Repeat("y", 300_000))
				if !eventually(3*time.Second, func() bool { return os.WriteFile(o.path("again"), again, 0o644) == nil }) {
					t.Error("no room after the removal of the big file")
				}
				o.remount()
				wantText(t, o.path("again"), strings.Repeat("y", 300_000))
				wantText(t, o.path("small"), "fits")
			})
		}
	})
}

// A copy-up that finds no room fails at once or at close, and the lower goes on to be shown.
func TestFullUpperAtCopyUp(t *testing.T) {
	eachMode(t, rootModes, func(t *testing.T, e *env) {
		text := strings.Repeat("lower", 500_000)
		o := e.overlay(t, "file low "+quote(text)+"\nfile small \"s\"")
		onSmallUpper(t, o, "1m")
		o.mount()
		err := appendErr(o.path("low"))
		wantErr(t, "append to a file that does not fit", err, syscall.ENOSPC)
		wantErr(t, "chmod of a file that does not fit", os.Chmod(o.path("low"), 0o600), syscall.ENOSPC)
		wantText(t, o.path("small"), "s")
		if !oracle {
			check(t, os.Truncate(o.path("low"), 0)) // copies nothing
		}
		write(t, o.path("low"), "short")
		o.remount()
		wantText(t, o.path("low"), "short")
		o.unmount()
		if rest := workRest(o.work); len(rest) > 0 && !oracle {
			t.Errorf("the work directory still holds %v", rest)
		}
		wantTree(t, "the upper", o.upper, "file low \"short\"")
	})
}

func TestFullUpperAtCopyUpShowsTheLower(t *testing.T) {
	eachMode(t, rootModes, func(t *testing.T, e *env) {
		text := strings.Repeat("lower", 500_000)
		o := e.overlay(t, "file low "+quote(text))
		onSmallUpper(t, o, "1m")
		o.mount()
		wantErr(t, "chmod", os.Chmod(o.path("low"), 0o600), syscall.ENOSPC)
		wantErr(t, "rename", os.Rename(o.path("low"), o.path("low2")), syscall.ENOSPC)
		wantErr(t, "link", os.Link(o.path("low"), o.path("low2")), syscall.ENOSPC)
		wantText(t, o.path("low"), text)
		wantNames(t, o.mnt, "low")
		equal(t, "mode", lstat(t, o.path("low")).Mode&0o777, 0o644)
		check(t, os.Remove(o.path("low"))) // copies nothing either
		wantNames(t, o.mnt)
	})
}

// Out of inodes: everything that makes an object says so at once.
func TestUpperWithoutInodes(t *testing.T) {
	eachMode(t, rootModes, func(t *testing.T, e *env) {
		o := e.overlay(t, "file d/low \"x\"\nfile low2 \"x\"")
		onSmallUpper(t, o, "4m,nr_inodes=40")
		o.mount()
		var err error
		n := 0
		for ; err == nil && n < 100; n++ {
			err = os.WriteFile(o.path(fmt.Sprint("f", n)), nil, 0o644)
		}
		wantErr(t, "create", err, syscall.ENOSPC)
		wantErr(t, "mkdir", os.Mkdir(o.path("dir"), 0o755), syscall.ENOSPC)
		wantErr(t, "symlink", os.Symlink("x", o.path("s")), syscall.ENOSPC)
		wantErr(t, "chmod", os.Chmod(o.path("low2"), 0o600), syscall.ENOSPC)
		// A removal needs a whiteout: it may fail, but then the file is still there.
		if err := os.Remove(o.path("low2")); err != nil {
			wantErr(t, "unlink", err, syscall.ENOSPC)
			wantText(t, o.path("low2"), "x")
		} else {
			wantAbsent(t, o.path("low2"))
		}
		for i := range 10 {
			check(t, os.Remove(o.path(fmt.Sprint("f", i))))
		}
		write(t, o.path("d/new"), "room again")
		o.remount()
		wantText(t, o.path("d/new"), "room again")
		wantAbsent(t, o.path("f0"))
	})
}

// Upper and work belong to one mount at a time.
func TestTwoMountsOfOneUpper(t *testing.T) {
	needDaemon(t)
	eachMode(t, allModes, func(t *testing.T, e *env) {
		first := e.mounted(t, "file f \"x\"")
		for what, change := range map[string]func(o *overlay){
			"the same upper": func(o *overlay) { o.work = e.dir + "/work2" },
			"the same work":  func(o *overlay) { o.upper = e.dir + "/upper2" },
			"both":           func(*overlay) {},
		} {
			mkdir(t, e.dir+"/work2", e.dir+"/upper2", e.dir+"/mnt2")
			second := &overlay{t: t, env: e, lowers: first.lowers, upper: first.upper, work: first.work, mnt: e.dir + "/mnt2"}
			change(second)
			out, err := second.tryMount()
			if err == nil {
				t.Errorf("%s: mounted a second time", what)
				second.unmount()
				continue
			}
			if !strings.Contains(out, "busy") && !strings.Contains(out, "in use") && !strings.Contains(out, "EBUSY") {
				t.Errorf("%s: the message %q does not tell that it is in use", what, out)
			}
			if !strings.Contains(out, first.upper) && !strings.Contains(out, first.work) {
				t.Errorf("%s: the message %q does not name the directory", what, out)
			}
			if holder := fmt.Sprintf("the mount on %q, process %d (EBUSY)", first.mnt, first.pid); !strings.Contains(out, holder) {
				t.Errorf("%s: the message %q does not say %q", what, out, holder)
			}
		}
		appendTo(t, first.path("f"), "+")
		first.remount() // the lock ends with the mount
		wantText(t, first.path("f"), "x+")
		// A killed daemon leaves no lock behind.
		first.crash()
		first.mount()
		wantText(t, first.path("f"), "x+")
	})
}

// A lower changed under a running mount: what is seen is undefined, but nothing crashes or hangs, and the upper is whole.
func TestLowerChangedWhileMounted(t *testing.T) {
	needDaemon(t)
	eachMode(t, allModes, func(t *testing.T, e *env) {
		o := e.mounted(t, "file d/a \"a\"\nfile d/b \"b\"\nfile d/sub/c \"c\"\nfile kept \"k\"\nfile swapped/x \"x\"")
		visit(t, o.mnt)
		low := o.lowers[0]
		check(t, os.Remove(low+"/d/a"))
		check(t, os.RemoveAll(low+"/d/sub"))
		write(t, low+"/d/new", "n")
		check(t, os.Rename(low+"/swapped", low+"/elsewhere"))
		mkdir(t, e.dir+"/outside")
		write(t, e.dir+"/outside/secret", "secret")
		check(t, os.Chmod(e.dir+"/outside/secret", 0o640))
		check(t, os.Symlink(e.dir+"/outside", low+"/swapped"))
		for _, name := range []string{"d/a", "d/b", "d/sub/c", "d/new", "swapped/secret", "swapped/x"} {
			_, _ = os.ReadFile(o.path(name))
			_ = appendErr(o.path(name))
			_ = os.Chmod(o.path(name), 0o600)
			_, _ = os.ReadDir(o.path(filepath.Dir(name)))
		}
		write(t, o.path("fresh"), "written")
		appendTo(t, o.path("kept"), "+")
		if !alive(o.pid) {
			t.Fatal("the daemon died")
		}
		o.remount()
		wantText(t, o.path("fresh"), "written")
		wantText(t, o.path("kept"), "k+")
		// The kernel may follow a symlink that it is shown; the daemon must not, on any way through the layers.
		if kindOf(o.upper+"/swapped") == unix.S_IFDIR {
			wantAbsent(t, o.upper+"/swapped/secret")
		}
		wantNames(t, e.dir+"/outside", "secret")
	})
}
