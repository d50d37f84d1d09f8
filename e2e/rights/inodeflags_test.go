package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// FS_*_FL of linux/fs.h, by chattr's letters.
var flagLetters = map[rune]int{'S': 0x8, 'i': 0x10, 'a': 0x20, 'd': 0x40, 'A': 0x80}

// chattr sets and clears flags, given as chattr takes them.
func chattr(path, change string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	flags, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
	if err != nil {
		return err
	}
	bits := 0
	for _, letter := range change[1:] {
		bits |= flagLetters[letter]
	}
	switch change[0] {
	case '+':
		flags |= uint32(bits)
	case '-':
		flags &^= uint32(bits)
	}
	return unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, int(flags))
}

// lsattr returns those of the flags that an object has, and "-" for an object without flags.
func lsattr(path string) string {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err.Error()
	}
	defer unix.Close(fd)
	flags, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
	if err != nil {
		return "-"
	}
	has := ""
	for _, letter := range "SiadA" {
		if flags&uint32(flagLetters[letter]) != 0 {
			has += string(letter)
		}
	}
	return has
}

func wantFlags(t *testing.T, path, want string) {
	t.Helper()
	equal(t, "flags of "+path, lsattr(path), want)
}

// setFlags is chattr of an object that is deleted at the end of the test.
func setFlags(t *testing.T, path, change string) {
	t.Helper()
	check(t, chattr(path, change))
	t.Cleanup(func() { _ = chattr(path, "-ia") })
}

// putAt opens a file with flags, writes text at off and closes it. The first error counts, and so it does when the kernel
// collects writes (D42) and fsync is the first to fail.
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

// wantKept fails unless a file shows its old text in the mount, soon, and in the upper at once.
func (o *overlay) wantKept(name, text string) {
	o.t.Helper()
	if lying := filepath.Join(o.upper, name); !o.kernel {
		if _, err := os.Lstat(lying); err == nil {
			wantText(o.t, lying, text)
		}
	}
	if !eventually(5*time.Second, func() bool { got, err := os.ReadFile(o.path(name)); return err == nil && string(got) == text }) {
		wantText(o.t, o.path(name), text)
		o.t.FailNow()
	}
}

// An append-only file accepts appends and no other change. This holds for a file of the upper and
// for one of a lower, also after a remount.
func TestAppendOnly(t *testing.T) {
	eachIO(t, onlyRoot, func(t *testing.T, e *env) {
		o := e.overlay(t, "file d/low \"abcd\"")
		setFlags(t, filepath.Join(o.lowers[0], "d/low"), "+a")
		o.mount()
		write(t, o.path("d/new"), "abcd")
		check(t, chattr(o.path("d/new"), "+a"))
		big := strings.Repeat("0123456789abcdef", 2000)
		for _, name := range []string{"d/new", "d/low"} {
			text := "abcd"
			for range 2 {
				wantFlags(t, o.path(name), "a")
				wantOnlyAppends(t, o, name, text)
				for _, more := range []string{"4", big} {
					check(t, putAt(o.path(name), unix.O_WRONLY|unix.O_APPEND, more, 0))
					text += more
					wantText(t, o.path(name), text)
					wantText(t, filepath.Join(o.upper, name), text)
				}
				o.remount()
			}
			check(t, chattr(o.path(name), "-a"))
			wantFlags(t, o.path(name), "")
			check(t, putAt(o.path(name), unix.O_WRONLY, "new", 0))
			check(t, os.Truncate(o.path(name), 4))
			wantText(t, o.path(name), "newd")
			check(t, os.Remove(o.path(name)))
		}
	})
}

func wantOnlyAppends(t *testing.T, o *overlay, name, text string) {
	t.Helper()
	p := o.path(name)
	refused := func(what string, err error) {
		t.Helper()
		wantErr(t, name+": "+what, err, syscall.EPERM)
		o.wantKept(name, text)
	}
	refused("overwriting", putAt(p, unix.O_WRONLY, "over", 0))
	if !o.env.has("writeback=1") { // there what lies beyond the end is appended, see TestAppendOnlyWrittenBack
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
	write(t, o.path("other"), "other")
	refused("rename onto it", os.Rename(o.path("other"), p))
	refused("exchange", unix.Renameat2(unix.AT_FDCWD, o.path("other"), unix.AT_FDCWD, p, unix.RENAME_EXCHANGE))
	f := open(t, p, os.O_RDWR|os.O_APPEND)
	refused("ftruncate", f.Truncate(1))
	refused("a hole", unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 2))
	check(t, unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, 100_000))
	o.wantKept(name, text)
	check(t, f.Close())
	check(t, unix.UtimesNano(p, []unix.Timespec{{Nsec: unix.UTIME_NOW}, {Nsec: unix.UTIME_NOW}}))
}

