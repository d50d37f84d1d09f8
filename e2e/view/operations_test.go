package view

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

func rename(o *harness.Overlay, from, to string, flags uint) error {
	return unix.Renameat2(unix.AT_FDCWD, o.Path(from), unix.AT_FDCWD, o.Path(to), flags)
}

func TestRenameFlags(t *testing.T) {
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, "file a \"a\"\nfile b \"b\"\nsymlink s a\nfile d/low \"l\"\ndir empty\nfile c \"c\"")
		harness.WantErr(t, "noreplace over a file", rename(o, "a", "b", unix.RENAME_NOREPLACE), syscall.EEXIST)
		harness.Check(t, rename(o, "a", "a2", unix.RENAME_NOREPLACE))
		harness.Check(t, rename(o, "a2", "b", unix.RENAME_EXCHANGE))
		harness.WantText(t, o.Path("a2"), "b")
		harness.WantText(t, o.Path("b"), "a")
		harness.Check(t, rename(o, "s", "c", unix.RENAME_EXCHANGE))
		harness.WantErr(t, "exchange with nothing", rename(o, "b", "missing", unix.RENAME_EXCHANGE), syscall.ENOENT)
		harness.WantErr(t, "whiteout flag", rename(o, "b", "w", unix.RENAME_WHITEOUT), syscall.EINVAL, syscall.EPERM)
		// Directories with lower parts cannot be renamed. Those of the upper can, also over an empty
		// directory.
		harness.WantErr(t, "a lower directory", rename(o, "d", "d2", 0), syscall.EXDEV)
		harness.WantErr(t, "exchange with a lower directory", rename(o, "b", "d", unix.RENAME_EXCHANGE), syscall.EXDEV)
		harness.Shell(t, o.Point, "mv d d2; mkdir -p new/sub; echo x >new/sub/f; mv new moved") // mv copies on EXDEV
		harness.Check(t, rename(o, "moved", "empty", 0))
		harness.WantErr(t, "over a directory that is not empty", rename(o, "d2", "empty", 0), syscall.ENOTEMPTY,
			syscall.EEXIST)
		harness.WantErr(t, "a directory over a file", rename(o, "d2", "b", 0), syscall.ENOTDIR)
		harness.WantErr(t, "a file over a directory", rename(o, "b", "d2", 0), syscall.EISDIR)
		harness.WantErr(t, "into itself", rename(o, "empty", "empty/sub/x", 0), syscall.EINVAL)
		want := "file a2 \"b\"\nfile b \"a\"\nfile s \"c\"\nsymlink c a\nfile d2/low \"l\"\nfile empty/sub/f \"x\\n\""
		harness.WantTree(t, "merged", o.Point, want)
		o.Remount()
		harness.WantTree(t, "merged after a remount", o.Point, want)
		harness.Check(t, os.RemoveAll(o.Path("empty")))
		harness.Check(t, os.Mkdir(o.Path("d"), 0o755))
		harness.Check(t, rename(o, "d", "empty", 0)) // made again: of the upper only
		o.Unmount()
		harness.WantTree(t, "the upper", o.Upper, "file a2 \"b\"\nfile b \"a\"\nfile s \"c\"\nsymlink c a\nfile d2/low \"l\"\nopaque empty\nwhite d\nwhite a")
	})
}

