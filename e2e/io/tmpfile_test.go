package io

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// needTmpfile skips a test if the kernel does not send FUSE_TMPFILE (before Linux 6.1).
func needTmpfile(t *testing.T, dir string) {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == unix.EOPNOTSUPP && !harness.KernelAtLeast(t, 6, 1) {
		t.Skip("this kernel has no FUSE_TMPFILE")
	}
	harness.Check(t, err)
	harness.Check(t, unix.Close(fd))
}

// openTmpfile makes an O_TMPFILE file.
func openTmpfile(t *testing.T, dir string, flags int, mode uint32) *os.File {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_CLOEXEC|flags, mode)
	harness.Check(t, err)
	f := os.NewFile(uintptr(fd), dir+"/(O_TMPFILE)")
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// linkFile gives an open file a name.
func linkFile(f *os.File, path string) error {
	return unix.Linkat(unix.AT_FDCWD, fmt.Sprint("/proc/self/fd/", f.Fd()), unix.AT_FDCWD, path, unix.AT_SYMLINK_FOLLOW)
}

// An O_TMPFILE file is a file like others. After linkat(2) it is an entry of its directory.
func TestTmpfile(t *testing.T) {
	harness.EachIO(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, "dir d 0777\nfile d/f \"f\"\nfile d/gone \"gone\"")
		needTmpfile(t, o.Path("d"))
		harness.Check(t, os.Remove(o.Path("d/gone")))
		text := strings.Repeat("0123456789abcdef", 10_000)
		for i, flags := range []int{unix.O_RDWR, unix.O_WRONLY, unix.O_RDWR | unix.O_APPEND} {
			name := o.Path(fmt.Sprint("d/", []string{"linked", "gone", "third"}[i]))
			f := openTmpfile(t, o.Path("d"), flags, 0o640)
			_, err := f.WriteString(text)
			harness.Check(t, err)
			st := harness.Fstat(t, f)
			harness.Equal(t, "st_nlink", st.Nlink, 0)
			harness.Equal(t, "st_size", st.Size, int64(len(text)))
			harness.Equal(t, "st_mode", st.Mode, unix.S_IFREG|0o640)
			harness.WantAbsent(t, name)
			if flags != unix.O_WRONLY {
				harness.Equal(t, "read again", readAt(t, f, 0, len(text)+1), text)
			}
			harness.Check(t, f.Sync())
			harness.Check(t, linkFile(f, name))
			linked := harness.Lstat(t, name)
			harness.Equal(t, "st_nlink", linked.Nlink, 1)
			harness.Equal(t, "st_ino", linked.Ino, st.Ino)
			harness.WantText(t, name, text)
			harness.Check(t, os.Link(name, name+"2"))
			harness.Check(t, os.Rename(name, name+"3"))
			_, err = f.Seek(0, 2)
			harness.Check(t, err)
			_, err = f.WriteString("more")
			harness.Check(t, err)
			harness.Check(t, f.Close())
			for range 2 {
				harness.WantText(t, name+"2", text+"more")
				harness.WantText(t, name+"3", text+"more")
				harness.WantText(t, filepath.Join(o.Upper, "d", filepath.Base(name)+"3"), text+"more")
				harness.WantAbsent(t, name)
				o.Remount()
			}
		}
		harness.WantNames(t, o.Path("d"), "f", "gone2", "gone3", "linked2", "linked3", "third2", "third3")
	})
}

// When the last descriptor of an O_TMPFILE file is closed, its inode and its space are freed.
func TestTmpfileIsGone(t *testing.T) {
	harness.EachPolicy(t, harness.RootModes, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, "dir other")
		harness.Mkdir(t, o.Path("d"))
		needTmpfile(t, o.Path("d"))
		f := openTmpfile(t, o.Path("d"), unix.O_RDWR, 0o600)
		_, err := f.WriteString("text")
		harness.Check(t, err)
		harness.Check(t, f.Chmod(0o644))
		harness.Check(t, f.Truncate(2))
		harness.Check(t, unix.Fsetxattr(int(f.Fd()), "user.note", []byte("n"), 0))
		harness.Equal(t, "st_mode", harness.Fstat(t, f).Mode, unix.S_IFREG|0o644)
		again := harness.Open(t, fmt.Sprint("/proc/self/fd/", f.Fd()), os.O_RDONLY)
		harness.Equal(t, "opened again", readAt(t, again, 0, 10), "te")
		harness.Check(t, again.Close())
		harness.Check(t, os.Rename(o.Path("d"), o.Path("other/d")))
		harness.Equal(t, "in a renamed directory", readAt(t, f, 0, 10), "te")
		harness.Check(t, os.Remove(o.Path("other/d")))
		harness.Equal(t, "in a removed directory", readAt(t, f, 0, 10), "te")
		harness.Check(t, linkFile(f, o.Path("saved")))
		harness.Check(t, os.Remove(o.Path("saved")))
		harness.WantErr(t, "linked once more", linkFile(f, o.Path("saved")), syscall.ENOENT)
		harness.Check(t, f.Close())
		// With O_EXCL it never gets a name.
		f = openTmpfile(t, o.Path("other"), unix.O_RDWR|unix.O_EXCL, 0o600)
		harness.WantErr(t, "linked in spite of O_EXCL", linkFile(f, o.Path("saved")), syscall.ENOENT)
		harness.Check(t, f.Close())
		harness.WantNames(t, o.Point, "other")
		o.Unmount()
		harness.WantNames(t, filepath.Join(o.Work, "work"))
	})
}

