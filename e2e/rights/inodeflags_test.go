package rights

import (
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

func wantFlags(t *testing.T, path, want string) {
	t.Helper()
	harness.Equal(t, "flags of "+path, harness.Lsattr(path), want)
}

// setFlags is chattr of an object. The flags are cleared at the end of the test, so that it can be
// removed.
func setFlags(t *testing.T, path, change string) {
	t.Helper()
	harness.Check(t, harness.Chattr(path, change))
	t.Cleanup(func() { _ = harness.Chattr(path, "-ia") })
}

// putAt opens a file with flags, writes text at off and closes it. It returns the first error: that
// of fsync if the kernel collects writes (D42).
func putAt(path string, flags int, text string, off int64) error {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if flags&unix.O_APPEND != 0 {
		_, err = unix.Write(fd, []byte(text))
	} else {
		_, err = unix.Pwrite(fd, []byte(text), off)
	}
	if err == nil {
		err = unix.Fsync(fd)
	}
	return err
}

// wantUnchanged fails the test unless a file has its old text, in the upper at once, and in the
// mount soon.
func wantUnchanged(o *harness.Overlay, name, text string) {
	o.T.Helper()
	if lying := filepath.Join(o.Upper, name); !o.Kernel {
		if _, err := os.Lstat(lying); err == nil {
			harness.WantText(o.T, lying, text)
		}
	}
	if !harness.Eventually(5*time.Second, func() bool {
		got, err := os.ReadFile(o.Path(name))
		return err == nil &&
			string(got) == text
	}) {
		harness.WantText(o.T, o.Path(name), text)
		o.T.FailNow()
	}
}

// An append-only file accepts appends and no other change. This holds for a file of the upper and
// for one of a lower, also after a remount.
func TestAppendOnly(t *testing.T) {
	harness.EachIO(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "file d/low \"abcd\"")
		setFlags(t, filepath.Join(o.Lowers[0], "d/low"), "+a")
		o.Mount()
		harness.Write(t, o.Path("d/new"), "abcd")
		harness.Check(t, harness.Chattr(o.Path("d/new"), "+a"))
		big := strings.Repeat("0123456789abcdef", 2000)
		for _, name := range []string{"d/new", "d/low"} {
			text := "abcd"
			for range 2 {
				wantFlags(t, o.Path(name), "a")
				wantOnlyAppends(t, o, name, text)
				for _, more := range []string{"4", big} {
					harness.Check(t, putAt(o.Path(name), unix.O_WRONLY|unix.O_APPEND, more, 0))
					text += more
					harness.WantText(t, o.Path(name), text)
					harness.WantText(t, filepath.Join(o.Upper, name), text)
				}
				o.Remount()
			}
			harness.Check(t, harness.Chattr(o.Path(name), "-a"))
			wantFlags(t, o.Path(name), "")
			harness.Check(t, putAt(o.Path(name), unix.O_WRONLY, "new", 0))
			harness.Check(t, os.Truncate(o.Path(name), 4))
			harness.WantText(t, o.Path(name), "newd")
			harness.Check(t, os.Remove(o.Path(name)))
		}
	})
}

func wantOnlyAppends(t *testing.T, o *harness.Overlay, name, text string) {
	t.Helper()
	p := o.Path(name)
	refused := func(what string, err error) {
		t.Helper()
		harness.WantErr(t, name+": "+what, err, syscall.EPERM)
		wantUnchanged(o, name, text)
	}
	refused("overwriting", putAt(p, unix.O_WRONLY, "over", 0))
	if !o.Env.Has("writeback=1") { // there what lies beyond the end is appended, see TestAppendOnlyWrittenBack
		refused("overwriting the end", putAt(p, unix.O_RDWR, "over", int64(len(text))-1))
	}
	_, err := os.OpenFile(p, os.O_WRONLY|os.O_TRUNC|os.O_APPEND, 0)
	refused("O_TRUNC", err)
	refused("truncation", os.Truncate(p, 1))
	refused("chmod", os.Chmod(p, 0o600))
	refused("chown", os.Chown(p, 1, 1))
	refused("utimes", os.Chtimes(p, time.Unix(1, 0), time.Unix(1, 0)))
	refused("setxattr", unix.Setxattr(p, "user.note", []byte("n"), 0))
	refused("removexattr", unix.Removexattr(p, "user.note"))
	refused("link", os.Link(p, p+"2"))
	refused("rename", os.Rename(p, p+"2"))
	refused("unlink", os.Remove(p))
	harness.Write(t, o.Path("other"), "other")
	refused("rename onto it", os.Rename(o.Path("other"), p))
	refused("exchange", unix.Renameat2(unix.AT_FDCWD, o.Path("other"), unix.AT_FDCWD, p, unix.RENAME_EXCHANGE))
	f := harness.Open(t, p, os.O_RDWR|os.O_APPEND)
	refused("ftruncate", f.Truncate(1))
	refused("a hole", unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 2))
	harness.Check(t, unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, 100_000))
	wantUnchanged(o, name, text)
	harness.Check(t, f.Close())
	harness.Check(t, unix.UtimesNano(p, []unix.Timespec{{Nsec: unix.UTIME_NOW}, {Nsec: unix.UTIME_NOW}}))
}

