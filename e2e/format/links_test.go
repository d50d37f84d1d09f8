package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const (
	keepLinks = "index=on"
	linksTree = "file a/one 0640 \"one\"\nlink a/two a/one\nlink b/three a/one\nfile b/x \"x\"\nlink b/y b/x\nfile d/r \"r\"\nlink d/s d/r\n" +
		"file d/only \"only\"\nsymlink c/l nowhere\nlink c/m c/l\nfile e/g \"g\"\nlink e/h e/g\nlink e/i e/g\nfile e/j \"j\"\nlink e/k e/j"
)

// linkSteps are changes through names of linked lower files, each of which leaves all other names what they were.
var linkSteps = []struct {
	what string
	do   func(o *overlay) error
}{
	{"write", func(o *overlay) error { return appendText(o.path("a/one"), "+") }},
	{"write through another name", func(o *overlay) error { return appendText(o.path("b/three"), "-") }},
	{"chmod", func(o *overlay) error { return os.Chmod(o.path("a/two"), 0o600) }},
	{"remove a name that was not changed through", func(o *overlay) error { return os.Remove(o.path("a/two")) }},
	{"write through the one left", func(o *overlay) error { return appendText(o.path("b/three"), "!") }},
	{"remove a name of what is in lowers alone", func(o *overlay) error { return os.Remove(o.path("b/x")) }},
	{"write to the other", func(o *overlay) error { return appendText(o.path("b/y"), "+") }},
	{"rename", func(o *overlay) error { return os.Rename(o.path("d/r"), o.path("b/r")) }},
	{"rename over a name", func(o *overlay) error { return os.Rename(o.path("d/only"), o.path("d/s")) }},
	{"a further name", func(o *overlay) error { return os.Link(o.path("a/one"), o.path("d/four")) }},
	{"a further name of what is in lowers alone", func(o *overlay) error { return os.Link(o.path("c/l"), o.path("c/n")) }},
	{"lchown", func(o *overlay) error { return os.Lchown(o.path("c/m"), 7, 7) }},
	{"exchange", func(o *overlay) error {
		return unix.Renameat2(unix.AT_FDCWD, o.path("e/g"), unix.AT_FDCWD, o.path("e/j"), unix.RENAME_EXCHANGE)
	}},
	{"write after it", func(o *overlay) error { return appendText(o.path("e/h"), "h") }},
	{"remove", func(o *overlay) error { return os.Remove(o.path("e/h")) }},
	{"remove another", func(o *overlay) error { return os.Remove(o.path("e/i")) }},
	{"remove the last", func(o *overlay) error { return os.Remove(o.path("e/j")) }},
	{"remove the last of another", func(o *overlay) error { return os.Remove(o.path("b/y")) }},
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

// tellLinks tells of each name what it leads to: number, links, size, mode, owner, text.
func tellLinks(t *testing.T, root string) map[string]string {
	t.Helper()
	if faults := identityFaults(root); faults != "" {
		t.Error(faults)
	}
	all := map[string]string{}
	check(t, filepath.WalkDir(root, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		st := lstat(t, path)
		text := ""
		if st.Mode&unix.S_IFMT == unix.S_IFREG {
			text = readText(t, path)
		}
		all[strings.TrimPrefix(path, root)] = fmt.Sprintf("%#x %d %d %o %d %q", st.Ino, st.Nlink, st.Size, st.Mode, st.Uid, text)
		return nil
	}))
	return all
}

// indexOf are the names in the index of an upper, without what the kernel keeps there while mounted.
func indexOf(t *testing.T, o *overlay) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(o.work, "index"))
	check(t, err)
	var names []string
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), "#") {
			names = append(names, e.Name())
		}
	}
	return names
}

