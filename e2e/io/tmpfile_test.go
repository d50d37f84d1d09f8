package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// needTmpfile skips a test where the kernel does not send FUSE_TMPFILE (before Linux 6.1).
func needTmpfile(t *testing.T, dir string) {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == unix.EOPNOTSUPP && !atLeast(kernelVersion(t), 6, 1) {
		t.Skip("this kernel has no FUSE_TMPFILE")
	}
	check(t, err)
	check(t, unix.Close(fd))
}

// kernelVersion is that of the running kernel.
func kernelVersion(t *testing.T) string {
	t.Helper()
	var u unix.Utsname
	check(t, unix.Uname(&u))
	return unix.ByteSliceToString(u.Release[:])
}

// openTmpfile makes a file without a name.
func openTmpfile(t *testing.T, dir string, flags int, mode uint32) *os.File {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_CLOEXEC|flags, mode)
	check(t, err)
	f := os.NewFile(uintptr(fd), dir+"/(O_TMPFILE)")
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// linkFile gives an open file a name.
func linkFile(f *os.File, path string) error {
	return unix.Linkat(unix.AT_FDCWD, fmt.Sprint("/proc/self/fd/", f.Fd()), unix.AT_FDCWD, path, unix.AT_SYMLINK_FOLLOW)
}

// A file without a name is a file like others, and one that is linked is one of its directory from then on.
func TestTmpfile(t *testing.T) {
	eachIO(t, allModes, func(t *testing.T, e *env) {
		o := e.mounted(t, "dir d 0777\nfile d/f \"f\"\nfile d/gone \"gone\"")
		needTmpfile(t, o.path("d"))
		check(t, os.Remove(o.path("d/gone")))
		text := strings.Repeat("0123456789abcdef", 10_000)
		for i, flags := range []int{unix.O_RDWR, unix.O_WRONLY, unix.O_RDWR | unix.O_APPEND} {
			name := o.path(fmt.Sprint("d/", []string{"linked", "gone", "third"}[i]))
			f := openTmpfile(t, o.path("d"), flags, 0o640)
			_, err := f.WriteString(text)
			check(t, err)
			st := fstat(t, f)
			equal(t, "st_nlink", st.Nlink, 0)
			equal(t, "st_size", st.Size, int64(len(text)))
			equal(t, "st_mode", st.Mode, unix.S_IFREG|0o640)
			wantAbsent(t, name)
			if flags != unix.O_WRONLY {
				equal(t, "read again", readAt(t, f, 0, len(text)+1), text)
			}
			check(t, f.Sync())
			check(t, linkFile(f, name))
			linked := lstat(t, name)
			equal(t, "st_nlink", linked.Nlink, 1)
			equal(t, "st_ino", linked.Ino, st.Ino)
			wantText(t, name, text)
			check(t, os.Link(name, name+"2"))
			check(t, os.Rename(name, name+"3"))
			_, err = f.Seek(0, 2)
			check(t, err)
			_, err = f.WriteString("more")
			check(t, err)
			check(t, f.Close())
			for range 2 {
				wantText(t, name+"2", text+"more")
				wantText(t, name+"3", text+"more")
				wantText(t, filepath.Join(o.upper, "d", filepath.Base(name)+"3"), text+"more")
				wantAbsent(t, name)
				o.remount()
			}
		}
		wantNames(t, o.path("d"), "f", "gone2", "gone3", "linked2", "linked3", "third2", "third3")
	})
}