// An immutable file cannot be changed, nor can an immutable directory. The objects in the directory
// can.
func TestImmutable(t *testing.T) {
	harness.EachIO(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "file low \"abcd\"\nfile dir/in \"in\"\nfile gone/in \"in\"\ndir full\nfile full/x \"x\"\nfile soft/f \"f\"")
		for _, name := range []string{"low", "gone", "full"} {
			setFlags(t, filepath.Join(o.Lowers[0], name), "+i")
		}
		o.Mount()
		harness.Write(t, o.Path("new"), "abcd")
		harness.Check(t, harness.Chattr(o.Path("new"), "+i"))
		harness.Check(t, harness.Chattr(o.Path("dir"), "+i"))
		for range 2 {
			for _, name := range []string{"new", "low"} {
				wantFlags(t, o.Path(name), "i")
				wantUnchangeable(t, o, name)
			}
			for _, dir := range []string{"dir", "gone", "full"} {
				wantFlags(t, o.Path(dir), "i")
				wantNoNewEntry(t, o, dir)
			}
			harness.WantErr(t, "unlink in it", os.Remove(o.Path("full/x")), syscall.EPERM)
			// The flag is checked before ENOTEMPTY, as in the kernel.
			harness.WantErr(t, "rmdir", unix.Rmdir(o.Path("full")), syscall.EPERM)
			harness.WantErr(t, "rename of it", os.Rename(o.Path("full"), o.Path("full2")), syscall.EPERM)
			o.Remount()
		}
		harness.Check(t, putAt(o.Path("dir/in"), unix.O_WRONLY|unix.O_APPEND, "+", 0))
		harness.Check(t, putAt(o.Path("gone/in"), unix.O_WRONLY|unix.O_APPEND, "+", 0))
		wantFlags(t, o.Path("gone"), "i")
		o.Remount()
		wantFlags(t, o.Path("gone"), "i")
		wantNoNewEntry(t, o, "gone")
		for _, name := range []string{"new", "low", "dir", "gone", "full"} {
			harness.Check(t, harness.Chattr(o.Path(name), "-i"))
			harness.Check(t, os.RemoveAll(o.Path(name)))
		}
		harness.WantNames(t, o.Point, "other", "soft")
	})
}

// wantUnchangeable is wantOnlyAppends for an immutable file.
func wantUnchangeable(t *testing.T, o *harness.Overlay, name string) {
	t.Helper()
	const text = "abcd"
	p := o.Path(name)
	refused := func(what string, err error) {
		t.Helper()
		harness.WantErr(t, name+": "+what, err, syscall.EPERM)
		wantUnchanged(o, name, text)
	}
	refused("overwriting", putAt(p, unix.O_WRONLY, "over", 0))
	refused("appending", putAt(p, unix.O_WRONLY|unix.O_APPEND, "more", 0))
	refused("truncation", os.Truncate(p, 1))
	_, err := os.OpenFile(p, os.O_WRONLY|os.O_TRUNC, 0)
	refused("O_TRUNC", err)
	refused("chmod", os.Chmod(p, 0o600))
	refused("touch", unix.UtimesNano(p, []unix.Timespec{{Nsec: unix.UTIME_NOW}, {Nsec: unix.UTIME_NOW}}))
	refused("utimes", os.Chtimes(p, time.Unix(1, 0), time.Unix(1, 0)))
	refused("setxattr", unix.Setxattr(p, "user.note", []byte("n"), 0))
	refused("link", os.Link(p, p+"2"))
	refused("rename", os.Rename(p, p+"2"))
	refused("unlink", os.Remove(p))
	harness.Write(t, o.Path("other"), "other")
	refused("rename onto it", os.Rename(o.Path("other"), p))
	if value, err := harness.GetXattr(p, "security.capability"); err != unix.ENODATA {
		t.Errorf("%s: it has capabilities: %q %v", name, value, err)
	}
}

