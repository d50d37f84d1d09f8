package format

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// A squashfs has file handles and no UUID. With index=on the kernel follows origins into a single
// such lower, so linked files stay one object there. With two of them it works without the index.

// mountSquashfs makes a squashfs of a table, and mounts it until the test ends.
func mountSquashfs(e *harness.Env, t *testing.T, table string) string {
	t.Helper()
	dir, err := os.MkdirTemp(e.Dir, "squashed-")
	harness.Check(t, err)
	harness.Build(t, e, dir+"/tree", table)
	if out, err := harness.Run("mksquashfs", dir+"/tree", dir+"/image", "-quiet", "-no-progress"); err != nil {
		t.Fatalf("mksquashfs: %v\n%s", err, out)
	}
	harness.Mkdir(t, dir+"/mnt")
	if out, err := harness.Run("mount", "-t", "squashfs", "-o", "loop,ro", dir+"/image", dir+"/mnt"); err != nil {
		if strings.Contains(out, "unknown filesystem type") {
			t.Skip("this kernel has no squashfs")
		}
		t.Fatalf("mounting the squashfs: %v\n%s", err, out)
	}
	t.Cleanup(func() { harness.Check(t, harness.UnmountAt(dir+"/mnt")) })
	return dir + "/mnt"
}

// linkFacts describes whether names are one object.
func linkFacts(t *testing.T, o *harness.Overlay, paths ...string) string {
	t.Helper()
	var b strings.Builder
	first := harness.Lstat(t, o.Path(paths[0])).Ino
	for _, path := range paths {
		st := harness.Lstat(t, o.Path(path))
		fmt.Fprintf(&b, "%s: the same object %v, links %d, %q\n", path, st.Ino == first, st.Nlink,
			harness.ReadText(t, o.Path(path)))
	}
	return b.String()
}

func TestLowerWithoutUUID(t *testing.T) {
	harness.NeedDaemon(t)
	const table = "file d/f \"text\"\nlink d/g d/f\nlink e/h d/f\nfile d/single \"s\""
	names := []string{"d/f", "d/g", "e/h"}
	harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		for _, c := range []struct {
			name   string
			lowers int
			one    bool // the names stay one object
		}{{"one squashfs", 1, true}, {"two", 2, false}} {
			t.Run(c.name, func(t *testing.T) {
				var lowers []string
				for i := range c.lowers {
					lowers = append(lowers, mountSquashfs(e, t, strings.ReplaceAll(table, "text", fmt.Sprint("text", i))))
				}
				shown := map[harness.Implementation][]string{}
				other := map[harness.Implementation]harness.Implementation{
					harness.Ours: harness.Kernel, harness.Kernel: harness.Ours,
				}
				for _, writer := range []harness.Implementation{harness.Kernel, harness.Ours} {
					o := harness.NewEnv(t, e.Mode).Overlay(t)
					o.Lowers, o.Opts = lowers, append(o.Opts, keepLinks)
					mount := func(by harness.Implementation) {
						t.Helper()
						if o.Kernel = by == harness.Kernel; o.Kernel {
							harness.Check(t, o.MountKernelWith(keepLinks, "xino=on"))
						} else {
							o.Mount()
						}
					}
					look := func() { shown[writer] = append(shown[writer], linkFacts(t, o, names...)) }
					mount(writer)
					single := harness.Lstat(t, o.Path("d/single")).Ino
					look()
					harness.AppendTo(t, o.Path("d/f"), "+")
					harness.AppendTo(t, o.Path("d/single"), "+")
					look()
					for _, by := range []harness.Implementation{writer, other[writer], writer} {
						harness.Check(t, o.TryUnmount())
						o.WaitEnd()
						mount(by)
						look()
						if ino := harness.Lstat(t, o.Path("d/single")).Ino; c.one && ino != single {
							t.Errorf("%s after %s: the number of a copy is %d, and was %d", by, writer, ino, single)
						}
					}
					harness.AppendTo(t, o.Path("e/h"), "-")
					harness.Check(t, os.Remove(o.Path("d/g")))
					shown[writer] = append(shown[writer], linkFacts(t, o, "d/f", "e/h"))
					harness.Check(t, o.TryUnmount())
					o.WaitEnd()
					if log, _ := os.ReadFile(o.Log); !o.Kernel && strings.Contains(string(log), "falling back to index=off") == c.one {
						t.Errorf("one object %v, and the log is %q", c.one, log)
					}
				}
				harness.Equal(t, "what is shown", strings.Join(shown[harness.Ours], "\n"), strings.Join(shown[harness.Kernel],
					"\n"))
				if want := "e/h: the same object true, links 3, \"text0+\""; strings.Contains(shown[harness.Kernel][1],
					want) != c.one {
					t.Errorf("the kernel shows %q: nothing is tested", shown[harness.Kernel][1])
				}
			})
		}
	})
}
