package format

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
)

const (
	keepLinks = "index=on"
	linksTree = "file a/one 0640 \"one\"\nlink a/two a/one\nlink b/three a/one\nfile b/x \"x\"\nlink b/y b/x\nfile d/r \"r\"\nlink d/s d/r\n" +
		"file d/only \"only\"\nsymlink c/l nowhere\nlink c/m c/l\nfile e/g \"g\"\nlink e/h e/g\nlink e/i e/g\nfile e/j \"j\"\nlink e/k e/j"
)

// linkSteps are changes through names of linked lower files. None of them separates a name from the
// others.
var linkSteps = []struct {
	what string
	do   func(o *harness.Overlay) error
}{
	{"write", func(o *harness.Overlay) error { return appendText(o.Path("a/one"), "+") }},
	{"write through another name", func(o *harness.Overlay) error { return appendText(o.Path("b/three"), "-") }},
	{"chmod", func(o *harness.Overlay) error { return os.Chmod(o.Path("a/two"), 0o600) }},
	{"remove a name that was not changed through", func(o *harness.Overlay) error { return os.Remove(o.Path("a/two")) }},
	{"write through the one left", func(o *harness.Overlay) error { return appendText(o.Path("b/three"), "!") }},
	{"remove a name of what is in lowers alone", func(o *harness.Overlay) error { return os.Remove(o.Path("b/x")) }},
	{"write to the other", func(o *harness.Overlay) error { return appendText(o.Path("b/y"), "+") }},
	{"rename", func(o *harness.Overlay) error { return os.Rename(o.Path("d/r"), o.Path("b/r")) }},
	{"rename over a name", func(o *harness.Overlay) error { return os.Rename(o.Path("d/only"), o.Path("d/s")) }},
	{"a further name", func(o *harness.Overlay) error { return os.Link(o.Path("a/one"), o.Path("d/four")) }},
	{"a further name of what is in lowers alone", func(o *harness.Overlay) error {
		return os.Link(o.Path("c/l"),
			o.Path("c/n"))
	}},
	{"lchown", func(o *harness.Overlay) error { return os.Lchown(o.Path("c/m"), 7, 7) }},
	{"exchange", func(o *harness.Overlay) error {
		return unix.Renameat2(unix.AT_FDCWD, o.Path("e/g"), unix.AT_FDCWD, o.Path("e/j"), unix.RENAME_EXCHANGE)
	}},
	{"write after it", func(o *harness.Overlay) error { return appendText(o.Path("e/h"), "h") }},
	{"remove", func(o *harness.Overlay) error { return os.Remove(o.Path("e/h")) }},
	{"remove another", func(o *harness.Overlay) error { return os.Remove(o.Path("e/i")) }},
	{"remove the last", func(o *harness.Overlay) error { return os.Remove(o.Path("e/j")) }},
	{"remove the last of another", func(o *harness.Overlay) error { return os.Remove(o.Path("b/y")) }},
}

func appendText(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	if _, err = f.WriteString(text); err != nil {
		return err
	}
	return f.Close()
}

// describeLinks describes the object of each name: number, links, size, mode, owner, text.
func describeLinks(t *testing.T, root string) map[string]string {
	t.Helper()
	if faults := harness.IdentityFaults(root); faults != "" {
		t.Error(faults)
	}
	all := map[string]string{}
	harness.Check(t, filepath.WalkDir(root, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		st := harness.Lstat(t, path)
		text := ""
		if st.Mode&unix.S_IFMT == unix.S_IFREG {
			text = harness.ReadText(t, path)
		}
		all[strings.TrimPrefix(path, root)] = fmt.Sprintf("%#x %d %d %o %d %q", st.Ino, st.Nlink, st.Size, st.Mode, st.Uid,
			text)
		return nil
	}))
	return all
}

// indexOf are the names in the index of an upper, without what the kernel keeps there while
// mounted.
func indexOf(t *testing.T, o *harness.Overlay) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(o.Work, "index"))
	harness.Check(t, err)
	var names []string
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), "#") {
			names = append(names, e.Name())
		}
	}
	return names
}

