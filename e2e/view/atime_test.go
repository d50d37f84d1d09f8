package e2e

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// longAgo is an access time that reading replaces by now, unless it is not to change.
var longAgo = time.Unix(1_000_000_000, 0)

// readBy reads a file, or lists a directory, that is opened with these flags.
func readBy(t *testing.T, path string, flags int) {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|flags, 0)
	check(t, err)
	defer unix.Close(fd)
	buf := make([]byte, 4096)
	if flags&unix.O_DIRECTORY != 0 {
		for n := 1; n > 0 && err == nil; {
			n, err = unix.Getdents(fd, buf)
		}
	} else {
		_, err = unix.Pread(fd, buf, 0)
	}
	check(t, err)
}

// Access times of the upper change by the mount's options, not by those of the upper's own mount.
// Access times of lowers never change (D44).
func TestAccessTimes(t *testing.T) {
	for _, c := range []struct {
		opt                        string
		flag                       uintptr // of mount(2), for the kernel's overlayfs
		modes                      []mode
		file, again, dir, dirAgain bool // whether the first and the second reading count
	}{
		{"noatime", unix.MS_NOATIME, allModes, false, false, false, false},
		{"relatime", unix.MS_RELATIME, onlyRoot, true, false, true, false},
		{"nodiratime", unix.MS_NODIRATIME, onlyRoot, true, false, false, false},
		{"strictatime", unix.MS_STRICTATIME, onlyRoot, true, true, true, true},
	} {
		t.Run(c.opt, func(t *testing.T) {
			eachPolicy(t, c.modes, func(t *testing.T, e *env) {
				o := e.overlay(t, "file low \"low\"\nfile other \"other\"")
				build(t, e, o.upper, "file up \"up\"\nfile d/f \"f\"\nfile quiet \"q\"")
				for _, name := range []string{"up", "d", "quiet"} {
					check(t, os.Chtimes(filepath.Join(o.upper, name), longAgo, longAgo))
				}
				check(t, os.Chtimes(filepath.Join(o.lowers[0], "low"), longAgo, longAgo))
				o.opts = append(o.opts, c.opt)
				o.kernelFlags = c.flag
				o.mount()
				count := func(name string, flags int, first, second bool) {
					t.Helper()
					last := longAgo.UnixNano()
					for i, counts := range []bool{first, second} {
						time.Sleep(20 * time.Millisecond)
						readBy(t, o.path(name), flags)
						now := atime(t, o.path(name))
						if (now != last) != counts {
							t.Errorf("reading %s, time %d: st_atime was %d, is %d", name, i+1, last, now)
						}
						if lying := atime(t, filepath.Join(o.upper, name)); lying != now {
							t.Errorf("reading %s: st_atime is %d in the upper, %d in the mount", name, lying, now)
						}
						last = now
					}
				}
				count("up", 0, c.file, c.again)
				count("d", unix.O_DIRECTORY, c.dir, c.dirAgain)
				if e.mode == modeRoot {
					count("quiet", unix.O_NOATIME, false, false)
				}
				readBy(t, o.path("low"), 0)
				if e.mode != modeFusermount {
					equal(t, "st_atime of a lower", atime(t, filepath.Join(o.lowers[0], "low")), longAgo.UnixNano())
				}
			})
		})
	}
}

// What is read from the page cache of the mount is not seen by the daemon, and counts only with strictatime (D44).
func TestAccessTimesOfWhatIsCached(t *testing.T) {
	needDaemon(t)
	eachMode(t, onlyRoot, func(t *testing.T, e *env) {
		e.needCached(t)
		for _, opt := range []string{"relatime", "strictatime"} {
			t.Run(opt, func(t *testing.T) {
				e := newEnv(t, e.mode)
				e.opts = []string{opt}
				o := e.mounted(t, "dir d")
				write(t, o.path("f"), "text")
				readBy(t, o.path("f"), 0)
				check(t, os.Chtimes(o.path("f"), longAgo, longAgo))
				readBy(t, o.path("f"), 0)
				equal(t, "the reading counts", atime(t, o.path("f")) != longAgo.UnixNano(), opt == "strictatime")
			})
		}
	})
}

func atime(t *testing.T, path string) int64 {
	t.Helper()
	st := lstat(t, path)
	return unix.TimespecToNsec(st.Atim)
}
