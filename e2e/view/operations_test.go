package e2e

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
)

func rename(o *overlay, from, to string, flags uint) error {
	return unix.Renameat2(unix.AT_FDCWD, o.path(from), unix.AT_FDCWD, o.path(to), flags)
}

func TestRenameFlags(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, e *env) {
		o := e.mounted(t, "file a \"a\"\nfile b \"b\"\nsymlink s a\nfile d/low \"l\"\ndir empty\nfile c \"c\"")
		wantErr(t, "noreplace over a file", rename(o, "a", "b", unix.RENAME_NOREPLACE), syscall.EEXIST)
		check(t, rename(o, "a", "a2", unix.RENAME_NOREPLACE))
		check(t, rename(o, "a2", "b", unix.RENAME_EXCHANGE))
		wantText(t, o.path("a2"), "b")
		wantText(t, o.path("b"), "a")
		check(t, rename(o, "s", "c", unix.RENAME_EXCHANGE))
		wantErr(t, "exchange with nothing", rename(o, "b", "missing", unix.RENAME_EXCHANGE), syscall.ENOENT)
		wantErr(t, "whiteout flag", rename(o, "b", "w", unix.RENAME_WHITEOUT), syscall.EINVAL, syscall.EPERM)
		// Directories with lower parts cannot move; those of the upper can, over what is empty as well.
		wantErr(t, "a lower directory", rename(o, "d", "d2", 0), syscall.EXDEV)
		wantErr(t, "exchange with a lower directory", rename(o, "b", "d", unix.RENAME_EXCHANGE), syscall.EXDEV)
		sh(t, o.mnt, "mv d d2; mkdir -p new/sub; echo x >new/sub/f; mv new moved") // mv copies on EXDEV
		check(t, rename(o, "moved", "empty", 0))
		wantErr(t, "over a directory that is not empty", rename(o, "d2", "empty", 0), syscall.ENOTEMPTY, syscall.EEXIST)
		wantErr(t, "a directory over a file", rename(o, "d2", "b", 0), syscall.ENOTDIR)
		wantErr(t, "a file over a directory", rename(o, "b", "d2", 0), syscall.EISDIR)
		wantErr(t, "into itself", rename(o, "empty", "empty/sub/x", 0), syscall.EINVAL)
		want := "file a2 \"b\"\nfile b \"a\"\nfile s \"c\"\nsymlink c a\nfile d2/low \"l\"\nfile empty/sub/f \"x\\n\""
		wantTree(t, "merged", o.mnt, want)
		o.remount()
		wantTree(t, "merged after a remount", o.mnt, want)
		check(t, os.RemoveAll(o.path("empty")))
		check(t, os.Mkdir(o.path("d"), 0o755))
		check(t, rename(o, "d", "empty", 0)) // made again: of the upper only
		o.unmount()
		wantTree(t, "the upper", o.upper, "file a2 \"b\"\nfile b \"a\"\nfile s \"c\"\nsymlink c a\nfile d2/low \"l\"\nopaque empty\nwhite d\nwhite a")
	})
}

// An open directory and open files keep working while they, and their parents, are renamed.
func TestRenameOfOpenObjects(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, e *env) {
		o := e.mounted(t, "file low \"low\"\nfile victim \"victim\"")
		check(t, os.MkdirAll(o.path("p/q"), 0o755))
		write(t, o.path("p/q/f"), "f")
		f, d := open(t, o.path("p/q/f"), os.O_RDWR), open(t, o.path("p/q"), os.O_RDONLY)
		low, victim := open(t, o.path("low"), os.O_RDWR), open(t, o.path("victim"), os.O_RDONLY)
		check(t, os.Rename(o.path("p"), o.path("p2")))
		check(t, os.Rename(o.path("low"), o.path("victim")))
		for _, file := range []*os.File{f, low} {
			_, err := file.WriteAt([]byte("XY"), 0)
			check(t, err)
		}
		wantText(t, o.path("p2/q/f"), "XY")
		wantText(t, o.path("victim"), "XYw")
		buf := make([]byte, 6)
		_, err := victim.ReadAt(buf, 0)
		check(t, err)
		equal(t, "what was renamed over", string(buf), "victim")
		entries, err := d.ReadDir(0)
		check(t, err)
		equal(t, "entries of the moved directory", len(entries), 1)
		fd, err := unix.Openat(int(d.Fd()), "made", unix.O_CREAT|unix.O_WRONLY, 0o644)
		check(t, err)
		check(t, unix.Close(fd))
		wantNames(t, o.path("p2/q"), "f", "made")
		for _, file := range []*os.File{f, d, low, victim} {
			check(t, file.Close())
		}
	})
}

