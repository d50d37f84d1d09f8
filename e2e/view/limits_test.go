package view

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// Limits of what a FUSE server can do, and where they end.

func statx(t *testing.T, path string, mask int) unix.Statx_t {
	t.Helper()
	var st unix.Statx_t
	harness.Check(t, unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, mask, &st))
	return st
}

// D26: statx(2) returns the time of birth that the object's layer has. The kernel caches it.
func TestTimesOfBirth(t *testing.T) {
	harness.EachPolicy(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, "file f f\ndir d\nlink l f\nfile d/in in")
		start := time.Now().Add(-time.Second)
		harness.Write(t, o.Path("new"), "n")
		if harness.Oracle || statx(t, o.Lowers[0]+"/f", unix.STATX_BTIME).Mask&unix.STATX_BTIME == 0 {
			t.Skip("no times of birth here")
		}
		if st := statx(t, o.Path("f"), unix.STATX_BTIME); st.Mask&unix.STATX_BTIME == 0 {
			if !harness.KernelAtLeast(t, 6, 6) {
				t.Skip("Linux 6.6 requests times of birth")
			}
			t.Fatal("no time of birth")
		}
		for _, name := range []string{"f", "d", "l", "d/in"} {
			harness.Equal(t, "birth of "+name, statx(t, o.Path(name), unix.STATX_BTIME|unix.STATX_BASIC_STATS).Btime,
				statx(t, o.Lowers[0]+"/"+name, unix.STATX_BTIME).Btime)
		}
		if born := statx(t, o.Path("new"), unix.STATX_BTIME).Btime; born.Sec < start.Unix() || born.Sec > time.Now().Unix()+
			1 {
			t.Errorf("a new file was made at %d", born.Sec)
		}
		again := o.During(func() {
			for _, name := range []string{"f", "d", "l", "d/in"} {
				statx(t, o.Path(name), unix.STATX_BTIME|unix.STATX_BASIC_STATS)
			}
		})
		if again.Total() > 0 {
			t.Errorf("statx of what is known: %s", again)
		}
		// The other attributes that statx returns equal those of stat.
		st, plain := statx(t, o.Path("f"), unix.STATX_BASIC_STATS|unix.STATX_BTIME), harness.Lstat(t, o.Path("f"))
		harness.Equal(t, "size", int64(st.Size), plain.Size)
		harness.Equal(t, "ino", st.Ino, plain.Ino)
		harness.Equal(t, "mode", uint32(st.Mode), plain.Mode)
		harness.Equal(t, "blocks", int64(st.Blocks), plain.Blocks)
		// A copy-up does not change the time of birth.
		before := statx(t, o.Path("f"), unix.STATX_BTIME).Btime
		harness.AppendTo(t, o.Path("f"), "more")
		harness.Equal(t, "birth after a copy-up", statx(t, o.Path("f"), unix.STATX_BTIME).Btime, before)
	})
}

// D25: files of lowers that report size 0 and have data, as in proc, are read with timeout=0 alone.
func TestFilesWithoutSize(t *testing.T) {
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		const lower = "/proc/sys/kernel"
		want, err := os.ReadFile(lower + "/ostype")
		harness.Check(t, err)
		for opt, want := range map[string]string{"timeout=1": "", layersChange: string(want)} {
			o := e.Overlay(t)
			o.Lowers, o.Upper, o.Work = []string{lower}, "", ""
			o.Opts = append(o.Opts[:len(o.Opts):len(o.Opts)], opt)
			o.Mount()
			harness.WantText(t, o.Path("ostype"), want)
			o.Unmount()
			harness.Check(t, os.RemoveAll(filepath.Join(e.Dir, "upper")))
			harness.Check(t, os.RemoveAll(filepath.Join(e.Dir, "work")))
			harness.Check(t, os.RemoveAll(filepath.Join(e.Dir, "mnt")))
		}
	})
}

// D26: statx returns no attributes (STATX_ATTR_IMMUTABLE and others), and FIEMAP is EOPNOTSUPP.
func TestWhatTheKernelDoesNotAskFor(t *testing.T) {
	harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, "file f text")
		harness.Shell(t, o.Point, "chattr +i f")
		defer harness.Shell(t, o.Point, "chattr -i f")
		if st := statx(t, o.Path("f"), unix.STATX_BASIC_STATS); st.Attributes&unix.STATX_ATTR_IMMUTABLE != 0 {
			t.Error("statx returns the attribute: remove D26")
		}
		f := harness.Open(t, o.Path("f"), os.O_RDONLY)
		defer f.Close()
		const fiemap = 0xc020660b
		var arg [32]byte
		_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), fiemap, uintptr(unsafe.Pointer(&arg)))
		harness.WantErr(t, "FIEMAP", errno, syscall.EOPNOTSUPP)
	})
}

// D27: lowers may be one directory, or lie inside each other.
func TestLowersInsideEachOther(t *testing.T) {
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "file in/f f\nfile g g")
		lower := o.Lowers[0]
		for _, lowers := range [][]string{{lower, lower}, {lower, lower + "/in"}, {lower + "/in", lower}} {
			o.Lowers = lowers
			o.Mount()
			harness.WantText(t, o.Path("g"), "g")
			harness.WantText(t, o.Path("in/f"), "f")
			names, err := os.ReadDir(o.Point)
			harness.Check(t, err)
			harness.Equal(t, strings.Join(lowers, ":")+": the inner one shows", len(names) == 3, lowers[0] != lowers[1])
			o.Unmount()
		}
	})
}
