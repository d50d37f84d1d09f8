package posix

import (
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// A fileCall is a call on a descriptor of an object that was opened with some flags.
type fileCall struct {
	name   string
	object string
	flags  int
	call   func(fd int) error
	want   string
	// size is that of the file after the call. It was 4.
	size int64
}

func ftruncate(size int64) func(int) error {
	return func(fd int) error { return unix.Ftruncate(fd, size) }
}

func fallocate(mode uint32, offset, length int64) func(int) error {
	return func(fd int) error { return unix.Fallocate(fd, mode, offset, length) }
}

// fileCalls: the descriptor must be open for writing, the object must have data, the range must lie
// in a file. fallocate(2) without flags is posix_fallocate(3).
var fileCalls = []fileCall{
	{"ftruncate shorter", "f", unix.O_RDWR, ftruncate(1), "ok", 1},
	{"ftruncate to nothing", "f", unix.O_WRONLY, ftruncate(0), "ok", 0},
	{"ftruncate longer", "f", unix.O_WRONLY, ftruncate(9000), "ok", 9000},
	{"ftruncate, negative", "f", unix.O_WRONLY, ftruncate(-1), "EINVAL", 4},
	{"ftruncate, too long", "f", unix.O_WRONLY, ftruncate(1<<63 - 1), "EFBIG", 4},
	{"ftruncate, read only", "f", unix.O_RDONLY, ftruncate(0), "EINVAL", 4},
	{"ftruncate, a path", "f", unix.O_PATH, ftruncate(0), "EBADF", 4},
	{"ftruncate, a directory", "d", unix.O_RDONLY, ftruncate(0), "EINVAL", 4},
	{"ftruncate, a fifo", "p", unix.O_RDWR, ftruncate(0), "EINVAL", 4},
	{"fallocate longer", "f", unix.O_RDWR, fallocate(0, 0, 9000), "ok", 9000},
	{"fallocate behind the end", "f", unix.O_WRONLY, fallocate(0, 5000, 1000), "ok", 6000},
	{"fallocate, size kept", "f", unix.O_WRONLY, fallocate(unix.FALLOC_FL_KEEP_SIZE, 0, 9000), "ok", 4},
	{"fallocate, no length", "f", unix.O_WRONLY, fallocate(0, 0, 0), "EINVAL", 4},
	{"fallocate, negative length", "f", unix.O_WRONLY, fallocate(0, 0, -1), "EINVAL", 4},
	{"fallocate, negative offset", "f", unix.O_WRONLY, fallocate(0, -1, 1), "EINVAL", 4},
	{"fallocate, too long", "f", unix.O_WRONLY, fallocate(0, 1<<62, 1<<62), "EFBIG", 4},
	{"fallocate, read only", "f", unix.O_RDONLY, fallocate(0, 0, 9000), "EBADF", 4},
	{"fallocate, a path", "f", unix.O_PATH, fallocate(0, 0, 9000), "EBADF", 4},
	{"fallocate, a directory", "d", unix.O_RDONLY, fallocate(0, 0, 1), "EBADF", 4},
	{"fallocate, a fifo", "p", unix.O_RDWR, fallocate(0, 0, 1), "ESPIPE", 4},
}

const descriptorTree = "file f 0644 \"text\"\ndir d\nfifo p"

func TestCallsOnDescriptors(t *testing.T) {
	harness.EachIO(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "dir upper")
		folder := func(l layer, c fileCall) string { return filepath.Join(string(l), c.name) }
		for _, c := range fileCalls {
			harness.Mkdir(t, filepath.Join(o.Lowers[0], folder(inLower, c)))
			harness.Build(t, e, filepath.Join(o.Lowers[0], folder(inLower, c)), descriptorTree)
		}
		o.Mount()
		for _, c := range fileCalls {
			harness.Mkdir(t, o.Path(folder(inUpper, c)))
			harness.Build(t, e, o.Path(folder(inUpper, c)), descriptorTree)
		}
		time.Sleep(tick)
		for _, l := range []layer{inLower, inUpper} {
			for _, c := range fileCalls {
				t.Run(string(l)+"/"+c.name, func(t *testing.T) { c.run(t, o.Path(folder(l, c))) })
			}
		}
	})
}

