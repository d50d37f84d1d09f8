package format

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
)

// EnvNeedVerity is a variable of the environment. If it is set, the kernel has to have fs-verity.
const EnvNeedVerity = "FUSE_OVERLAY_NEED_VERITY"

// metacopyXattr is the xattr of a file without its data.
const metacopyXattr = "trusted.overlay.metacopy"

// protect has fs-verity protect a file (FS_IOC_ENABLE_VERITY).
func protect(path string) error {
	const enable = 0x40806685
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	// struct fsverity_enable_arg: version 1, SHA-256, blocks of a page.
	arg := [32]uint32{1, 1, uint32(os.Getpagesize())}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), enable, uintptr(unsafe.Pointer(&arg[0])))
	if errno != 0 {
		return errno
	}
	return nil
}

// digestOf is the digest of a protected file (FS_IOC_MEASURE_VERITY), SHA-256 in hexadecimal.
func digestOf(t *testing.T, path string) string {
	t.Helper()
	const measure, size = 0xc0046686, 32
	f := harness.Open(t, path, os.O_RDONLY)
	defer f.Close()
	arg := [1 + size/4]uint32{size << 16}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), measure, uintptr(unsafe.Pointer(&arg[0])))
	if errno != 0 {
		t.Fatalf("measuring %s: %v", path, errno)
	}
	return hex.EncodeToString(unsafe.Slice((*byte)(unsafe.Pointer(&arg[1])), size))
}

// verityFiles are the files of the lower. The writer makes metacopies of them, except of nodigest:
// a mount without verity= makes that one. Then the files change, and the reader reads them.
var verityFiles = []struct {
	name              string
	protected         bool // while the writer runs
	changed           bool // it has another text for the reader
	protectedAfter    bool
	withOn, withNeeds string // the result of a read with verity=on, and with verity=require
}{
	{"protected", true, false, true, "ok", "ok"},
	{"plain", false, false, false, "ok", "ok"}, // verity=require copies it up whole
	{"swapped", true, true, true, "EIO", "EIO"},
	{"lost", true, true, false, "EIO", "EIO"},
	{"nodigest", true, false, true, "ok", "EIO"},
}

// Metacopies contain the digests that the kernel has measured. Data with another digest, or with
// none, is EIO. The kernel's overlayfs writes the same xattrs and reads the same files.
func TestDigestsOfTheKernel(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		disk := testkit.MountImage(t, "ext4", "loop", "-O", "verity", "-b", fmt.Sprint(os.Getpagesize()))
		probe := filepath.Join(disk, "probe")
		harness.Write(t, probe, "text")
		if err := protect(probe); err != nil {
			if os.Getenv(EnvNeedVerity) != "" {
				t.Fatalf("the kernel has no fs-verity: %v", err)
			}
			t.Skipf("the kernel has no fs-verity: %v", err)
		}
		sides := map[string]func(o *harness.Overlay, verity string){
			"here": func(o *harness.Overlay, verity string) {
				o.Opts = append(append([]string{}, e.Opts...), "metacopy=on", "verity="+verity)
				o.Mount()
			},
			"kernel": func(o *harness.Overlay, verity string) {
				harness.Check(t, o.MountKernelWith("metacopy=on", "redirect_dir=on", "verity="+verity))
			},
		}
		if !harness.KernelAtLeast(t, 6, 6) {
			t.Log("before Linux 6.6 the kernel's overlayfs has no option verity: not compared with it")
			delete(sides, "kernel")
		}
		for _, verity := range []string{"on", "require"} {
			for writer, mountWriter := range sides {
				for reader, mountReader := range sides {
					t.Run(verity+", written by "+writer+", read by "+reader, func(t *testing.T) {
						dir, err := os.MkdirTemp(disk, "layers")
						harness.Check(t, err)
						o := e.Overlay(t)
						o.T, o.Lowers, o.Upper, o.Work = t, []string{dir + "/lower"}, dir+"/upper", dir+"/work"
						harness.Mkdir(t, o.Lowers[0], o.Upper, o.Work)
						makeVerityLayers(t, o, verity, mountWriter)
						mountReader(o, verity)
						readVerityFiles(t, o, verity)
						o.Unmount()
					})
				}
			}
		}
	})
}

// makeVerityLayers makes the files and their metacopies, compares the xattrs with the digests, and
// changes the files.
func makeVerityLayers(t *testing.T, o *harness.Overlay, verity string, mount func(*harness.Overlay, string)) {
	t.Helper()
	lower := func(name string) string { return filepath.Join(o.Lowers[0], name) }
	for _, f := range verityFiles {
		harness.Write(t, lower(f.name), "text of "+f.name)
		if f.protected {
			harness.Check(t, protect(lower(f.name)))
		}
	}
	copyUp := func(verity string, nodigest bool) {
		mount(o, verity)
		for _, f := range verityFiles {
			if (f.name == "nodigest") == nodigest {
				harness.Check(t, os.Chmod(o.Path(f.name), 0o600))
			}
		}
		o.Unmount()
	}
	copyUp(verity, false)
	copyUp("off", true)
	for _, f := range verityFiles {
		want := "none"
		switch {
		case f.name == "nodigest", !f.protected && verity == "on":
			want = ""
		case f.protected:
			want = "00240001" + digestOf(t, lower(f.name)) // struct ovl_metacopy: version, size, flags, SHA-256
		}
		harness.Equal(t, "the metacopy xattr of "+f.name, metacopyOf(t, filepath.Join(o.Upper, f.name)), want)
		if f.changed {
			harness.Check(t, os.Remove(lower(f.name)))
			harness.Write(t, lower(f.name), "TEXT OF "+f.name)
			if f.protectedAfter {
				harness.Check(t, protect(lower(f.name)))
			}
		}
	}
}

// metacopyOf is the value of the metacopy xattr in hexadecimal; none: the file has its data.
func metacopyOf(t *testing.T, path string) string {
	t.Helper()
	buf := make([]byte, 128)
	n, err := unix.Lgetxattr(path, metacopyXattr, buf)
	if err == unix.ENODATA {
		return "none"
	}
	harness.Check(t, err)
	return hex.EncodeToString(buf[:n])
}

// readVerityFiles reads the files, and then appends to them, which copies the data up.
func readVerityFiles(t *testing.T, o *harness.Overlay, verity string) {
	t.Helper()
	for _, f := range verityFiles {
		want := f.withOn
		if verity == "require" {
			want = f.withNeeds
		}
		text, err := os.ReadFile(o.Path(f.name))
		harness.Equal(t, "reading "+f.name, harness.ErrnoName(err), want)
		if err == nil {
			harness.Equal(t, f.name, string(text), "text of "+f.name)
		}
		harness.Equal(t, "appending to "+f.name, harness.ErrnoName(appendTo(o.Path(f.name))), want)
		if want == "ok" {
			harness.WantText(t, o.Path(f.name), "text of "+f.name+", more")
			harness.Equal(t, "the metacopy xattr afterwards", metacopyOf(t, filepath.Join(o.Upper, f.name)), "none")
		}
	}
}

func appendTo(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(", more")
	return errors.Join(err, f.Sync(), f.Close())
}