func wantNoNewEntry(t *testing.T, o *harness.Overlay, dir string) {
	t.Helper()
	p := o.Path(dir + "/new")
	_, err := os.OpenFile(p, os.O_WRONLY|os.O_CREATE, 0o644)
	harness.WantErr(t, "create in "+dir, err, syscall.EPERM)
	harness.WantErr(t, "mkdir in "+dir, os.Mkdir(p, 0o755), syscall.EPERM)
	harness.WantErr(t, "mkfifo in "+dir, unix.Mkfifo(p, 0o644), syscall.EPERM)
	harness.WantErr(t, "symlink in "+dir, os.Symlink("x", p), syscall.EPERM)
	harness.Write(t, o.Path("other"), "other")
	harness.WantErr(t, "link into "+dir, os.Link(o.Path("other"), p), syscall.EPERM)
	harness.WantErr(t, "rename into "+dir, os.Rename(o.Path("other"), p), syscall.EPERM)
	harness.WantErr(t, "chmod of "+dir, os.Chmod(o.Path(dir), 0o700), syscall.EPERM)
	harness.WantAbsent(t, p)
}

// An append-only directory accepts new entries. None can be removed.
func TestAppendOnlyDirectory(t *testing.T) {
	harness.EachPolicy(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "file low/x \"x\"\ndir new\nfile new/x \"x\"")
		setFlags(t, filepath.Join(o.Lowers[0], "low"), "+a")
		o.Mount()
		harness.Check(t, harness.Chattr(o.Path("new"), "+a"))
		for _, dir := range []string{"low", "new"} {
			x := o.Path(dir + "/x")
			harness.WantErr(t, "unlink", os.Remove(x), syscall.EPERM)
			harness.WantErr(t, "rename away", os.Rename(x, o.Path("x")), syscall.EPERM)
			harness.WantErr(t, "rename in it", os.Rename(x, x+"2"), syscall.EPERM)
			harness.Write(t, o.Path(dir+"/y"), "y")
			harness.Write(t, o.Path("z"), "z")
			harness.WantErr(t, "replace", os.Rename(o.Path("z"), x), syscall.EPERM)
			harness.Check(t, os.Rename(o.Path("z"), o.Path(dir+"/z")))
			harness.WantErr(t, "rmdir", os.RemoveAll(o.Path(dir)), syscall.EPERM)
			harness.WantNames(t, o.Path(dir), "x", "y", "z")
			harness.Check(t, putAt(x, unix.O_WRONLY, "X", 0))
			harness.Check(t, harness.Chattr(o.Path(dir), "-a"))
			harness.Check(t, os.RemoveAll(o.Path(dir)))
		}
		harness.WantNames(t, o.Point)
	})
}

// A copy-up keeps inode flags (D43: the kernel drops d).
func TestFlagsOfCopies(t *testing.T) {
	harness.EachMode(t, harness.RootModes, func(t *testing.T, e *harness.Env) {
		for _, opts := range []string{"metacopy=off", "metacopy=on"} {
			t.Run(opts, func(t *testing.T) {
				e := harness.NewEnv(t, e.Mode)
				o := e.Overlay(t, "file written \"w\"\nfile cut \"c\"\nfile moded \"m\"\nfile dir/f \"f\"\nfile plain \"p\"\nfile none \"\"")
				flags := "SAd"
				if o.Kernel {
					flags = "SA"
				}
				for _, name := range []string{"written", "cut", "moded", "dir", "none"} {
					setFlags(t, filepath.Join(o.Lowers[0], name), "+"+flags)
				}
				want := harness.Lsattr(filepath.Join(o.Lowers[0], "written"))
				o.Opts = append(o.Opts, opts)
				o.Mount()
				harness.Check(t, putAt(o.Path("written"), unix.O_WRONLY, "W", 0))
				harness.Check(t, os.Truncate(o.Path("cut"), 0))
				harness.Check(t, os.Chmod(o.Path("moded"), 0o600))
				harness.Check(t, os.Chmod(o.Path("none"), 0o600))
				harness.Check(t, putAt(o.Path("dir/f"), unix.O_WRONLY, "F", 0))
				harness.Check(t, putAt(o.Path("plain"), unix.O_WRONLY, "P", 0))
				for range 2 {
					for _, name := range []string{"written", "cut", "moded", "dir", "none"} {
						wantFlags(t, o.Path(name), want)
						wantFlags(t, filepath.Join(o.Upper, name), want)
					}
					wantFlags(t, o.Path("plain"), "")
					o.Remount()
				}
			})
		}
	})
}