// An immutable file stays as it is, and so does a directory, but not what is in it.
func TestImmutable(t *testing.T) {
	eachIO(t, onlyRoot, func(t *testing.T, e *env) {
		o := e.overlay(t, "file low \"abcd\"\nfile dir/in \"in\"\nfile gone/in \"in\"\ndir full\nfile full/x \"x\"\nfile soft/f \"f\"")
		for _, name := range []string{"low", "gone", "full"} {
			setFlags(t, filepath.Join(o.lowers[0], name), "+i")
		}
		o.mount()
		write(t, o.path("new"), "abcd")
		check(t, chattr(o.path("new"), "+i"))
		check(t, chattr(o.path("dir"), "+i"))
		for range 2 {
			for _, name := range []string{"new", "low"} {
				wantFlags(t, o.path(name), "i")
				wantUnchangeable(t, o, name)
			}
			for _, dir := range []string{"dir", "gone", "full"} {
				wantFlags(t, o.path(dir), "i")
				wantNoNewEntry(t, o, dir)
			}
			wantErr(t, "unlink in it", os.Remove(o.path("full/x")), syscall.EPERM)
			// Before ENOTEMPTY, as in the kernel.
			wantErr(t, "rmdir", unix.Rmdir(o.path("full")), syscall.EPERM)
			wantErr(t, "rename of it", os.Rename(o.path("full"), o.path("full2")), syscall.EPERM)
			o.remount()
		}
		check(t, putAt(o.path("dir/in"), unix.O_WRONLY|unix.O_APPEND, "+", 0))
		check(t, putAt(o.path("gone/in"), unix.O_WRONLY|unix.O_APPEND, "+", 0))
		wantFlags(t, o.path("gone"), "i")
		o.remount()
		wantFlags(t, o.path("gone"), "i")
		wantNoNewEntry(t, o, "gone")
		for _, name := range []string{"new", "low", "dir", "gone", "full"} {
			check(t, chattr(o.path(name), "-i"))
			check(t, os.RemoveAll(o.path(name)))
		}
		wantNames(t, o.mnt, "other", "soft")
	})
}

