package cost

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// The daemon holds no more descriptors after much work than after little.
func TestDescriptorsAreNotLeaked(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, harness.ThousandFiles())
		day := func(i int) {
			harness.Visit(t, o.Point)
			d := o.Path(fmt.Sprintf("day%d", i))
			harness.Mkdir(t, d)
			for k := range 200 {
				p := fmt.Sprintf("%s/f%d", d, k)
				harness.Write(t, p, "text")
				harness.AppendTo(t, o.Path(fmt.Sprintf("d%02d/f%02d", k%20, (i+k/20)%50)), "+")
				f := harness.Open(t, p, os.O_RDWR)
				harness.Check(t, os.Remove(p))
				_, err := f.WriteString("unlinked")
				harness.Check(t, err)
				harness.Check(t, f.Close())
			}
			harness.Check(t, os.RemoveAll(d))
			if e.Mode == harness.ModeRoot {
				harness.Check(t, unix.Setxattr(o.Path("d00"), "user.x", []byte("v"), 0))
			}
		}
		day(0)
		day(1)
		before := len(harness.OpenFDs(o.PID))
		for i := range 4 {
			day(2 + i)
		}
		// A FORGET may come a little later than the removal.
		if !harness.Eventually(3*time.Second, func() bool { return len(harness.OpenFDs(o.PID)) <= before+40 }) {
			t.Errorf("%d descriptors after two days, %d after six", before, len(harness.OpenFDs(o.PID)))
		}
		deleted := 0
		for fd := range harness.OpenFDs(o.PID) {
			// By the link count: /proc shows an O_TMPFILE file as deleted even after linkat(2).
			var st unix.Stat_t
			if unix.Stat(fmt.Sprintf("/proc/%d/fd/%d", o.PID, fd), &st) == nil && st.Nlink == 0 &&
				st.Mode&unix.S_IFMT == unix.S_IFREG {
				deleted++
			}
		}
		if deleted > 20 {
			t.Errorf("%d descriptors of removed files are still open", deleted)
		}
	})
}

// limitFiles makes the mount call the program with a hard limit of open files.
func limitFiles(o *harness.Overlay, t *testing.T, files int) {
	t.Helper()
	o.Program = filepath.Join(o.Env.Dir, fmt.Sprint("limited", files))
	harness.Check(t, os.WriteFile(o.Program, fmt.Appendf(nil, "#!/bin/sh\nulimit -n %d && exec %s \"$@\"\n", files,
		harness.Program), 0o755))
}

// Few descriptors only make the daemon slower. If they are too few, the mount fails.
func TestFewDescriptors(t *testing.T) {
	harness.NeedDaemon(t)
	const dirs, files = 30, 5
	var layers [2]strings.Builder
	for i := range dirs {
		for k := range layers {
			for j := range files {
				fmt.Fprintf(&layers[k], "file d%d/f%d-%d \"text\"\nfile d%d/s/g%d-%d \"text\"\n", i, k, j, i, k, j)
			}
		}
	}
	for _, limit := range []int{30, 32, 64, 128} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
				o := e.Overlay(t, layers[0].String(), layers[1].String())
				o.Opts = nil
				limitFiles(o, t, limit)
				o.Mount()
				want := dirs * 2 * len(layers) * files
				for range 2 {
					names := strings.Fields(harness.Shell(t, o.Point, "find . -type f -exec grep -l text {} +"))
					harness.Equal(t, "files", len(names), want)
				}
				harness.Shell(t, o.Point, `jobs=""
					for d in d*; do echo more >>$d/f1-0; chmod 600 $d/s/g0-1; done
					for i in 1 2 3 4 5 6 7 8; do find . -type f -exec cat {} + >/dev/null & jobs="$jobs $!"; done
					for job in $jobs; do wait $job; done
					cp -a d0 copy
					mv d1/f0-1 d2/moved
					rm -r d3 d4`)
				open := harness.Shell(t, o.Point, "exec 3<>d5/f0-0 4<>d5/f1-1; rm d5/f0-0 d5/f1-1; echo x >&4; cat <&3")
				harness.Equal(t, "an open file without a name", open, "text")
				o.Remount()
				harness.WantText(t, o.Path("d6/f1-0"), "textmore\n")
				harness.WantText(t, o.Path("d2/moved"), "text")
				harness.WantAbsent(t, o.Path("d3"))
			})
		})
	}
	t.Run("too few", func(t *testing.T) {
		harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
			o := e.Overlay(t, "file f")
			for limit := 10; limit <= 18; limit++ { // with less, go-fuse does not begin
				limitFiles(o, t, limit)
				out, err := o.TryMount()
				if err == nil || !strings.Contains(out, "ulimit -n") || strings.Count(out, "\n") != 1 {
					t.Errorf("with %d descriptors: %v, %q", limit, err, out)
				}
				if m, ok := harness.MountAt(o.Point); ok {
					t.Fatalf("with %d descriptors: left behind: %v", limit, m)
				}
			}
		})
	})
}