func (c fileCall) run(t *testing.T, dir string) {
	fd, err := unix.Open(filepath.Join(dir, c.object), c.flags|unix.O_CLOEXEC, 0)
	harness.Check(t, err)
	defer unix.Close(fd)
	before := harness.Lstat(t, filepath.Join(dir, "f"))
	harness.Equal(t, "result", harness.ErrnoName(c.call(fd)), c.want)
	after := harness.Lstat(t, filepath.Join(dir, "f"))
	harness.Equal(t, "size", after.Size, c.size)
	changes := c.want == "ok"
	wantTime(t, "st_ctime", before.Ctim, after.Ctim, changes)
	if c.size != before.Size || !changes {
		wantTime(t, "st_mtime", before.Mtim, after.Mtim, changes)
	}
}

// badAddress is an address that no process can use.
const badAddress = 1

// TestBadAddresses gives the kernel buffers that do not exist, for data and names that the file
// system fills in or reads. The file stays as it is.
func TestBadAddresses(t *testing.T) {
	harness.EachIO(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, "file f 0644 \"text\"\nxattr f user.name value\nsymlink l f\ndir d\nfile d/x")
		file, err := unix.Open(o.Path("f"), unix.O_RDWR|unix.O_CLOEXEC, 0)
		harness.Check(t, err)
		defer unix.Close(file)
		dir, err := unix.Open(o.Path("d"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		harness.Check(t, err)
		defer unix.Close(dir)
		link, err := unix.Open(o.Path("l"), unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		harness.Check(t, err)
		defer unix.Close(link)
		name, err := unix.BytePtrFromString("user.name")
		harness.Check(t, err)
		for _, c := range []struct {
			what string
			call func() unix.Errno
		}{
			{"read", raw(unix.SYS_PREAD64, file, badAddress, 4, 0)},
			{"write", raw(unix.SYS_PWRITE64, file, badAddress, 4, 0)},
			{"a long write", raw(unix.SYS_PWRITE64, file, badAddress, 1<<20, 0)},
			{"fstat", raw(unix.SYS_FSTAT, file, badAddress, 0, 0)},
			{"fstatfs", raw(unix.SYS_FSTATFS, file, badAddress, 0, 0)},
			{"getdents64", raw(unix.SYS_GETDENTS64, dir, badAddress, 4096, 0)},
			{"readlinkat", func() unix.Errno { return readlinkat(link) }},
			{"flistxattr", raw(unix.SYS_FLISTXATTR, file, badAddress, 4096, 0)},
			{"fgetxattr", func() unix.Errno { return xattrCall(unix.SYS_FGETXATTR, file, name) }},
			{"fsetxattr", func() unix.Errno { return xattrCall(unix.SYS_FSETXATTR, file, name) }},
			{"openat", raw(unix.SYS_OPENAT, dir, badAddress, 0, 0)},
			{"mkdirat", raw(unix.SYS_MKDIRAT, dir, badAddress, 0o755, 0)},
			{"mknodat", raw(unix.SYS_MKNODAT, dir, badAddress, unix.S_IFIFO|0o600, 0)},
			{"unlinkat", raw(unix.SYS_UNLINKAT, dir, badAddress, 0, 0)},
			{"fchmodat", raw(unix.SYS_FCHMODAT, dir, badAddress, 0o600, 0)},
			{"utimensat", raw(unix.SYS_UTIMENSAT, dir, 0, badAddress, 0)},
		} {
			harness.Equal(t, c.what, c.call(), unix.EFAULT)
		}
		harness.WantText(t, o.Path("f"), "text")
		harness.Equal(t, "the xattr", harness.XattrOf(o.Path("f"), "user.name"), "value")
		harness.WantNames(t, o.Path("d"), "x")
	})
}

// raw is a system call with a descriptor and three more arguments.
func raw(number uintptr, fd int, a, b, c uintptr) func() unix.Errno {
	return func() unix.Errno {
		_, _, errno := unix.Syscall6(number, uintptr(fd), a, b, c, 0, 0)
		return errno
	}
}