// wantUnchangeable is wantOnlyAppends for an immutable file.
func wantUnchangeable(t *testing.T, o *overlay, name string) {
	t.Helper()
	const text = "abcd"
	p := o.path(name)
	refused := func(what string, err error) {
		t.Helper()
		wantErr(t, name+": "+what, err, syscall.EPERM)
		o.wantKept(name, text)
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
	write(t, o.path("other"), "other")
	refused("rename onto it", os.Rename(o.path("other"), p))
	if value, err := getXattr(p, "security.capability"); err != unix.ENODATA {
		t.Errorf("%s: it has capabilities: %q %v", name, value, err)
	}
}

func wantNoNewEntry(t *testing.T, o *overlay, dir string) {
	t.Helper()
	p := o.path(dir + "/new")
	_, err := os.OpenFile(p, os.O_WRONLY|os.O_CREATE, 0o644)
	wantErr(t, "create in "+dir, err, syscall.EPERM)
	wantErr(t, "mkdir in "+dir, os.Mkdir(p, 0o755), syscall.EPERM)
	wantErr(t, "mkfifo in "+dir, unix.Mkfifo(p, 0o644), syscall.EPERM)
	wantErr(t, "symlink in "+dir, os.Symlink("x", p), syscall.EPERM)
	write(t, o.path("other"), "other")
	wantErr(t, "link into "+dir, os.Link(o.path("other"), p), syscall.EPERM)
	wantErr(t, "rename into "+dir, os.Rename(o.path("other"), p), syscall.EPERM)
	wantErr(t, "chmod of "+dir, os.Chmod(o.path(dir), 0o700), syscall.EPERM)
	wantAbsent(t, p)
}

// From an append-only directory nothing is taken away, and entries come.
func TestAppendOnlyDirectory(t *testing.T) {
	eachPolicy(t, onlyRoot, func(t *testing.T, e *env) {
		o := e.overlay(t, "file low/x \"x\"\ndir new\nfile new/x \"x\"")
		setFlags(t, filepath.Join(o.lowers[0], "low"), "+a")
		o.mount()
		check(t, chattr(o.path("new"), "+a"))
		for _, dir := range []string{"low", "new"} {
			x := o.path(dir + "/x")
			wantErr(t, "unlink", os.Remove(x), syscall.EPERM)
			wantErr(t, "rename away", os.Rename(x, o.path("x")), syscall.EPERM)
			wantErr(t, "rename in it", os.Rename(x, x+"2"), syscall.EPERM)
			write(t, o.path(dir+"/y"), "y")
			write(t, o.path("z"), "z")
			wantErr(t, "replace", os.Rename(o.path("z"), x), syscall.EPERM)
			check(t, os.Rename(o.path("z"), o.path(dir+"/z")))
			wantErr(t, "rmdir", os.RemoveAll(o.path(dir)), syscall.EPERM)
			wantNames(t, o.path(dir), "x", "y", "z")
			check(t, putAt(x, unix.O_WRONLY, "X", 0))
			check(t, chattr(o.path(dir), "-a"))
			check(t, os.RemoveAll(o.path(dir)))
		}
		wantNames(t, o.mnt)
	})
}

// A copy keeps the flags of what it is a copy of (D43: the kernel drops d).
func TestFlagsOfCopies(t *testing.T) {
	eachMode(t, rootModes, func(t *testing.T, e *env) {
		for _, opts := range []string{"metacopy=off", "metacopy=on"} {
			t.Run(opts, func(t *testing.T) {
				e := newEnv(t, e.mode)
				o := e.overlay(t, "file written \"w\"\nfile cut \"c\"\nfile moded \"m\"\nfile dir/f \"f\"\nfile plain \"p\"\nfile none \"\"")
				flags := "SAd"
				if o.kernel {
					flags = "SA"
				}
				for _, name := range []string{"written", "cut", "moded", "dir", "none"} {
					setFlags(t, filepath.Join(o.lowers[0], name), "+"+flags)
				}
				want := lsattr(filepath.Join(o.lowers[0], "written"))
				o.opts = append(o.opts, opts)
				o.mount()
				check(t, putAt(o.path("written"), unix.O_WRONLY, "W", 0))
				check(t, os.Truncate(o.path("cut"), 0))
				check(t, os.Chmod(o.path("moded"), 0o600))
				check(t, os.Chmod(o.path("none"), 0o600))
				check(t, putAt(o.path("dir/f"), unix.O_WRONLY, "F", 0))
				check(t, putAt(o.path("plain"), unix.O_WRONLY, "P", 0))
				for range 2 {
					for _, name := range []string{"written", "cut", "moded", "dir", "none"} {
						wantFlags(t, o.path(name), want)
						wantFlags(t, filepath.Join(o.upper, name), want)
					}
					wantFlags(t, o.path("plain"), "")
					o.remount()
				}
			})
		}
	})
}

// A process in a user namespace may not make a file immutable or append-only. A plain user may not
// do so in any namespace.
func TestProtectionNeedsTheRight(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, e *env) {
		o := e.mounted(t, "dir d 0777\nfile d/f \"f\"")
		write(t, o.path("d/own"), "own")
		if e.mode != modeRoot {
			wantErr(t, "chattr +i", chattr(o.path("d/own"), "+i"), syscall.EPERM)
			wantErr(t, "chattr +a", chattr(o.path("d/f"), "+a"), syscall.EPERM)
			check(t, putAt(o.path("d/own"), unix.O_WRONLY, "OWN", 0))
			return
		}
		check(t, os.Chown(o.path("d/own"), 1000, 1000))
		out := sh(t, o.mnt, `setpriv --reuid 1000 --regid 1000 --clear-groups sh -c 'chattr +i d/own; chattr +d d/f; chattr +d d/own' 2>&1 || true`)
		equal(t, "errors", strings.Count(out, "not permitted"), 2)
		wantFlags(t, o.path("d/own"), "d")
		wantFlags(t, o.path("d/f"), "")
	})
}

// With the writeback cache a WRITE does not contain how the process wrote. Then the data that an
// append-only file had at the first write does not change. What a write adds counts as appended.
// The error is that of fsync, not of write (D42).
func TestAppendOnlyWrittenBack(t *testing.T) {
	needDaemon(t)
	eachMode(t, onlyRoot, func(t *testing.T, e *env) {
		e.opts = []string{"writeback=1"}
		page := strings.Repeat("p", 5000)
		o := e.overlay(t, "file low "+quote(page))
		setFlags(t, filepath.Join(o.lowers[0], "low"), "+a")
		o.mount()
		wantErr(t, "over the end", putAt(o.path("low"), unix.O_WRONLY, "XX", 4999), syscall.EPERM)
		o.wantKept("low", page+"X")
		check(t, putAt(o.path("low"), unix.O_WRONLY|unix.O_APPEND, strings.Repeat("a", 100_000), 0))
		o.wantKept("low", page+"X"+strings.Repeat("a", 100_000))
		// One descriptor appends and one overwrites, before the kernel writes a page back.
		f := open(t, o.path("low"), os.O_WRONLY)
		_, err := f.WriteAt([]byte("OVER"), 10)
		check(t, err)
		more := open(t, o.path("low"), os.O_WRONLY|os.O_APPEND)
		_, err = more.WriteString("last")
		check(t, err)
		wantErr(t, "fsync", f.Sync(), syscall.EPERM)
		o.wantKept("low", page+"X"+strings.Repeat("a", 100_000)+"last")
		_, _ = f.Close(), more.Close()
		o.remount()
		o.wantKept("low", page+"X"+strings.Repeat("a", 100_000)+"last")
		wantFlags(t, o.path("low"), "a")
	})
}

