package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// A squashfs has file handles and no UUID. With index=on the kernel follows origins into a single such lower, so linked files
// stay one object there; with two of them it does without the index.

// squashfs makes a file system of a table, and mounts it until the test ends.
func (e *env) squashfs(t *testing.T, table string) string {
	t.Helper()
	dir, err := os.MkdirTemp(e.dir, "squashed-")
	check(t, err)
	build(t, e, dir+"/tree", table)
	if out, err := runCommand("mksquashfs", dir+"/tree", dir+"/image", "-quiet", "-no-progress"); err != nil {
		t.Fatalf("mksquashfs: %v\n%s", err, out)
	}
	mkdir(t, dir+"/mnt")
	if out, err := runCommand("mount", "-t", "squashfs", "-o", "loop,ro", dir+"/image", dir+"/mnt"); err != nil {
		if strings.Contains(out, "unknown filesystem type") {
			t.Skip("this kernel has no squashfs")
		}
		t.Fatalf("mounting the squashfs: %v\n%s", err, out)
	}
	t.Cleanup(func() { check(t, unmountAt(dir+"/mnt")) })
	return dir + "/mnt"
}

// linkFacts are what shows whether names are one object.
func linkFacts(t *testing.T, o *overlay, paths ...string) string {
	t.Helper()
	var b strings.Builder
	first := lstat(t, o.path(paths[0])).Ino
	for _, path := range paths {
		st := lstat(t, o.path(path))
		fmt.Fprintf(&b, "%s: the same object %v, links %d, %q\n", path, st.Ino == first, st.Nlink, readText(t, o.path(path)))
	}
	return b.String()
}

func TestLowerWithoutUUID(t *testing.T) {
	needDaemon(t)
	const table = "file d/f \"text\"\nlink d/g d/f\nlink e/h d/f\nfile d/single \"s\""
	names := []string{"d/f", "d/g", "e/h"}
	eachMode(t, onlyRoot, func(t *testing.T, e *env) {
		for _, c := range []struct {
			name   string
			lowers int
			one    bool // the names stay one object
		}{{"one squashfs", 1, true}, {"two", 2, false}} {
			t.Run(c.name, func(t *testing.T) {
				var lowers []string
				for i := range c.lowers {
					lowers = append(lowers, e.squashfs(t, strings.ReplaceAll(table, "text", fmt.Sprint("text", i))))
				}
				shown := map[bool][]string{} // by the kernel's overlayfs and by this program
				for _, kernel := range []bool{true, false} {
					o := newEnv(t, e.mode).overlay(t)
					o.lowers, o.opts = lowers, append(o.opts, keepLinks)
					mount := func(kernel bool) {
						t.Helper()
						if o.kernel = kernel; kernel {
							check(t, o.kernelWith(keepLinks, "xino=on"))
						} else {
							o.mount()
						}
					}
					look := func() { shown[kernel] = append(shown[kernel], linkFacts(t, o, names...)) }
					mount(kernel)
					single := lstat(t, o.path("d/single")).Ino
					look()
					appendTo(t, o.path("d/f"), "+")
					appendTo(t, o.path("d/single"), "+")
					look()
					for _, other := range []bool{kernel, !kernel, kernel} {
						check(t, o.tryUnmount())
						o.expectEnd()
						mount(other)
						look()
						if ino := lstat(t, o.path("d/single")).Ino; c.one && ino != single {
							t.Errorf("kernel %v after %v: the number of a copy is %d, and was %d", other, kernel, ino, single)
						}
					}
					appendTo(t, o.path("e/h"), "-")
					check(t, os.Remove(o.path("d/g")))
					shown[kernel] = append(shown[kernel], linkFacts(t, o, "d/f", "e/h"))
					check(t, o.tryUnmount())
					o.expectEnd()
					if log, _ := os.ReadFile(o.log); !kernel && strings.Contains(string(log), "falling back to index=off") == c.one {
						t.Errorf("one object %v, and the log is %q", c.one, log)
					}
				}
				equal(t, "what is shown", strings.Join(shown[false], "\n"), strings.Join(shown[true], "\n"))
				if want := "e/h: the same object true, links 3, \"text0+\""; strings.Contains(shown[true][1], want) != c.one {
					t.Errorf("the kernel shows %q: nothing is tested", shown[true][1])
				}
			})
		}
	})
}
