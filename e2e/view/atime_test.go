package view

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// longAgo is an access time. A read replaces it by the present time where access times change.
var longAgo = time.Unix(1_000_000_000, 0)

// readBy opens a file or a directory with these flags and reads it.
func readBy(t *testing.T, path string, flags int) {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|flags, 0)
	harness.Check(t, err)
	defer unix.Close(fd)
	buf := make([]byte, 4096)
	if flags&unix.O_DIRECTORY != 0 {
		for n := 1; n > 0 && err == nil; {
			n, err = unix.Getdents(fd, buf)
		}
	} else {
		_, err = unix.Pread(fd, buf, 0)
	}
	harness.Check(t, err)
}

// Access times of the upper change by the mount's options, not by those of the upper's own mount.
// Access times of lowers never change (D44).
func TestAccessTimes(t *testing.T) {
	for _, c := range []struct {
		opt                        string
		flag                       uintptr // of mount(2), for the kernel's overlayfs
		modes                      []harness.Mode
		file, again, dir, dirAgain bool // whether the first and the second reading count
	}{
		{"noatime", unix.MS_NOATIME, harness.AllModes, false, false, false, false},
		{"relatime", unix.MS_RELATIME, harness.OnlyRoot, true, false, true, false},
		{"nodiratime", unix.MS_NODIRATIME, harness.OnlyRoot, true, false, false, false},
		{"strictatime", unix.MS_STRICTATIME, harness.OnlyRoot, true, true, true, true},
	} {
		t.Run(c.opt, func(t *testing.T) {
			if (c.opt == "nodiratime" || c.opt == "strictatime") && !harness.KernelAtLeast(t, 5, 12) {
				t.Skip("not applicable on this kernel: a mount has had clones with flags of their own since Linux 5.12")
			}
			harness.EachPolicy(t, c.modes, func(t *testing.T, e *harness.Env) {
				o := e.Overlay(t, "file low \"low\"\nfile other \"other\"")
				harness.Build(t, e, o.Upper, "file up \"up\"\nfile d/f \"f\"\nfile quiet \"q\"")
				for _, name := range []string{"up", "d", "quiet"} {
					harness.Check(t, os.Chtimes(filepath.Join(o.Upper, name), longAgo, longAgo))
				}
				harness.Check(t, os.Chtimes(filepath.Join(o.Lowers[0], "low"), longAgo, longAgo))
				o.Opts = append(o.Opts, c.opt)
				o.KernelFlags = c.flag
				o.Mount()
				count := func(name string, flags int, first, second bool) {
					t.Helper()
					last := longAgo.UnixNano()
					for i, counts := range []bool{first, second} {
						time.Sleep(20 * time.Millisecond)
						readBy(t, o.Path(name), flags)
						now := atime(t, o.Path(name))
						if (now != last) != counts {
							t.Errorf("reading %s, time %d: st_atime was %d, is %d", name, i+1, last, now)
						}
						if lying := atime(t, filepath.Join(o.Upper, name)); lying != now {
							t.Errorf("reading %s: st_atime is %d in the upper, %d in the mount", name, lying, now)
						}
						last = now
					}
				}
				count("up", 0, c.file, c.again)
				count("d", unix.O_DIRECTORY, c.dir, c.dirAgain)
				if e.Mode == harness.ModeRoot {
					count("quiet", unix.O_NOATIME, false, false)
				}
				readBy(t, o.Path("low"), 0)
				if e.Mode != harness.ModeFusermount && harness.KernelAtLeast(t, 5, 12) { // clones of mounts
					harness.Equal(t, "st_atime of a lower", atime(t, filepath.Join(o.Lowers[0], "low")), longAgo.UnixNano())
				}
			})
		})
	}
}

// The daemon does not see reads from the page cache of the mount. They change the access time only
// with strictatime (D44).
func TestAccessTimesOfWhatIsCached(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		e.NeedCached(t)
		for _, opt := range []string{"relatime", "strictatime"} {
			t.Run(opt, func(t *testing.T) {
				e := harness.NewEnv(t, e.Mode)
				e.Opts = []string{opt}
				o := e.Mounted(t, "dir d")
				harness.Write(t, o.Path("f"), "text")
				readBy(t, o.Path("f"), 0)
				harness.Check(t, os.Chtimes(o.Path("f"), longAgo, longAgo))
				readBy(t, o.Path("f"), 0)
				harness.Equal(t, "the reading counts", atime(t, o.Path("f")) != longAgo.UnixNano(), opt == "strictatime")
			})
		}
	})
}

func atime(t *testing.T, path string) int64 {
	t.Helper()
	st := harness.Lstat(t, path)
	return unix.TimespecToNsec(st.Atim)
}
