package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Limits of what a FUSE server can do, and where they end.

func statx(t *testing.T, path string, mask int) unix.Statx_t {
	t.Helper()
	var st unix.Statx_t
	check(t, unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, mask, &st))
	return st
}

// D26: statx(2) returns the time of birth that the object's layer has. The kernel caches it.
func TestTimesOfBirth(t *testing.T) {
	eachPolicy(t, allModes, func(t *testing.T, e *env) {
		o := e.mounted(t, "file f f\ndir d\nlink l f\nfile d/in in")
		start := time.Now().Add(-time.Second)
		write(t, o.path("new"), "n")
		if oracle || statx(t, o.lowers[0]+"/f", unix.STATX_BTIME).Mask&unix.STATX_BTIME == 0 {
			t.Skip("no times of birth here")
		}
		if st := statx(t, o.path("f"), unix.STATX_BTIME); st.Mask&unix.STATX_BTIME == 0 {
			if olderKernel(t, 6, 6) {
				t.Skip("Linux 6.6 asks for times of birth")
			}
			t.Fatal("no time of birth")
		}
		for _, name := range []string{"f", "d", "l", "d/in"} {
			equal(t, "birth of "+name, statx(t, o.path(name), unix.STATX_BTIME|unix.STATX_BASIC_STATS).Btime, statx(t, o.lowers[0]+"/"+name, unix.STATX_BTIME).Btime)
		}
		if born := statx(t, o.path("new"), unix.STATX_BTIME).Btime; born.Sec < start.Unix() || born.Sec > time.Now().Unix()+1 {
			t.Errorf("a new file was made at %d", born.Sec)
		}
		again := o.during(func() {
			for _, name := range []string{"f", "d", "l", "d/in"} {
				statx(t, o.path(name), unix.STATX_BTIME|unix.STATX_BASIC_STATS)
			}
		})
		if again.total() > 0 {
			t.Errorf("statx of what is known: %s", again)
		}
		// The other attributes that statx returns equal those of stat.
		st, plain := statx(t, o.path("f"), unix.STATX_BASIC_STATS|unix.STATX_BTIME), lstat(t, o.path("f"))
		equal(t, "size", int64(st.Size), plain.Size)
		equal(t, "ino", st.Ino, plain.Ino)
		equal(t, "mode", uint32(st.Mode), plain.Mode)
		equal(t, "blocks", int64(st.Blocks), plain.Blocks)
		// A copy-up is no birth.
		before := statx(t, o.path("f"), unix.STATX_BTIME).Btime
		appendTo(t, o.path("f"), "more")
		equal(t, "birth after a copy-up", statx(t, o.path("f"), unix.STATX_BTIME).Btime, before)
	})
}

// olderKernel reports whether this kernel is older than a version.
func olderKernel(t *testing.T, major, minor int) bool {
	t.Helper()
	var u unix.Utsname
	check(t, unix.Uname(&u))
	var a, b int
	_, err := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &a, &b)
	check(t, err)
	return a < major || a == major && b < minor
}

// D25: files of lowers that report size 0 and have data, as in proc, are read with timeout=0 alone.
func TestFilesWithoutSize(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, e *env) {
		const lower = "/proc/sys/kernel"
		want, err := os.ReadFile(lower + "/ostype")
		check(t, err)
		for opt, want := range map[string]string{"timeout=1": "", layersChange: string(want)} {
			o := e.overlay(t)
			o.lowers, o.upper, o.work = []string{lower}, "", ""
			o.opts = append(o.opts[:len(o.opts):len(o.opts)], opt)
			o.mount()
			wantText(t, o.path("ostype"), want)
			o.unmount()
			check(t, os.RemoveAll(filepath.Join(e.dir, "upper")))
			check(t, os.RemoveAll(filepath.Join(e.dir, "work")))
			check(t, os.RemoveAll(filepath.Join(e.dir, "mnt")))
		}
	})
}

// D26: statx returns no attributes (STATX_ATTR_IMMUTABLE and others), and FIEMAP is EOPNOTSUPP.
func TestWhatTheKernelDoesNotAskFor(t *testing.T) {
	eachMode(t, onlyRoot, func(t *testing.T, e *env) {
		o := e.mounted(t, "file f text")
		sh(t, o.mnt, "chattr +i f")
		defer sh(t, o.mnt, "chattr -i f")
		if st := statx(t, o.path("f"), unix.STATX_BASIC_STATS); st.Attributes&unix.STATX_ATTR_IMMUTABLE != 0 {
			t.Error("statx tells of the attribute by now: D26 is to be taken back")
		}
		f := open(t, o.path("f"), os.O_RDONLY)
		defer f.Close()
		const fiemap = 0xc020660b
		var arg [32]byte
		_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), fiemap, uintptr(unsafe.Pointer(&arg)))
		wantErr(t, "FIEMAP", errno, syscall.EOPNOTSUPP)
	})
}

// D27: lowers may be one directory, or lie inside each other.
func TestLowersInsideEachOther(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, e *env) {
		o := e.overlay(t, "file in/f f\nfile g g")
		lower := o.lowers[0]
		for _, lowers := range [][]string{{lower, lower}, {lower, lower + "/in"}, {lower + "/in", lower}} {
			o.lowers = lowers
			o.mount()
			wantText(t, o.path("g"), "g")
			wantText(t, o.path("in/f"), "f")
			names, err := os.ReadDir(o.mnt)
			check(t, err)
			equal(t, strings.Join(lowers, ":")+": the inner one shows", len(names) == 3, lowers[0] != lowers[1])
			o.unmount()
		}
	})
}