// Linked lower files stay one object, whichever name they are changed through, as in the kernel's overlayfs: after each step both
// show the same of the same uppers, and what one has written the other goes on with.
func TestLinksAndTheKernel(t *testing.T) {
	needDaemon(t)
	for _, c := range []struct{ upper, lower, more string }{
		{"ext4", "", ""}, {"xfs", "", ""}, {"btrfs", "", ""}, {"xfs", "ext4", ""}, {"ext4", "", "metacopy=on"},
	} {
		for _, turns := range []string{"here", "kernel", "both"} {
			t.Run(fmt.Sprint(c, " written ", turns), func(t *testing.T) {
				eachMode(t, onlyRoot, func(t *testing.T, e *env) {
					two := [2]*overlay{}
					disk := e.disk(t, c.upper)
					below := disk
					if c.lower != "" {
						below = e.disk(t, c.lower)
					}
					options := "index=on,metacopy=off,xino=on,redirect_dir=off"
					if c.more != "" {
						options = "index=on,xino=on,redirect_dir=on," + c.more
					}
					for i, name := range []string{"tried", "model"} {
						o := e.overlay(t)
						o.lowers, o.mnt = []string{filepath.Join(below, name, "lower")}, filepath.Join(e.dir, name)
						o.upper, o.work = filepath.Join(disk, name, "upper"), filepath.Join(disk, name, "work")
						mkdir(t, o.lowers[0], o.upper, o.work, o.mnt)
						build(t, e, o.lowers[0], linksTree)
						o.opts = append(o.opts, keepLinks)
						if c.more != "" {
							o.opts = append(o.opts, c.more)
						}
						two[i] = o
					}
					tried, model := two[0], two[1]
					mount := map[string]func(){"here": tried.mount, "kernel": func() { tried.mountKernelWith(options) }}
					model.mountKernelWith(options)
					for i, step := range linkSteps {
						by := turns
						if turns == "both" {
							by = []string{"here", "kernel"}[i%2]
						}
						mount[by]()
						check(t, step.do(tried))
						check(t, step.do(model))
						want := withoutNumbers(tellLinks(t, model.mnt))
						wantNumbers(t, step.what+", by "+by, withoutNumbers(tellLinks(t, tried.mnt)), want)
						same := tellLinks(t, tried.mnt)
						tried.unmount()
						for _, then := range []string{"kernel", "here"} {
							mount[then]()
							wantNumbers(t, step.what+", by "+by+", then "+then, tellLinks(t, tried.mnt), same)
							tried.unmount()
						}
						equal(t, step.what+": entries in the index", len(indexOf(t, tried)), len(indexOf(t, model)))
						if t.Failed() {
							return
						}
					}
					model.unmount()
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

// Names stay one object, here and after a remount, also in a user namespace: handles are told to everybody, and that is enough.
func TestLinksStay(t *testing.T) {
	needDaemon(t)
	eachMode(t, rootModes, func(t *testing.T, e *env) {
		o := e.overlay(t, "file a/one \"one\"\nlink b/two a/one\nlink b/three a/one\nfile c/f 0400 \"f\"\nlink c/g c/f", "file a/x\nfile b/y")
		o.opts = append(o.opts, keepLinks)
		o.mount()
		was := lstat(t, o.path("a/one"))
		equal(t, "links", was.Nlink, 3)
		f, err := os.Open(o.path("b/two"))
		check(t, err)
		appendTo(t, o.path("a/one"), "+")
		buf := make([]byte, 9)
		n, err := f.ReadAt(buf, 0)
		equal(t, "through a file that was open", string(buf[:n]), "one+")
		check(t, f.Close())
		if err == nil {
			t.Error("more than there is was read")
		}
		for range 3 {
			for _, name := range []string{"b/three", "a/one", "b/two"} {
				now := lstat(t, o.path(name))
				wantText(t, o.path(name), "one+")
				equal(t, name, fmt.Sprint(now.Ino, now.Nlink, now.Mtim), fmt.Sprint(was.Ino, 3, lstat(t, o.path("a/one")).Mtim))
			}
			o.remount()
		}
		check(t, os.Remove(o.path("a/one")))
		check(t, os.Rename(o.path("b/two"), o.path("c/two")))
		appendTo(t, o.path("b/three"), "-")
		for range 2 {
			for _, name := range []string{"b/three", "c/two"} {
				wantText(t, o.path(name), "one+-")
				equal(t, "links of "+name, lstat(t, o.path(name)).Nlink, 2)
			}
			equal(t, "numbers", lstat(t, o.path("c/two")).Ino, lstat(t, o.path("b/three")).Ino)
			o.remount()
		}
		check(t, os.Remove(o.path("c/two")))
		check(t, os.Remove(o.path("b/three")))
		equal(t, "entries in the index", len(indexOf(t, o)), 0)
		// A file that has lost its last name goes on for who has it open.
		f, err = os.OpenFile(o.path("c/f"), os.O_RDWR, 0)
		check(t, err)
		check(t, os.Remove(o.path("c/f")))
		check(t, os.Remove(o.path("c/g")))
		_, err = f.WriteString("G")
		check(t, err)
		equal(t, "links", fstat(t, f).Nlink, 0)
		check(t, f.Close())
	})
}

// A plain user may not change attributes of his own files that he may not write to, so links are broken, and the log says so.
func TestLinksOfPlainUsers(t *testing.T) {
	needDaemon(t)
	eachMode(t, []mode{modeFusermount}, func(t *testing.T, e *env) {
		o := e.overlay(t, "file a/one \"one\"\nlink b/two a/one")
		o.opts = append(o.opts, keepLinks)
		o.mount()
		appendTo(t, o.path("a/one"), "+")
		wantText(t, o.path("b/two"), "one")
		o.remount()
		wantText(t, o.path("a/one"), "one+")
		if log := readText(t, o.log); !strings.Contains(log, "index=off") {
			t.Errorf("the log says nothing of it:\n%s", log)
		}
	})
}

// An upper with an index belongs to its first lower, and the index to the upper, for this program and for the kernel's overlayfs,
// whichever has made it.
func TestIndexBelongs(t *testing.T) {
	needDaemon(t)
	for _, first := range []string{"here", "kernel"} {
		t.Run(first, func(t *testing.T) {
			eachMode(t, onlyRoot, func(t *testing.T, e *env) {
				o := e.overlay(t, "file a/f\nlink a/g a/f", "file x")
				o.opts = append(o.opts, keepLinks)
				lowers := o.lowers
				mount := func(by string) error {
					if by == "here" {
						_, err := o.tryMount()
						return err
					}
					data := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s,index=on", strings.Join(o.lowers, ":"), o.upper, o.work)
					return mountOverlayfs(o.mnt, 0, data)
				}
				o.lowers = lowers[:1]
				check(t, mount(first))
				appendTo(t, o.path("a/f"), "+")
				check(t, unmountAt(o.mnt))
				o.expectEnd()
				upper := o.upper
				for _, by := range []string{"here", "kernel"} {
					o.lowers = lowers[1:]
					if err := mount(by); err == nil {
						t.Errorf("made by %s, another lower is taken by %s", first, by)
					}
					o.lowers, o.upper = lowers[:1], upper+"2"
					check(t, os.MkdirAll(o.upper, 0o755))
					if err := mount(by); err == nil {
						t.Errorf("made by %s, another upper is taken by %s", first, by)
					}
					o.lowers, o.upper = lowers, upper
					check(t, mount(by))
					wantText(t, o.path("a/g"), "+")
					check(t, unmountAt(o.mnt))
					o.expectEnd()
				}
			})
		})
	}
}