func TestLocks(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, e *env) {
		o := e.mounted(t, "file f \"x\"")
		a, b := open(t, o.path("f"), os.O_RDWR), open(t, o.path("f"), os.O_RDWR)
		check(t, unix.Flock(int(a.Fd()), unix.LOCK_EX|unix.LOCK_NB))
		wantErr(t, "second flock", unix.Flock(int(b.Fd()), unix.LOCK_EX|unix.LOCK_NB), syscall.EWOULDBLOCK)
		check(t, unix.Flock(int(a.Fd()), unix.LOCK_UN))
		check(t, unix.Flock(int(b.Fd()), unix.LOCK_EX|unix.LOCK_NB))
		lock := func(f *os.File, kind int16, start, length int64) error {
			return unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: kind, Start: start, Len: length})
		}
		check(t, lock(a, unix.F_WRLCK, 0, 10))
		wantErr(t, "an overlapping lock", lock(b, unix.F_WRLCK, 5, 10), syscall.EAGAIN)
		check(t, lock(b, unix.F_WRLCK, 10, 10))
		// Copy-up between two locks does not part them.
		appendTo(t, o.path("f"), "copied up")
		c := open(t, o.path("f"), os.O_RDWR)
		if !oracle {
			wantErr(t, "a lock after the copy-up", lock(c, unix.F_RDLCK, 0, 1), syscall.EAGAIN)
		}
		check(t, lock(a, unix.F_UNLCK, 0, 0))
		check(t, lock(c, unix.F_RDLCK, 0, 1))
		out, err := runCommand("flock", "-n", "-E", "7", o.path("f"), "true")
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 7 {
			t.Errorf("flock(1) of another process: %v %s, want exit 7", err, out)
		}
	})
}

func TestExecFromTheMount(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, e *env) {
		o := e.overlay(t, "file script 0755 \"#!/bin/sh\\necho script\\n\"")
		text, err := os.ReadFile(busybox(t))
		check(t, err)
		check(t, os.WriteFile(filepath.Join(o.lowers[0], "busybox"), text, 0o755))
		o.mount()
		equal(t, "script", sh(t, o.mnt, "./script"), "script\n")
		equal(t, "binary of the lower", sh(t, o.mnt, "./busybox echo lower"), "lower\n")
		check(t, os.WriteFile(o.path("copy"), text, 0o755))
		equal(t, "binary of the upper", sh(t, o.mnt, "cp copy echo; ./echo upper"), "upper\n")
		for _, name := range []string{"busybox", "copy"} {
			cmd := exec.Command(o.path(name), "sleep", "30")
			if name == "copy" {
				check(t, os.Rename(o.path("copy"), o.path("sleep")))
				cmd = exec.Command(o.path("sleep"), "30")
				name = "sleep"
			}
			check(t, cmd.Start())
			_, err := os.OpenFile(o.path(name), os.O_WRONLY, 0)
			wantErr(t, "writing a running binary", err, syscall.ETXTBSY)
			wantErr(t, "truncating a running binary", os.Truncate(o.path(name), 0), syscall.ETXTBSY)
			check(t, os.Remove(o.path(name))) // still running
			if !alive(cmd.Process.Pid) {
				t.Errorf("%s died when its file was removed", name)
			}
			check(t, cmd.Process.Kill())
			_ = cmd.Wait()
		}
		w := open(t, o.path("script"), os.O_WRONLY)
		err = exec.Command(o.path("script")).Run()
		wantErr(t, "running what is open for writing", err, syscall.ETXTBSY)
		check(t, w.Close())
	})
}

// busybox is the path of the static busybox.
func busybox(t *testing.T) string {
	t.Helper()
	p, err := exec.LookPath("busybox")
	check(t, err)
	if out, err := exec.Command("ldd", p).CombinedOutput(); err == nil || !strings.Contains(string(out), "not a dynamic") {
		t.Fatalf("%s is not static (package busybox-static): %s", p, out)
	}
	return p
}

func TestChattr(t *testing.T) {
	eachMode(t, rootModes, func(t *testing.T, e *env) {
		o := e.mounted(t, "file low \"x\"\ndir dir")
		write(t, o.path("up"), "u")
		for _, name := range []string{"low", "up", "dir"} {
			sh(t, o.mnt, "chattr +d "+name)
			for _, p := range []string{o.path(name), filepath.Join(o.upper, name)} {
				flags, _, _ := strings.Cut(sh(t, "", "lsattr -d "+p), " ")
				if !strings.Contains(flags, "d") {
					t.Errorf("lsattr %s: %s, want the flag d", p, flags)
				}
			}
			sh(t, o.mnt, "chattr -d "+name)
		}
		wantText(t, o.path("low"), "x")
		f := open(t, o.path("up"), os.O_RDONLY)
		_, err := unix.IoctlGetInt(int(f.Fd()), unix.TCGETS)
		wantErr(t, "another ioctl", err, syscall.ENOTTY)
	})
}