// An O_TMPFILE file belongs to the process that makes it. It inherits from its directory what other
// new files inherit.
func TestTmpfileInherits(t *testing.T) {
	harness.EachPolicy(t, harness.RootModes, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, "dir plain 0777\ndir group 0777\ndir acl 0777\ndir closed 0755")
		needTmpfile(t, o.Path("plain"))
		harness.Check(t, os.Chown(o.Path("group"), 0, 1001))
		harness.Check(t, os.Chmod(o.Path("group"), 0o777|os.ModeSetgid))
		harness.Shell(t, o.Point, "setfacl -d -m u:1005:r acl")
		old := unix.Umask(0o027)
		defer unix.Umask(old)
		for _, uid := range []int{0, 1000} {
			asFsuid(t, uid, func() {
				for _, dir := range []string{"plain", "group", "acl"} {
					f := openTmpfile(t, o.Path(dir), unix.O_RDWR, 0o666)
					name := o.Path(fmt.Sprint(dir, "/tmp", uid))
					harness.Check(t, linkFile(f, name))
					harness.Check(t, f.Close())
					model := o.Path(fmt.Sprint(dir, "/model", uid))
					fd, err := unix.Open(model, unix.O_CREAT|unix.O_RDWR|unix.O_CLOEXEC, 0o666)
					harness.Check(t, err)
					harness.Check(t, unix.Close(fd))
					got, want := harness.Lstat(t, name), harness.Lstat(t, model)
					harness.Equal(t, "mode of "+name, got.Mode, want.Mode)
					harness.Equal(t, "owner of "+name, got.Uid, want.Uid)
					harness.Equal(t, "group of "+name, got.Gid, want.Gid)
					gotACL, _ := harness.GetXattr(name, "system.posix_acl_access")
					wantACL, _ := harness.GetXattr(model, "system.posix_acl_access")
					harness.Equal(t, "ACL of "+name, gotACL, wantACL)
				}
				if uid != 0 {
					_, err := unix.Open(o.Path("closed"), unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
					harness.WantErr(t, "in a closed directory", err, syscall.EACCES)
				}
			})
		}
	})
}

// asFsuid calls f with the file system rights of another user.
func asFsuid(t *testing.T, uid int, f func()) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	harness.Check(t, unix.Setfsgid(uid))
	harness.Check(t, unix.Setfsuid(uid))
	defer func() {
		harness.Check(t, unix.Setfsuid(0))
		harness.Check(t, unix.Setfsgid(0))
	}()
	f()
}

// If owner and mode are an xattr, the file has it before it has a name.
func TestTmpfileWithPermissionsInAttributes(t *testing.T) {
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		harness.NeedDaemon(t)
		e.Opts = append(e.Opts, "xattr_permissions=2")
		o := e.Mounted(t, "file d/f \"f\"")
		needTmpfile(t, o.Path("d"))
		f := openTmpfile(t, o.Path("d"), unix.O_RDWR, 0o751)
		_, err := f.WriteString("text")
		harness.Check(t, err)
		harness.Equal(t, "mode", harness.Fstat(t, f).Mode, unix.S_IFREG|0o751&^umask())
		harness.Check(t, f.Chmod(0o641))
		harness.Check(t, linkFile(f, o.Path("d/linked")))
		harness.Check(t, f.Close())
		for range 2 {
			harness.Equal(t, "mode", harness.Lstat(t, o.Path("d/linked")).Mode, unix.S_IFREG|0o641)
			harness.WantText(t, o.Path("d/linked"), "text")
			o.Remount()
		}
	})
}

func umask() uint32 {
	mask := unix.Umask(0)
	unix.Umask(mask)
	return uint32(mask)
}