// An open directory and open files can still be used after they, or their parents, are renamed.
func TestRenameOfOpenObjects(t *testing.T) {
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, "file low \"low\"\nfile victim \"victim\"")
		harness.Check(t, os.MkdirAll(o.Path("p/q"), 0o755))
		harness.Write(t, o.Path("p/q/f"), "f")
		f, d := harness.Open(t, o.Path("p/q/f"), os.O_RDWR), harness.Open(t, o.Path("p/q"), os.O_RDONLY)
		low, victim := harness.Open(t, o.Path("low"), os.O_RDWR), harness.Open(t, o.Path("victim"), os.O_RDONLY)
		harness.Check(t, os.Rename(o.Path("p"), o.Path("p2")))
		harness.Check(t, os.Rename(o.Path("low"), o.Path("victim")))
		for _, file := range []*os.File{f, low} {
			_, err := file.WriteAt([]byte("XY"), 0)
			harness.Check(t, err)
		}
		harness.WantText(t, o.Path("p2/q/f"), "XY")
		harness.WantText(t, o.Path("victim"), "XYw")
		buf := make([]byte, 6)
		_, err := victim.ReadAt(buf, 0)
		harness.Check(t, err)
		harness.Equal(t, "what was renamed over", string(buf), "victim")
		entries, err := d.ReadDir(0)
		harness.Check(t, err)
		harness.Equal(t, "entries of the moved directory", len(entries), 1)
		fd, err := unix.Openat(int(d.Fd()), "made", unix.O_CREAT|unix.O_WRONLY, 0o644)
		harness.Check(t, err)
		harness.Check(t, unix.Close(fd))
		harness.WantNames(t, o.Path("p2/q"), "f", "made")
		for _, file := range []*os.File{f, d, low, victim} {
			harness.Check(t, file.Close())
		}
	})
}

func TestLocks(t *testing.T) {
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, "file f \"x\"")
		a, b := harness.Open(t, o.Path("f"), os.O_RDWR), harness.Open(t, o.Path("f"), os.O_RDWR)
		harness.Check(t, unix.Flock(int(a.Fd()), unix.LOCK_EX|unix.LOCK_NB))
		harness.WantErr(t, "second flock", unix.Flock(int(b.Fd()), unix.LOCK_EX|unix.LOCK_NB), syscall.EWOULDBLOCK)
		harness.Check(t, unix.Flock(int(a.Fd()), unix.LOCK_UN))
		harness.Check(t, unix.Flock(int(b.Fd()), unix.LOCK_EX|unix.LOCK_NB))
		lock := func(f *os.File, kind int16, start, length int64) error {
			return unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: kind, Start: start, Len: length})
		}
		harness.Check(t, lock(a, unix.F_WRLCK, 0, 10))
		harness.WantErr(t, "an overlapping lock", lock(b, unix.F_WRLCK, 5, 10), syscall.EAGAIN)
		harness.Check(t, lock(b, unix.F_WRLCK, 10, 10))
		// A copy-up between two locks does not separate them.
		harness.AppendTo(t, o.Path("f"), "copied up")
		c := harness.Open(t, o.Path("f"), os.O_RDWR)
		if !harness.Oracle {
			harness.WantErr(t, "a lock after the copy-up", lock(c, unix.F_RDLCK, 0, 1), syscall.EAGAIN)
		}
		harness.Check(t, lock(a, unix.F_UNLCK, 0, 0))
		harness.Check(t, lock(c, unix.F_RDLCK, 0, 1))
		out, err := harness.Run("flock", "-n", "-E", "7", o.Path("f"), "true")
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 7 {
			t.Errorf("flock(1) of another process: %v %s, want exit 7", err, out)
		}
	})
}

func TestExecFromTheMount(t *testing.T) {
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "file script 0755 \"#!/bin/sh\\necho script\\n\"")
		text, err := os.ReadFile(harness.Busybox(t))
		harness.Check(t, err)
		harness.Check(t, os.WriteFile(filepath.Join(o.Lowers[0], "busybox"), text, 0o755))
		o.Mount()
		harness.Equal(t, "script", harness.Shell(t, o.Point, "./script"), "script\n")
		harness.Equal(t, "binary of the lower", harness.Shell(t, o.Point, "./busybox echo lower"), "lower\n")
		harness.Check(t, os.WriteFile(o.Path("copy"), text, 0o755))
		harness.Equal(t, "binary of the upper", harness.Shell(t, o.Point, "cp copy echo; ./echo upper"), "upper\n")
		for _, name := range []string{"busybox", "copy"} {
			cmd := exec.Command(o.Path(name), "sleep", "30")
			if name == "copy" {
				harness.Check(t, os.Rename(o.Path("copy"), o.Path("sleep")))
				cmd = exec.Command(o.Path("sleep"), "30")
				name = "sleep"
			}
			harness.Check(t, cmd.Start())
			_, err := os.OpenFile(o.Path(name), os.O_WRONLY, 0)
			harness.WantErr(t, "writing a running binary", err, syscall.ETXTBSY)
			harness.WantErr(t, "truncating a running binary", os.Truncate(o.Path(name), 0), syscall.ETXTBSY)
			harness.Check(t, os.Remove(o.Path(name))) // still running
			if !harness.Alive(cmd.Process.Pid) {
				t.Errorf("%s died when its file was removed", name)
			}
			harness.Check(t, cmd.Process.Kill())
			_ = cmd.Wait()
		}
		w := harness.Open(t, o.Path("script"), os.O_WRONLY)
		err = exec.Command(o.Path("script")).Run()
		harness.WantErr(t, "running what is open for writing", err, syscall.ETXTBSY)
		harness.Check(t, w.Close())
	})
}