// A process in a user namespace may not make a file immutable or append-only. A plain user may not
// do so in any namespace.
func TestProtectionNeedsTheRight(t *testing.T) {
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, "dir d 0777\nfile d/f \"f\"")
		harness.Write(t, o.Path("d/own"), "own")
		if e.Mode != harness.ModeRoot {
			harness.WantErr(t, "chattr +i", harness.Chattr(o.Path("d/own"), "+i"), syscall.EPERM)
			harness.WantErr(t, "chattr +a", harness.Chattr(o.Path("d/f"), "+a"), syscall.EPERM)
			harness.Check(t, putAt(o.Path("d/own"), unix.O_WRONLY, "OWN", 0))
			return
		}
		harness.Check(t, os.Chown(o.Path("d/own"), 1000, 1000))
		out := harness.Shell(t, o.Point, `setpriv --reuid 1000 --regid 1000 --clear-groups sh -c 'chattr +i d/own; chattr +d d/f; chattr +d d/own' 2>&1 || true`)
		harness.Equal(t, "errors", strings.Count(out, "not permitted"), 2)
		wantFlags(t, o.Path("d/own"), "d")
		wantFlags(t, o.Path("d/f"), "")
	})
}

// With the writeback cache a WRITE does not contain how the process wrote. Then the data that an
// append-only file had at the first write does not change. What a write adds counts as appended.
// The error is that of fsync, not of write (D42).
func TestAppendOnlyWrittenBack(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		e.Opts = []string{"writeback=1"}
		page := strings.Repeat("p", 5000)
		o := e.Overlay(t, "file low "+strconv.Quote(page))
		setFlags(t, filepath.Join(o.Lowers[0], "low"), "+a")
		o.Mount()
		harness.WantErr(t, "over the end", putAt(o.Path("low"), unix.O_WRONLY, "XX", 4999), syscall.EPERM)
		wantUnchanged(o, "low", page+"X")
		harness.Check(t, putAt(o.Path("low"), unix.O_WRONLY|unix.O_APPEND, strings.Repeat("a", 100_000), 0))
		wantUnchanged(o, "low", page+"X"+strings.Repeat("a", 100_000))
		// One descriptor appends and one overwrites, before the kernel writes a page back.
		f := harness.Open(t, o.Path("low"), os.O_WRONLY)
		_, err := f.WriteAt([]byte("OVER"), 10)
		harness.Check(t, err)
		more := harness.Open(t, o.Path("low"), os.O_WRONLY|os.O_APPEND)
		_, err = more.WriteString("last")
		harness.Check(t, err)
		harness.WantErr(t, "fsync", f.Sync(), syscall.EPERM)
		wantUnchanged(o, "low", page+"X"+strings.Repeat("a", 100_000)+"last")
		_, _ = f.Close(), more.Close()
		o.Remount()
		wantUnchanged(o, "low", page+"X"+strings.Repeat("a", 100_000)+"last")
		wantFlags(t, o.Path("low"), "a")
	})
}

// Changes of a protected file through a mapping are not stored, and the mount does not show them
// for long (D42). The kernel's overlayfs refuses the mapping. Changes from before the flag was set
// are stored.
func TestProtectedAndMapped(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		for _, opt := range []string{"writeback=0", "writeback=1"} {
			for _, flag := range []string{"i", "a"} {
				t.Run(opt+"/"+flag, func(t *testing.T) {
					e := harness.NewEnv(t, e.Mode)
					e.Opts = []string{opt}
					o := e.Mounted(t, "dir d")
					harness.Write(t, o.Path("f"), "0123456789")
					f := harness.Open(t, o.Path("f"), os.O_RDWR)
					m, err := unix.Mmap(int(f.Fd()), 0, 10, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
					harness.Check(t, err)
					copy(m, "before")
					harness.Check(t, harness.Chattr(o.Path("f"), "+"+flag))
					harness.WantText(t, filepath.Join(o.Upper, "f"), "before6789")
					copy(m, "after")
					if err := unix.Msync(m, unix.MS_SYNC); err == nil {
						t.Error("msync does not fail")
					}
					wantUnchanged(o, "f", "before6789")
					harness.Check(t, unix.Munmap(m))
					_ = f.Close()
					o.Remount()
					wantUnchanged(o, "f", "before6789")
				})
			}
		}
	})
}