// Linked lower files stay one object, whichever name a change comes through, as in the kernel's
// overlayfs. After each step both show the same tree of the same upper, and each continues with
// what the other has written.
func TestLinksAndTheKernel(t *testing.T) {
	harness.NeedDaemon(t)
	for _, c := range []struct{ upper, lower, more string }{
		{"ext4", "", ""}, {"xfs", "", ""}, {"btrfs", "", ""}, {"xfs", "ext4", ""}, {"ext4", "", "metacopy=on"},
	} {
		for _, turns := range []string{"here", "kernel", "both"} {
			t.Run(fmt.Sprint(c, " written ", turns), func(t *testing.T) {
				harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
					two := [2]*harness.Overlay{}
					disk := testkit.MountImage(t, c.upper, "loop")
					below := disk
					if c.lower != "" {
						below = testkit.MountImage(t, c.lower, "loop")
					}
					options := "index=on,metacopy=off,xino=on,redirect_dir=off"
					if c.more != "" {
						options = "index=on,xino=on,redirect_dir=on," + c.more
					}
					for i, name := range []string{"tried", "model"} {
						o := e.Overlay(t)
						o.Lowers, o.Point = []string{filepath.Join(below, name, "lower")}, filepath.Join(e.Dir, name)
						o.Upper, o.Work = filepath.Join(disk, name, "upper"), filepath.Join(disk, name, "work")
						harness.Mkdir(t, o.Lowers[0], o.Upper, o.Work, o.Point)
						harness.Build(t, e, o.Lowers[0], linksTree)
						o.Opts = append(o.Opts, keepLinks)
						if c.more != "" {
							o.Opts = append(o.Opts, c.more)
						}
						two[i] = o
					}
					tried, model := two[0], two[1]
					mount := map[string]func(){"here": tried.Mount,
						"kernel": func() { harness.Check(t, tried.MountKernelWith(options)) }}
					harness.Check(t, model.MountKernelWith(options))
					for i, step := range linkSteps {
						by := turns
						if turns == "both" {
							by = []string{"here", "kernel"}[i%2]
						}
						mount[by]()
						harness.Check(t, step.do(tried))
						harness.Check(t, step.do(model))
						want := withoutNumbers(describeLinks(t, model.Point))
						wantNumbers(t, step.what+", by "+by, withoutNumbers(describeLinks(t, tried.Point)), want)
						same := describeLinks(t, tried.Point)
						tried.Unmount()
						for _, then := range []string{"kernel", "here"} {
							mount[then]()
							wantNumbers(t, step.what+", by "+by+", then "+then, describeLinks(t, tried.Point), same)
							tried.Unmount()
						}
						harness.Equal(t, step.what+": entries in the index", len(indexOf(t, tried)), len(indexOf(t, model)))
						if t.Failed() {
							return
						}
					}
					model.Unmount()
				})
			})
		}
	}
}

func withoutNumbers(of map[string]string) map[string]string {
	rest := map[string]string{}
	for path, text := range of {
		_, rest[path], _ = strings.Cut(text, " ")
	}
	return rest
}

