package sys

import (
	"encoding/binary"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestFile(t *testing.T) {
	d, path := layer(t)
	write(t, filepath.Join(path, "src"), "0123456789")
	src, err := d.At("src").OpenFile(unix.O_RDONLY)
	must(t, err)
	defer src.Close()
	f, err := d.CreateFile("f", 0o600)
	must(t, err)
	defer f.Close()

	n, err := f.CopyRange(src, 2, 5, 100)
	if err != nil || n != 8 {
		t.Errorf("copied %d, %v", n, err)
	}
	n, err = f.CopyRange(src, 10, 0, 100)
	if err != nil || n != 0 {
		t.Errorf("copied %d past the end, %v", n, err)
	}
	n, err = f.Pwrite([]byte("AB"), 1)
	if err != nil || n != 2 {
		t.Errorf("wrote %d, %v", n, err)
	}
	buf := make([]byte, 20)
	n, err = f.Pread(buf, 0)
	if err != nil || string(buf[:n]) != "\x00AB\x00\x0023456789" {
		t.Errorf("read %q, %v", buf[:n], err)
	}
	n, err = f.Pread(buf, 100)
	if err != nil || n != 0 {
		t.Errorf("read %d past the end, %v", n, err)
	}
	_, err = src.Pwrite(buf, 0)
	want(t, "write to a file opened for reading", err, unix.EBADF)
	_, err = f.Pread(buf, -1)
	want(t, "read before the start", err, unix.EINVAL)

	must(t, f.Truncate(1<<20))
	must(t, f.Fallocate(unix.FALLOC_FL_KEEP_SIZE, 2<<20, 4096))
	must(t, f.Sync())
	must(t, f.Datasync())
	if off, err := f.Seek(0, unix.SEEK_HOLE); err != nil || off != 4096 {
		t.Errorf("hole at %d, %v", off, err)
	}
	_, err = f.Seek(1<<20, unix.SEEK_DATA)
	want(t, "data past the end", err, unix.ENXIO)
	want(t, "reflink on ext4", f.Clone(src), unix.EOPNOTSUPP)
	if st := statOf(t, f.Ref()); st.Size != 1<<20 {
		t.Errorf("size %d", st.Size)
	}
}

// Inode flags are read and set through the descriptor, and a short argument never reaches the
// kernel.
func TestFlags(t *testing.T) {
	d, path := layer(t)
	write(t, filepath.Join(path, "f"), "")
	f, err := d.At("f").OpenFile(unix.O_RDONLY)
	must(t, err)
	defer f.Close()
	const noDump = 0x40
	arg := make([]byte, 8)
	must(t, f.Flags(unix.FS_IOC_GETFLAGS, arg))
	flags := binary.NativeEndian.Uint32(arg)
	binary.NativeEndian.PutUint32(arg, flags|noDump)
	must(t, f.Flags(unix.FS_IOC_SETFLAGS, arg))
	clear(arg)
	must(t, f.Flags(unix.FS_IOC_GETFLAGS, arg))
	if got := binary.NativeEndian.Uint32(arg); got != flags|noDump {
		t.Errorf("flags %x, want %x", got, flags|noDump)
	}
	want(t, "short argument", f.Flags(unix.FS_IOC_GETFLAGS, arg[:7]), unix.EINVAL)
	want(t, "no argument", f.Flags(unix.FS_IOC_GETFLAGS, nil), unix.EINVAL)
	want(t, "unknown request", f.Flags(1<<30|8<<16|'x'<<8|200, arg), unix.ENOTTY)
}