// What a mapping changes of a protected file is not stored, and not shown for long (D42): the kernel's overlayfs does not let it
// be mapped for writing. What was written before the flag was set is stored.
func TestProtectedAndMapped(t *testing.T) {
	needDaemon(t)
	eachMode(t, onlyRoot, func(t *testing.T, e *env) {
		for _, opt := range []string{"writeback=0", "writeback=1"} {
			for _, flag := range []string{"i", "a"} {
				t.Run(opt+"/"+flag, func(t *testing.T) {
					e := newEnv(t, e.mode)
					e.opts = []string{opt}
					o := e.mounted(t, "dir d")
					write(t, o.path("f"), "0123456789")
					f := open(t, o.path("f"), os.O_RDWR)
					m, err := unix.Mmap(int(f.Fd()), 0, 10, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
					check(t, err)
					copy(m, "before")
					check(t, chattr(o.path("f"), "+"+flag))
					wantText(t, filepath.Join(o.upper, "f"), "before6789")
					copy(m, "after")
					if err := unix.Msync(m, unix.MS_SYNC); err == nil {
						t.Error("msync does not fail")
					}
					o.wantKept("f", "before6789")
					check(t, unix.Munmap(m))
					_ = f.Close()
					o.remount()
					o.wantKept("f", "before6789")
				})
			}
		}
	})
}

// Older kernels and versions of this program have set flags on the inode of the upper. Such flags
// hold as well, and can be cleared through the mount.
func TestFlagsOnInodesOfTheUpper(t *testing.T) {
	needDaemon(t) // the kernel cannot clear them
	eachIO(t, onlyRoot, func(t *testing.T, e *env) {
		o := e.overlay(t, "file dir/low \"low\"")
		build(t, e, o.upper, "file a \"abcd\"\nfile i \"abcd\"\nfile dir/in \"in\"")
		setFlags(t, filepath.Join(o.upper, "a"), "+a")
		setFlags(t, filepath.Join(o.upper, "i"), "+i")
		setFlags(t, filepath.Join(o.upper, "dir"), "+i")
		o.mount()
		wantFlags(t, o.path("a"), "a")
		wantFlags(t, o.path("i"), "i")
		wantOnlyAppends(t, o, "a", "abcd")
		wantUnchangeable(t, o, "i")
		wantNoNewEntry(t, o, "dir")
		check(t, putAt(o.path("a"), unix.O_WRONLY|unix.O_APPEND, "more", 0))
		check(t, putAt(o.path("a"), unix.O_WRONLY|unix.O_APPEND, " and more", 0))
		o.wantKept("a", "abcdmore and more")
		for _, name := range []string{"a", "i", "dir"} {
			check(t, chattr(o.path(name), "-ia"))
			wantFlags(t, o.path(name), "")
			wantFlags(t, filepath.Join(o.upper, name), "")
		}
		check(t, putAt(o.path("a"), unix.O_WRONLY, "ABCD", 0))
		check(t, putAt(o.path("dir/low"), unix.O_WRONLY, "LOW", 0))
		check(t, os.RemoveAll(o.path("dir")))
		wantText(t, o.path("a"), "ABCDmore and more")
	})
}

// A change of flags changes the change time.
func TestFlagsChangeTheTime(t *testing.T) {
	eachIO(t, rootModes, func(t *testing.T, e *env) {
		o := e.mounted(t, "file low \"low\"\ndir dir")
		write(t, o.path("new"), "new")
		for _, name := range []string{"low", "dir", "new"} {
			for _, change := range []string{"+A", "-A", "+i", "-i"} {
				if e.mode != modeRoot && change[1] == 'i' {
					continue
				}
				before := lstat(t, o.path(name)).Ctim
				time.Sleep(20 * time.Millisecond)
				check(t, chattr(o.path(name), change))
				if after := lstat(t, o.path(name)).Ctim; after == before {
					t.Errorf("chattr %s %s: st_ctim is as before", change, name)
				}
			}
		}
	})
}
