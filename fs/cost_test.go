package fs

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
)

func names(ops []sys.Op) []string {
	var out []string
	for _, op := range ops {
		out = append(out, op.Call)
	}
	return out
}

// Once a directory is indexed, looking a name up costs the same with any number of layers, and a
// missing name nothing.
func TestLookupCostsTheSameWithAnyNumberOfLayers(t *testing.T) {
	costs := map[string][]string{}
	for _, layers := range []int{1, 8, 128} {
		lowers := slices.Repeat([]string{"file d/other"}, layers)
		lowers[layers-1] += "\nfile d/first\nfile d/second\ndir d/dir"
		s := newSite(t, "", lowers...)
		dir, err := s.walk("d")
		must(t, err)
		if _, err := s.list(dir, 4096); err != nil {
			t.Fatal(err)
		}
		s.forget(func(id uint64) bool { return id != dir }) // so that nodes are made anew
		look := func(name string, wanted error) func() {
			return func() { _, err := s.lookup(dir, name); want(t, name, err, wanted) }
		}
		looks := map[string]func(){"new name": look("first", nil), "missing name": look("none", unix.ENOENT)}
		for what, f := range looks {
			made := names(calls(f))
			if known, ok := costs[what]; ok && !slices.Equal(known, made) {
				t.Errorf("%s with %d layers: %v; with fewer: %v", what, layers, made, known)
			}
			costs[what] = made
		}
		if made := names(calls(look("first", nil))); !slices.Equal(made, []string{"fstatat"}) {
			t.Errorf("%d layers: a known name again costs %v", layers, made)
		}
	}
	if len(costs["missing name"]) != 0 {
		t.Errorf("a missing name costs %v", costs["missing name"])
	}
	if made := costs["new name"]; !slices.Equal(made, []string{"fstatat"}) {
		t.Errorf("a name costs %v", made)
	}
}

// One name in a large directory of several layers is found without a listing, until the directory
// is changed or more of its names are looked up.
func TestOneNameInALargeDirectory(t *testing.T) {
	lowers := make([]string, 3)
	for i := range lowers {
		for k := range 400 { // 40 KiB of names each, and 100 on btrfs
			lowers[i] += fmt.Sprintf("file d/%s-%d-%d\n", strings.Repeat("n", 80), i, k)
		}
	}
	lowers[1] += "file d/x \"1\"\n"
	lowers[2] += "file d/x \"2\"\n"
	s := newSite(t, "", lowers...)
	var st sys.Stat
	listed := func(f func()) bool {
		return slices.ContainsFunc(calls(f), func(op sys.Op) bool { return strings.HasPrefix(op.Call, "getdents") })
	}
	must(t, s.o.stack.Root(1).At("d").Stat(&st))
	flat := st.Nlink == 2 && st.Size >= 22<<10 // if the file system counts so
	if listed(func() {
		if text, err := s.read("d/x"); err != nil || text != "1" {
			t.Errorf("d/x reads %q, %v", text, err)
		}
		_, err := s.walk("d/none")
		want(t, "d/none", err, unix.ENOENT)
	}) == flat {
		t.Errorf("listed is %v for two names of 1,200, %d bytes", !flat, st.Size)
	}
	links := func(wanted uint32) {
		t.Helper()
		id, err := s.walk("d")
		must(t, err)
		if a, err := s.getattr(id); err != nil || a.Nlink != wanted {
			t.Errorf("d has %d links, want %d (%v)", a.Nlink, wanted, err)
		}
	}
	links(2)
	if !listed(func() { must(t, s.mkdir("d/sub", 0o755)()) }) && flat {
		t.Error("not listed to be changed")
	}
	links(3)
	must(t, s.unlink("d/x")())
	_, err := s.walk("d/x")
	want(t, "d/x, removed", err, unix.ENOENT)
}