func TestChattr(t *testing.T) {
	harness.EachMode(t, harness.RootModes, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, "file low \"x\"\ndir dir")
		harness.Write(t, o.Path("up"), "u")
		for _, name := range []string{"low", "up", "dir"} {
			harness.Shell(t, o.Point, "chattr +d "+name)
			for _, p := range []string{o.Path(name), filepath.Join(o.Upper, name)} {
				flags, _, _ := strings.Cut(harness.Shell(t, "", "lsattr -d "+p), " ")
				if !strings.Contains(flags, "d") {
					t.Errorf("lsattr %s: %s, want the flag d", p, flags)
				}
			}
			harness.Shell(t, o.Point, "chattr -d "+name)
		}
		harness.WantText(t, o.Path("low"), "x")
		f := harness.Open(t, o.Path("up"), os.O_RDONLY)
		_, err := unix.IoctlGetInt(int(f.Fd()), unix.TCGETS)
		harness.WantErr(t, "another ioctl", err, syscall.ENOTTY)
	})
}

// O_TMPFILE works, or fails with the errno that programs expect.
func TestTmpfileAndHandles(t *testing.T) {
	harness.EachMode(t, harness.RootModes, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, "file d/f \"text\"")
		fd, err := unix.Open(o.Path("d"), unix.O_TMPFILE|unix.O_RDWR, 0o600)
		if err == nil {
			_, err = unix.Write(fd, []byte("named later"))
			harness.Check(t, err)
			harness.Check(t, unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, o.Path("d/linked"),
				unix.AT_SYMLINK_FOLLOW))
			harness.Check(t, unix.Close(fd))
			harness.WantText(t, o.Path("d/linked"), "named later")
		} else {
			harness.WantErr(t, "O_TMPFILE", err, syscall.EOPNOTSUPP, syscall.EISDIR)
			harness.WantNames(t, o.Path("d"), "f")
		}
		handle, _, err := unix.NameToHandleAt(unix.AT_FDCWD, o.Path("d/f"), 0)
		if err != nil {
			harness.WantErr(t, "name_to_handle_at", err, syscall.EOPNOTSUPP)
			return
		}
		m := harness.Open(t, o.Point, os.O_RDONLY)
		fd, err = unix.OpenByHandleAt(int(m.Fd()), handle, unix.O_RDONLY)
		if err != nil {
			harness.WantErr(t, "open_by_handle_at", err, syscall.ESTALE, syscall.EOPNOTSUPP, syscall.EPERM)
			return
		}
		f := os.NewFile(uintptr(fd), "by handle")
		defer f.Close()
		harness.Equal(t, "the object of the handle", harness.Fstat(t, f).Ino, harness.Lstat(t, o.Path("d/f")).Ino)
	})
}