// Names stay one object, before and after a remount, also in a user namespace: every user can read
// handles, and that is enough.
func TestLinksStay(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.RootModes, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "file a/one \"one\"\nlink b/two a/one\nlink b/three a/one\nfile c/f 0400 \"f\"\nlink c/g c/f",
			"file a/x\nfile b/y")
		o.Opts = append(o.Opts, keepLinks)
		o.Mount()
		was := harness.Lstat(t, o.Path("a/one"))
		harness.Equal(t, "links", was.Nlink, 3)
		f, err := os.Open(o.Path("b/two"))
		harness.Check(t, err)
		harness.AppendTo(t, o.Path("a/one"), "+")
		buf := make([]byte, 9)
		n, err := f.ReadAt(buf, 0)
		harness.Equal(t, "through a file that was open", string(buf[:n]), "one+")
		harness.Check(t, f.Close())
		if err == nil {
			t.Error("more than there is was read")
		}
		for range 3 {
			for _, name := range []string{"b/three", "a/one", "b/two"} {
				now := harness.Lstat(t, o.Path(name))
				harness.WantText(t, o.Path(name), "one+")
				harness.Equal(t, name, fmt.Sprint(now.Ino, now.Nlink, now.Mtim),
					fmt.Sprint(was.Ino, 3, harness.Lstat(t, o.Path("a/one")).Mtim))
			}
			o.Remount()
		}
		harness.Check(t, os.Remove(o.Path("a/one")))
		harness.Check(t, os.Rename(o.Path("b/two"), o.Path("c/two")))
		harness.AppendTo(t, o.Path("b/three"), "-")
		for range 2 {
			for _, name := range []string{"b/three", "c/two"} {
				harness.WantText(t, o.Path(name), "one+-")
				harness.Equal(t, "links of "+name, harness.Lstat(t, o.Path(name)).Nlink, 2)
			}
			harness.Equal(t, "numbers", harness.Lstat(t, o.Path("c/two")).Ino, harness.Lstat(t, o.Path("b/three")).Ino)
			o.Remount()
		}
		harness.Check(t, os.Remove(o.Path("c/two")))
		harness.Check(t, os.Remove(o.Path("b/three")))
		harness.Equal(t, "entries in the index", len(indexOf(t, o)), 0)
		// A process that has a file open can use it after its last name is removed.
		f, err = os.OpenFile(o.Path("c/f"), os.O_RDWR, 0)
		harness.Check(t, err)
		harness.Check(t, os.Remove(o.Path("c/f")))
		harness.Check(t, os.Remove(o.Path("c/g")))
		_, err = f.WriteString("G")
		harness.Check(t, err)
		harness.Equal(t, "links", harness.Fstat(t, f).Nlink, 0)
		harness.Check(t, f.Close())
	})
}

// A plain user may not set xattrs of an own file without write permission. So links are broken,
// with a line in the log.
func TestLinksOfPlainUsers(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, []harness.Mode{harness.ModeFusermount}, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "file a/one \"one\"\nlink b/two a/one")
		o.Opts = append(o.Opts, keepLinks)
		o.Mount()
		harness.AppendTo(t, o.Path("a/one"), "+")
		harness.WantText(t, o.Path("b/two"), "one")
		o.Remount()
		harness.WantText(t, o.Path("a/one"), "one+")
		if log := harness.ReadText(t, o.Log); !strings.Contains(log, "index=off") {
			t.Errorf("no line in the log:\n%s", log)
		}
	})
}

// An upper with an index belongs to its first lower, and the index to the upper, whether the
// program or the kernel has made it.
func TestIndexBelongs(t *testing.T) {
	harness.NeedDaemon(t)
	for _, first := range []string{"here", "kernel"} {
		t.Run(first, func(t *testing.T) {
			harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
				o := e.Overlay(t, "file a/f\nlink a/g a/f", "file x")
				o.Opts = append(o.Opts, keepLinks)
				lowers := o.Lowers
				mount := func(by string) error {
					if by == "here" {
						_, err := o.TryMount()
						return err
					}
					return o.MountKernelWith("index=on")
				}
				o.Lowers = lowers[:1]
				harness.Check(t, mount(first))
				harness.AppendTo(t, o.Path("a/f"), "+")
				harness.Check(t, harness.UnmountAt(o.Point))
				o.WaitEnd()
				upper := o.Upper
				for _, by := range []string{"here", "kernel"} {
					o.Lowers = lowers[1:]
					if err := mount(by); err == nil {
						t.Errorf("made by %s, another lower is accepted by %s", first, by)
					}
					o.Lowers, o.Upper = lowers[:1], upper+"2"
					harness.Check(t, os.MkdirAll(o.Upper, 0o755))
					if err := mount(by); err == nil {
						t.Errorf("made by %s, another upper is accepted by %s", first, by)
					}
					o.Lowers, o.Upper = lowers, upper
					harness.Check(t, mount(by))
					harness.WantText(t, o.Path("a/g"), "+")
					harness.Check(t, harness.UnmountAt(o.Point))
					o.WaitEnd()
				}
			})
		})
	}
}