// An unnamed file works or is refused by the errno programs know.
func TestTmpfileAndHandles(t *testing.T) {
	eachMode(t, rootModes, func(t *testing.T, e *env) {
		o := e.mounted(t, "file d/f \"text\"")
		fd, err := unix.Open(o.path("d"), unix.O_TMPFILE|unix.O_RDWR, 0o600)
		if err == nil {
			_, err = unix.Write(fd, []byte("named later"))
			check(t, err)
			check(t, unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, o.path("d/linked"), unix.AT_SYMLINK_FOLLOW))
			check(t, unix.Close(fd))
			wantText(t, o.path("d/linked"), "named later")
		} else {
			wantErr(t, "O_TMPFILE", err, syscall.EOPNOTSUPP, syscall.EISDIR)
			wantNames(t, o.path("d"), "f")
		}
		handle, _, err := unix.NameToHandleAt(unix.AT_FDCWD, o.path("d/f"), 0)
		if err != nil {
			wantErr(t, "name_to_handle_at", err, syscall.EOPNOTSUPP)
			return
		}
		m := open(t, o.mnt, os.O_RDONLY)
		fd, err = unix.OpenByHandleAt(int(m.Fd()), handle, unix.O_RDONLY)
		if err != nil {
			wantErr(t, "open_by_handle_at", err, syscall.ESTALE, syscall.EOPNOTSUPP, syscall.EPERM)
			return
		}
		f := os.NewFile(uintptr(fd), "by handle")
		defer f.Close()
		equal(t, "the object of the handle", fstat(t, f).Ino, lstat(t, o.path("d/f")).Ino)
	})
}

// Times: parents change as on a plain file system; copy-up keeps them; nanoseconds are kept.
func TestTimes(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, e *env) {
		o := e.mounted(t, "file d/f \"x\"\nfile d/g \"x\"\nfile e/f \"x\"\nfile c/f \"x\"")
		mtime := func(name string) string { return timeClass(lstat(t, o.path(name)).Mtim) }
		old := timeClass(unix.Timespec{Sec: oldTime.Unix()})
		check(t, os.Chmod(o.path("d/f"), 0o600))
		equal(t, "file after chmod", mtime("d/f"), old)
		equal(t, "parent after a copy-up", mtime("d"), old)
		appendTo(t, o.path("d/f"), "+")
		equal(t, "file after a write", mtime("d/f"), "now")
		equal(t, "parent after a write", mtime("d"), old)
		check(t, os.Remove(o.path("d/g")))
		equal(t, "parent after a removal", mtime("d"), "now")
		write(t, o.path("e/new"), "x")
		equal(t, "parent after a creation", mtime("e"), "now")
		check(t, os.Rename(o.path("c/f"), o.path("c/g")))
		equal(t, "parent after a rename", mtime("c"), "now")
		ts := []unix.Timespec{{Sec: 12345, Nsec: 678_901_234}, {Sec: 23456, Nsec: 789_012_345}}
		for _, name := range []string{"e/f", "e/new", "e"} {
			check(t, unix.UtimesNanoAt(unix.AT_FDCWD, o.path(name), ts, 0))
		}
		for range 2 {
			for _, name := range []string{"e/f", "e/new", "e"} {
				st := lstat(t, o.path(name))
				equal(t, name, fmt.Sprint(st.Atim, st.Mtim), fmt.Sprint(ts[0], ts[1]))
			}
			equal(t, "file after a write", mtime("d/f"), "now")
			o.remount()
		}
		check(t, unix.UtimesNanoAt(unix.AT_FDCWD, o.path("e/f"), []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Nsec: unix.UTIME_NOW}}, 0))
		st := lstat(t, o.path("e/f"))
		equal(t, "UTIME_OMIT", fmt.Sprint(st.Atim), fmt.Sprint(ts[0]))
		if age := time.Since(time.Unix(st.Mtim.Unix())); age < -time.Minute || age > time.Minute {
			t.Errorf("UTIME_NOW set %v", time.Unix(st.Mtim.Unix()))
		}
	})
}

// st_ino is stable over copy-up, and hard links are one object.
func TestInodeNumbers(t *testing.T) {
	needDaemon(t) // xino=off
	eachMode(t, allModes, func(t *testing.T, e *env) {
		o := e.mounted(t, "file a \"x\"\nlink b a\nfile c \"x\"\ndir d\nfile d/f \"x\"\nsymlink s c", "dir d\nfile d/g \"x\"\nfile h \"x\"")
		equal(t, "hard links", lstat(t, o.path("a")).Ino, lstat(t, o.path("b")).Ino)
		before := map[string]uint64{}
		for _, name := range []string{"c", "d", "d/f", "d/g", "s", "h"} {
			before[name] = lstat(t, o.path(name)).Ino
		}
		for _, name := range []string{"c", "d/g", "h"} {
			appendTo(t, o.path(name), "+")
		}
		check(t, os.Chmod(o.path("d"), 0o700))
		check(t, os.Lchown(o.path("s"), os.Getuid(), os.Getgid()))
		check(t, os.Rename(o.path("d/f"), o.path("d/f2")))
		for name, ino := range before {
			if name == "d/f" {
				name = "d/f2"
			}
			equal(t, name+": inode number after copy-up", lstat(t, o.path(name)).Ino, ino)
		}
		if d := identityFaults(o.mnt); d != "" {
			t.Error(d)
		}
		seen := map[uint64]string{}
		for _, name := range []string{"a", "c", "d", "d/f2", "d/g", "s", "h", "."} {
			ino := lstat(t, o.path(name)).Ino
			if seen[ino] != "" {
				t.Errorf("%s and %s have the inode number %d", name, seen[ino], ino)
			}
			seen[ino] = name
		}
	})
}
