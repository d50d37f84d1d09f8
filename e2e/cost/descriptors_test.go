package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// limited has the program called with a hard limit of open files.
func (o *overlay) limited(t *testing.T, files int) {
	t.Helper()
	o.name = filepath.Join(o.env.dir, fmt.Sprint("limited", files))
	check(t, os.WriteFile(o.name, fmt.Appendf(nil, "#!/bin/sh\nulimit -n %d && exec %s \"$@\"\n", files, binPath), 0o755))
}

// Few descriptors make the daemon slower, and nothing else; too few are an error before anything is mounted.
func TestFewDescriptors(t *testing.T) {
	needDaemon(t)
	const dirs, files = 30, 5
	var layers [2]strings.Builder
	for i := range dirs {
		for k := range layers {
			for j := range files {
				fmt.Fprintf(&layers[k], "file d%d/f%d-%d \"text\"\nfile d%d/s/g%d-%d \"text\"\n", i, k, j, i, k, j)
			}
		}
	}
	for _, limit := range []int{24, 32, 64, 128} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			eachMode(t, allModes, func(t *testing.T, e *env) {
				o := e.overlay(t, layers[0].String(), layers[1].String())
				o.opts = nil
				o.limited(t, limit)
				o.mount()
				want := dirs * 2 * len(layers) * files
				for range 2 {
					names := strings.Fields(sh(t, o.mnt, "find . -type f -exec grep -l text {} +"))
					equal(t, "files", len(names), want)
				}
				sh(t, o.mnt, `jobs=""
					for d in d*; do echo more >>$d/f1-0; chmod 600 $d/s/g0-1; done
					for i in 1 2 3 4 5 6 7 8; do find . -type f -exec cat {} + >/dev/null & jobs="$jobs $!"; done
					for job in $jobs; do wait $job; done
					cp -a d0 copy
					mv d1/f0-1 d2/moved
					rm -r d3 d4`)
				open := sh(t, o.mnt, "exec 3<>d5/f0-0 4<>d5/f1-1; rm d5/f0-0 d5/f1-1; echo x >&4; cat <&3")
				equal(t, "an open file without a name", open, "text")
				o.remount()
				wantText(t, o.path("d6/f1-0"), "textmore\n")
				wantText(t, o.path("d2/moved"), "text")
				wantAbsent(t, o.path("d3"))
			})
		})
	}
	t.Run("too few", func(t *testing.T) {
		eachMode(t, allModes, func(t *testing.T, e *env) {
			o := e.overlay(t, "file f")
			for _, limit := range []int{12, 16, 18} {
				o.limited(t, limit)
				out, err := o.tryMount()
				if err == nil || !strings.Contains(out, "ulimit -n") || strings.Count(out, "\n") != 1 {
					t.Errorf("with %d descriptors: %v, %q", limit, err, out)
				}
				if m, ok := mountAt(o.mnt); ok {
					t.Fatalf("with %d descriptors: left behind: %v", limit, m)
				}
			}
		})
	})
}