// When the last descriptor of an O_TMPFILE file is closed, its inode and its space are freed.
func TestTmpfileIsGone(t *testing.T) {
	eachPolicy(t, rootModes, func(t *testing.T, e *env) {
		o := e.mounted(t, "dir other")
		mkdir(t, o.path("d"))
		needTmpfile(t, o.path("d"))
		f := openTmpfile(t, o.path("d"), unix.O_RDWR, 0o600)
		_, err := f.WriteString("text")
		check(t, err)
		check(t, f.Chmod(0o644))
		check(t, f.Truncate(2))
		check(t, unix.Fsetxattr(int(f.Fd()), "user.note", []byte("n"), 0))
		equal(t, "st_mode", fstat(t, f).Mode, unix.S_IFREG|0o644)
		again := open(t, fmt.Sprint("/proc/self/fd/", f.Fd()), os.O_RDONLY)
		equal(t, "opened again", readAt(t, again, 0, 10), "te")
		check(t, again.Close())
		check(t, os.Rename(o.path("d"), o.path("other/d")))
		equal(t, "in a renamed directory", readAt(t, f, 0, 10), "te")
		check(t, os.Remove(o.path("other/d")))
		equal(t, "in a removed directory", readAt(t, f, 0, 10), "te")
		check(t, linkFile(f, o.path("saved")))
		check(t, os.Remove(o.path("saved")))
		wantErr(t, "linked once more", linkFile(f, o.path("saved")), syscall.ENOENT)
		check(t, f.Close())
		// With O_EXCL it never gets a name.
		f = openTmpfile(t, o.path("other"), unix.O_RDWR|unix.O_EXCL, 0o600)
		wantErr(t, "linked in spite of O_EXCL", linkFile(f, o.path("saved")), syscall.ENOENT)
		check(t, f.Close())
		wantNames(t, o.mnt, "other")
		o.unmount()
		wantNames(t, filepath.Join(o.work, "work"))
	})
}

// An O_TMPFILE file belongs to the process that makes it. It inherits from its directory what other
// new files inherit.
func TestTmpfileInherits(t *testing.T) {
	eachPolicy(t, rootModes, func(t *testing.T, e *env) {
		o := e.mounted(t, "dir plain 0777\ndir group 0777\ndir acl 0777\ndir closed 0755")
		needTmpfile(t, o.path("plain"))
		check(t, os.Chown(o.path("group"), 0, 1001))
		check(t, os.Chmod(o.path("group"), 0o777|os.ModeSetgid))
		sh(t, o.mnt, "setfacl -d -m u:1005:r acl")
		old := unix.Umask(0o027)
		defer unix.Umask(old)
		for _, uid := range []int{0, 1000} {
			asFsuid(t, uid, func() {
				for _, dir := range []string{"plain", "group", "acl"} {
					f := openTmpfile(t, o.path(dir), unix.O_RDWR, 0o666)
					name := o.path(fmt.Sprint(dir, "/tmp", uid))
					check(t, linkFile(f, name))
					check(t, f.Close())
					model := o.path(fmt.Sprint(dir, "/model", uid))
					fd, err := unix.Open(model, unix.O_CREAT|unix.O_RDWR|unix.O_CLOEXEC, 0o666)
					check(t, err)
					check(t, unix.Close(fd))
					got, want := lstat(t, name), lstat(t, model)
					equal(t, "mode of "+name, got.Mode, want.Mode)
					equal(t, "owner of "+name, got.Uid, want.Uid)
					equal(t, "group of "+name, got.Gid, want.Gid)
					gotACL, _ := getXattr(name, "system.posix_acl_access")
					wantACL, _ := getXattr(model, "system.posix_acl_access")
					equal(t, "ACL of "+name, gotACL, wantACL)
				}
				if uid != 0 {
					_, err := unix.Open(o.path("closed"), unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
					wantErr(t, "in a closed directory", err, syscall.EACCES)
				}
			})
		}
	})
}

// asFsuid calls f with the rights of another user on files.
func asFsuid(t *testing.T, uid int, f func()) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	check(t, unix.Setfsgid(uid))
	check(t, unix.Setfsuid(uid))
	defer func() {
		check(t, unix.Setfsuid(0))
		check(t, unix.Setfsgid(0))
	}()
	f()
}

// With owner and mode in an attribute the file has it before it has a name.
func TestTmpfileWithPermissionsInAttributes(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, e *env) {
		needDaemon(t)
		e.opts = append(e.opts, "xattr_permissions=2")
		o := e.mounted(t, "file d/f \"f\"")
		needTmpfile(t, o.path("d"))
		f := openTmpfile(t, o.path("d"), unix.O_RDWR, 0o751)
		_, err := f.WriteString("text")
		check(t, err)
		equal(t, "mode", fstat(t, f).Mode, unix.S_IFREG|0o751&^umask())
		check(t, f.Chmod(0o641))
		check(t, linkFile(f, o.path("d/linked")))
		check(t, f.Close())
		for range 2 {
			equal(t, "mode", lstat(t, o.path("d/linked")).Mode, unix.S_IFREG|0o641)
			wantText(t, o.path("d/linked"), "text")
			o.remount()
		}
	})
}

func umask() uint32 {
	mask := unix.Umask(0)
	unix.Umask(mask)
	return uint32(mask)
}