// The times of parents change as on a plain file system. A copy-up keeps times, to the nanosecond.
func TestTimes(t *testing.T) {
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, "file d/f \"x\"\nfile d/g \"x\"\nfile e/f \"x\"\nfile c/f \"x\"")
		mtime := func(name string) string { return harness.TimeClass(harness.Lstat(t, o.Path(name)).Mtim) }
		old := harness.TimeClass(unix.Timespec{Sec: harness.OldTime.Unix()})
		harness.Check(t, os.Chmod(o.Path("d/f"), 0o600))
		harness.Equal(t, "file after chmod", mtime("d/f"), old)
		harness.Equal(t, "parent after a copy-up", mtime("d"), old)
		harness.AppendTo(t, o.Path("d/f"), "+")
		harness.Equal(t, "file after a write", mtime("d/f"), "now")
		harness.Equal(t, "parent after a write", mtime("d"), old)
		harness.Check(t, os.Remove(o.Path("d/g")))
		harness.Equal(t, "parent after a removal", mtime("d"), "now")
		harness.Write(t, o.Path("e/new"), "x")
		harness.Equal(t, "parent after a creation", mtime("e"), "now")
		harness.Check(t, os.Rename(o.Path("c/f"), o.Path("c/g")))
		harness.Equal(t, "parent after a rename", mtime("c"), "now")
		ts := []unix.Timespec{{Sec: 12345, Nsec: 678_901_234}, {Sec: 23456, Nsec: 789_012_345}}
		for _, name := range []string{"e/f", "e/new", "e"} {
			harness.Check(t, unix.UtimesNanoAt(unix.AT_FDCWD, o.Path(name), ts, 0))
		}
		for range 2 {
			for _, name := range []string{"e/f", "e/new", "e"} {
				st := harness.Lstat(t, o.Path(name))
				harness.Equal(t, name, fmt.Sprint(st.Atim, st.Mtim), fmt.Sprint(ts[0], ts[1]))
			}
			harness.Equal(t, "file after a write", mtime("d/f"), "now")
			o.Remount()
		}
		harness.Check(t, unix.UtimesNanoAt(unix.AT_FDCWD, o.Path("e/f"), []unix.Timespec{{Nsec: unix.UTIME_OMIT},
			{Nsec: unix.UTIME_NOW}}, 0))
		st := harness.Lstat(t, o.Path("e/f"))
		harness.Equal(t, "UTIME_OMIT", fmt.Sprint(st.Atim), fmt.Sprint(ts[0]))
		if age := time.Since(time.Unix(st.Mtim.Unix())); age < -time.Minute || age > time.Minute {
			t.Errorf("UTIME_NOW set %v", time.Unix(st.Mtim.Unix()))
		}
	})
}

// A copy-up keeps st_ino, and hard links have one number.
func TestInodeNumbers(t *testing.T) {
	harness.NeedDaemon(t) // xino=off
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, "file a \"x\"\nlink b a\nfile c \"x\"\ndir d\nfile d/f \"x\"\nsymlink s c",
			"dir d\nfile d/g \"x\"\nfile h \"x\"")
		harness.Equal(t, "hard links", harness.Lstat(t, o.Path("a")).Ino, harness.Lstat(t, o.Path("b")).Ino)
		before := map[string]uint64{}
		for _, name := range []string{"c", "d", "d/f", "d/g", "s", "h"} {
			before[name] = harness.Lstat(t, o.Path(name)).Ino
		}
		for _, name := range []string{"c", "d/g", "h"} {
			harness.AppendTo(t, o.Path(name), "+")
		}
		harness.Check(t, os.Chmod(o.Path("d"), 0o700))
		harness.Check(t, os.Lchown(o.Path("s"), os.Getuid(), os.Getgid()))
		harness.Check(t, os.Rename(o.Path("d/f"), o.Path("d/f2")))
		for name, ino := range before {
			if name == "d/f" {
				name = "d/f2"
			}
			harness.Equal(t, name+": inode number after copy-up", harness.Lstat(t, o.Path(name)).Ino, ino)
		}
		if d := harness.IdentityFaults(o.Point); d != "" {
			t.Error(d)
		}
		seen := map[uint64]string{}
		for _, name := range []string{"a", "c", "d", "d/f2", "d/g", "s", "h", "."} {
			ino := harness.Lstat(t, o.Path(name)).Ino
			if seen[ino] != "" {
				t.Errorf("%s and %s have the inode number %d", name, seen[ino], ino)
			}
			seen[ino] = name
		}
	})
}
