package view

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

func TestDeletedStaysDeleted(t *testing.T) {
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t,
			"file a \"1\"\nfile d/f \"1\"\nfile d/sub/g \"1\"\nfile t/x \"1\"",
			"file a \"2\"\nfile b \"2\"\nfile d/f \"2\"\nfile d/h \"2\"\nfile d/sub/i \"2\"\nfile t/y \"2\"\nfile k/l \"2\"")
		for _, name := range []string{"a", "b", "d/f", "d/sub", "k/l"} {
			harness.Check(t, os.RemoveAll(o.Path(name)))
		}
		harness.Check(t, os.RemoveAll(o.Path("t")))
		harness.Check(t, os.MkdirAll(o.Path("t/z"), 0o755))
		harness.Write(t, o.Path("b"), "new")
		harness.Check(t, os.Remove(o.Path("b")))
		want := "file d/h \"2\"\ndir t/z\ndir k"
		for range 3 {
			harness.WantTree(t, "merged", o.Point, want)
			for _, name := range []string{"a", "b", "d/f", "d/sub", "k/l", "t/x", "t/y"} {
				harness.WantAbsent(t, o.Path(name))
			}
			o.Remount()
		}
		harness.Check(t, os.Mkdir(o.Path("d/sub"), 0o755))
		harness.Check(t, os.Remove(o.Path("k")))
		harness.Check(t, os.Mkdir(o.Path("k"), 0o755))
		want = "file d/h \"2\"\ndir d/sub\ndir t/z\ndir k"
		o.Remount()
		harness.WantTree(t, "merged", o.Point, want)
	})
}

// The kernel shows the same tree of an upper that the program has written, and the program of one
// that the kernel has written.
func TestUpperIsTheKernels(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.RootModes, func(t *testing.T, e *harness.Env) {
		for _, first := range []string{"ours", "kernel"} {
			t.Run("written by "+first, func(t *testing.T) {
				o := harness.NewEnv(t, e.Mode).Overlay(t, harness.BusyTree)
				o.Kernel = first == "kernel"
				o.Mount()
				harness.Shell(t, o.Point, harness.Busywork)
				want, err := harness.Snapshot(o.Point, harness.ExactView)
				harness.Check(t, err)
				o.Unmount()
				for _, kernel := range []bool{true, false} {
					o.Kernel = kernel
					o.Mount()
					got, err := harness.Snapshot(o.Point, harness.ExactView)
					harness.Check(t, err)
					if d := harness.DiffLines(want, got); d != "" {
						t.Errorf("mounted by the kernel %v:\n%s", kernel, d)
					}
					o.Unmount()
				}
			})
		}
	})
}

// chown -R changes all owners. It changes no content, no hole and not the lower.
func TestChownRecursive(t *testing.T) {
	harness.EachMode(t, harness.RootModes, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, kinds(e.Mode)+"\nfile sparse \"x\"\nsize sparse 67108864\nfile a/b/c/d \"deep\"")
		o.Mount()
		harness.Shell(t, o.Point, "chown -hR 1234:4321 .")
		for range 2 {
			v := harness.FullView
			want, err := harness.Snapshot(o.Lowers[0], v)
			harness.Check(t, err)
			got, err := harness.Snapshot(o.Point, v)
			harness.Check(t, err)
			delete(want, ".")
			delete(got, ".")
			for p, line := range want {
				want[p] = strings.Replace(line, " own 0:0", " own 1234:4321", 1)
				if strings.Contains(p, "hard") {
					delete(want, p) // links may be broken, see TestFaultTwoLowerHardLinksAppend
					delete(got, p)
				}
			}
			if d := harness.DiffLines(want, got); d != "" {
				t.Errorf("after chown -R:\n%s", d)
			}
			o.Remount()
		}
		if st := harness.Lstat(t, filepath.Join(o.Upper, "sparse")); st.Blocks > 5000 {
			t.Errorf("the sparse file has %d blocks in the upper", st.Blocks)
		}
		harness.Equal(t, "the lower's owner", harness.Lstat(t, filepath.Join(o.Lowers[0], "file")).Uid, 0)
	})
}

func TestHardLinks(t *testing.T) {
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, "file low \"x\"")
		harness.Write(t, o.Path("a"), "one")
		for _, name := range []string{"b", "c"} {
			harness.Check(t, os.Link(o.Path("a"), o.Path(name)))
		}
		harness.Check(t, os.Mkdir(o.Path("d"), 0o755))
		harness.Check(t, os.Link(o.Path("low"), o.Path("d/low2")))
		harness.AppendTo(t, o.Path("b"), "+two")
		harness.Check(t, os.Chmod(o.Path("c"), 0o600))
		harness.AppendTo(t, o.Path("d/low2"), "+")
		for range 2 {
			for _, name := range []string{"a", "b", "c"} {
				harness.WantText(t, o.Path(name), "one+two")
				st := harness.Lstat(t, o.Path(name))
				harness.Equal(t, name, fmt.Sprintf("%o %d %d", st.Mode&0o777, st.Nlink, st.Ino),
					fmt.Sprintf("600 3 %d", harness.Lstat(t, o.Path("a")).Ino))
			}
			harness.WantText(t, o.Path("low"), "x+")
			harness.Equal(t, "nlink of low", harness.Lstat(t, o.Path("low")).Nlink, 2)
			o.Remount()
		}
		harness.Check(t, os.Remove(o.Path("a")))
		harness.Equal(t, "nlink after a removal", harness.Lstat(t, o.Path("b")).Nlink, 2)
		harness.Check(t, os.Rename(o.Path("b"), o.Path("c"))) // the same object: nothing happens
		harness.WantNames(t, o.Point, "b", "c", "d", "low")
		harness.WantErr(t, "link of a directory", os.Link(o.Path("d"), o.Path("d2")), syscall.EPERM)
	})
}
