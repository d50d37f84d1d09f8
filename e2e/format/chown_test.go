package format

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
)

// usedBytes is the space on disk of the objects below a folder, directories included.
func usedBytes(t *testing.T, dir string) (bytes int64) {
	t.Helper()
	harness.Check(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err == nil {
			st := harness.Lstat(t, path)
			bytes += st.Blocks * 512
		}
		return err
	}))
	return bytes
}

// dataBytes is the number of bytes of a file that are not in a hole.
func dataBytes(t *testing.T, path string) (bytes int64) {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	harness.Check(t, err)
	defer unix.Close(fd)
	for end := int64(0); ; {
		start, err := unix.Seek(fd, end, unix.SEEK_DATA)
		if err == unix.ENXIO {
			return bytes
		}
		harness.Check(t, err)
		end, err = unix.Seek(fd, start, unix.SEEK_HOLE)
		harness.Check(t, err)
		bytes += end - start
	}
}

// chown -R of 10,000 files copies no data, and the kernel finds the data of each file.
func TestChownOfManyFilesCopiesNoData(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		const files = 10000
		// On a disk with a journal a copy-up need not wait for the disk.
		disk := testkit.MountImage(t, "ext4", "loop")
		o := e.Overlay(t)
		o.Lowers, o.Upper, o.Work = []string{disk + "/lower"}, disk+"/upper", disk+"/work"
		harness.Mkdir(t, o.Upper, o.Work)
		text := strings.Repeat("0123456789abcdef", 256)
		for i := range files {
			dir := fmt.Sprintf("%s/d/%02d", o.Lowers[0], i%100)
			harness.Mkdir(t, dir)
			harness.Write(t, fmt.Sprintf("%s/file%05d", dir, i), text)
		}
		o.Opts = append(o.Opts, harness.Redirects, "metacopy=on")
		o.Mount()
		got := o.During(func() { harness.Shell(t, o.Point, "chown -R 7:8 d") })
		harness.Equal(t, "reads and writes", got["READ"]+got["WRITE"], 0)
		harness.Equal(t, "changes", got["SETATTR"], files+101)
		o.Unmount()
		var data int64
		harness.Check(t, filepath.WalkDir(o.Upper, func(path string, entry fs.DirEntry, err error) error {
			if err == nil && entry.Type().IsRegular() {
				data += dataBytes(t, path)
			}
			return err
		}))
		harness.Equal(t, "bytes of data in the upper", data, 0)
		o.KernelOpts = harness.Redirects + ",metacopy=on,index=off,xino=off"
		for _, kernel := range []bool{true, false} {
			o.Kernel = kernel
			o.Mount()
			for i := 0; i < files; i += 97 {
				path := o.Path(fmt.Sprintf("d/%02d/file%05d", i%100, i))
				harness.WantText(t, path, text)
				st := harness.Lstat(t, path)
				harness.Equal(t, path, fmt.Sprint(st.Uid, ":", st.Gid), "7:8")
			}
			o.Unmount()
		}
	})
}