func TestFiveHundredLowersServe(t *testing.T) {
	const layers = 500
	var lowers []string
	for i := range layers {
		lowers = append(lowers, fmt.Sprintf("file own%d \"%d\"\nfile all \"%d\"\nfile d/%d", i, i, i, i))
	}
	lowers[1] += "\nwhite own7\nfile d/.wh.9"
	s := newSite(t, "file d/upper", lowers...)
	root, err := s.list(1, 64<<10)
	must(t, err)
	d, err := s.walk("d")
	must(t, err)
	inside, err := s.list(d, 64<<10)
	must(t, err)
	if len(root) != layers-1+2+2 || len(inside) != layers-1+1+2 {
		t.Errorf("%d names in the root, %d in d", len(root), len(inside))
	}
	for _, i := range []int{0, 1, 250, 499} {
		if text, err := s.read(fmt.Sprint("own", i)); err != nil || text != fmt.Sprint(i) {
			t.Errorf("own%d reads %q, %v", i, text, err)
		}
	}
	s.do(s.write("own499", 0, "new"))
	s.do(s.unlink("all"))
	testkit.Want(t, "the upper", s.cfg.Upper, "file d/upper\nfile own499 \"new\"\nwhite all")
}

// What a request may cost on a lower file of a terabyte: not its data.
func TestRequestsThatCopyNoData(t *testing.T) {
	for what, send := range map[string]func(s *site) request{
		"truncate to nothing": func(s *site) request { return s.truncate("d/f", 0) },
		"unlink":              func(s *site) request { return s.unlink("d/f") },
		"replace": func(s *site) request {
			s.do(s.mknod("d/new", unix.S_IFREG|0o644, 0))
			return s.rename("d/new", "d/f", 0)
		},
	} {
		s := newSite(t, "", "file d/f \"head\"\nsize d/f 1000000000000\nown d/f 1 2")
		r := send(s)
		for _, op := range calls(func() { s.do(r) }) {
			switch op.Call {
			case "pread64", "copy_file_range", "ioctl", "lseek":
				t.Errorf("%s makes a call %s", what, op.Call)
			}
		}
		s.wantEmptyWork(what)
	}
}

// Removing what only a lower has is one whiteout, a link of the device that the first removal has
// made; the object is not copied up.
func TestRemovingALowerObjectCopiesNothing(t *testing.T) {
	changes := []string{"mknodat", "mkdirat", "symlinkat", "linkat", "renameat", "renameat2", "setxattr", "fchownat", "pwrite64"}
	s := newSite(t, "dir d", "file d/f \"text\"\ndir d/e\nsymlink d/l x\nfile d/first")
	s.do(s.unlink("d/first"))
	for name, send := range map[string]func(string) request{"f": s.unlink, "e": s.rmdir, "l": s.unlink} {
		r := send("d/" + name)
		made := slices.DeleteFunc(calls(func() { s.do(r) }), func(op sys.Op) bool { return !slices.Contains(changes, op.Call) })
		if len(made) != 1 || made[0].Call != "linkat" || made[0].Name != name {
			t.Errorf("removing %s: %v", name, made)
		}
	}
	testkit.Want(t, "the upper", s.cfg.Upper, "dir d\nwhite d/f\nwhite d/e\nwhite d/first\nwhite d/l")
}

// A file that was written to, or made, and a directory with something new in it are reached by the
// descriptors that are left of that, not by their names.
func TestWhatWasWrittenIsReachedByItsDescriptor(t *testing.T) {
	s := newSite(t, "", "file d/f \"text\"")
	s.do(s.write("d/f", 0, "TEXT"))
	s.do(s.mknod("d/new", unix.S_IFREG|0o644, 0))
	for _, p := range []string{"d/f", "d/new", "d"} {
		id, err := s.walk(p)
		must(t, err)
		made := calls(func() {
			in := fuse.SetAttrInCommon{InHeader: s.header(id), Valid: fuse.FATTR_MODE | fuse.FATTR_MTIME, Mode: 0o700, Mtime: 7}
			must(t, errorOf(s.o.SetAttr(nil, &fuse.SetAttrIn{SetAttrInCommon: in}, &fuse.AttrOut{})))
		})
		for _, op := range made {
			if op.Name == path.Base(p) {
				t.Errorf("%s: %s by name", p, op.Call)
			}
		}
	}
	s.wantView("changed", "dir d 0700\nfile d/f 0700 \"TEXT\"\nfile d/new 0700")
}
