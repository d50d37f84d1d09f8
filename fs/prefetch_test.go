package fs

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// reading is a kernel that lists d and reads files of it, and an idle reader that uses the time
// between.
type reading struct {
	*site
	dir uint64
	ids map[string]uint64
}

func newReading(t *testing.T, upper string, lowers ...string) *reading {
	t.Helper()
	s := newSite(t, upper, lowers...)
	dir, err := s.walk("d")
	must(t, err)
	r := &reading{site: s, dir: dir, ids: map[string]uint64{}}
	entries, err := s.list(dir, 4096)
	must(t, err)
	for _, e := range entries {
		r.ids[e.name] = e.entry.NodeId
		if e.entry.NodeId == 0 && e.name != "." && e.name != ".." { // without attributes
			entry, err := s.lookup(dir, e.name)
			must(t, err)
			r.ids[e.name] = entry.NodeId
		}
	}
	return r
}

// read reads a file as the kernel does, uses the time, and reports whether that called the layer.
func (r *reading) read(name, want string) (asked bool) {
	r.t.Helper()
	made := calls(func() {
		got, err := r.readNode(r.ids[name], 0, 8192)
		if err != nil || got != want {
			r.t.Errorf("%s: %q, %v; want %q", name, got, err, want)
		}
	})
	for r.o.prefetch.readNext(&r.o.access) {
	}
	return len(made) > 0
}

func letters(from, to byte) string {
	var table strings.Builder
	for c := from; c <= to; c++ {
		fmt.Fprintf(&table, "file d/%c \"text of %c\"\n", c, c)
	}
	return table.String()
}

// inOrder are the files of d as they are listed.
func (r *reading) inOrder() []string {
	r.t.Helper()
	entries, err := r.list(r.dir, 4096)
	must(r.t, err)
	var names []string
	for _, e := range entries {
		if len(e.name) == 1 && e.name != "." {
			names = append(names, e.name)
		}
	}
	return names
}

func TestFilesReadInOrderAreReadAhead(t *testing.T) {
	r := newReading(t, "", letters('a', 'd'), letters('e', 'h'))
	for i, name := range r.inOrder() {
		if asked := r.read(name, "text of "+name); asked != (i < 2) {
			t.Errorf("file %d, %s: the layer was asked: %v", i, name, asked)
		}
	}
}

// The first file of a directory is read when the directory has been listed.
func TestAWalkReadsAheadFromDirectoryToDirectory(t *testing.T) {
	r := newReading(t, "", letters('a', 'd')+"file e/x \"text of x\"")
	for _, name := range r.inOrder() {
		r.read(name, "text of "+name)
	}
	e, err := r.walk("e")
	must(t, err)
	if _, err := r.list(e, 4096); err != nil {
		t.Fatal(err)
	}
	r.ids["x"], err = r.walk("e/x")
	must(t, err)
	for r.o.prefetch.readNext(&r.o.access) {
	}
	if r.read("x", "text of x") {
		t.Error("the first file of the next directory was not read ahead")
	}
}

func TestFilesReadAnyhowAreNot(t *testing.T) {
	r := newReading(t, "", letters('a', 'h'))
	in := r.inOrder()
	for _, i := range []int{0, 2, 7, 5, 3, 1} {
		if !r.read(in[i], "text of "+in[i]) {
			t.Errorf("file %d was prefetched", i)
		}
		if r.o.prefetch.filled {
			t.Errorf("after file %d another was read", i)
		}
	}
}

// A walk over small directories has its files prefetched. Reads of one file here and one there have
// not.
func TestPrefetchOverDirectories(t *testing.T) {
	f := prefetcher{}
	dirs := []*Node{{}, {}}
	file := func(dir, i int) *Node { return &Node{parent: dirs[dir], name: fmt.Sprint(i), layer: 1} }
	read := func(n *Node, right bool) int {
		if right {
			f.next = n
		} else {
			f.next = &Node{}
		}
		f.take(n, nil)
		return f.confidence
	}
	for i, tt := range []struct {
		dir   int
		right bool
		sure  int
	}{
		{0, false, 0}, {0, true, 1}, {0, true, 2}, {0, true, 3}, {0, true, 3}, {1, false, 2}, {1, true, 3},
		{0, false, 2}, {1, false, 1}, {0, false, 0}, {1, false, 0}, {1, true, 1}, {1, false, 0},
	} {
		if got := read(file(tt.dir, i), tt.right); got != tt.sure {
			t.Errorf("step %d: sure %d, want %d", i, got, tt.sure)
		}
	}
}

// A change between the reading ahead and the READ is seen.
func TestReadAheadNeverShowsWhatWas(t *testing.T) {
	for what, change := range map[string]func(r *reading, name string) (want string){
		"write": func(r *reading, name string) string {
			r.do(r.write("d/"+name, 0, "TEXT"))
			return "TEXT of " + name
		},
		"truncation": func(r *reading, name string) string {
			r.do(r.truncate("d/"+name, 4))
			return "text"
		},
		"removal of the name": func(r *reading, name string) string {
			r.do(r.unlink("d/" + name))
			return "text of " + name
		},
		"removal and a write": func(r *reading, name string) string {
			r.do(r.unlink("d/" + name))
			must(r.t, r.writeNode(r.ids[name], 0, "TEXT"))
			return "TEXT of " + name
		},
		"rename": func(r *reading, name string) string {
			r.do(r.rename("d/"+name, "d/other", 0))
			r.do(r.write("d/other", 0, "TEXT"))
			return "TEXT of " + name
		},
		"another under the name": func(r *reading, name string) string {
			r.do(r.rename("d/big", "d/"+name, unix.RENAME_EXCHANGE))
			return "text of " + name
		},
	} {
		t.Run(what, func(t *testing.T) {
			r := newReading(t, "", letters('a', 'h')+"file d/big another")
			in := r.inOrder()
			for _, name := range in[:3] {
				r.read(name, "text of "+name)
			}
			if !r.o.prefetch.filled {
				t.Fatal("nothing was read ahead")
			}
			r.read(in[3], change(r, in[3]))
		})
	}
}

// Files of the upper change, and large ones are not read whole: they are not read ahead.
func TestWhatIsNotPrefetched(t *testing.T) {
	r := newReading(t, letters('a', 'h'), "dir d")
	for _, name := range r.inOrder() {
		if !r.read(name, "text of "+name) {
			t.Errorf("%s, of the upper, was prefetched", name)
		}
	}
	large := strings.Repeat("x", maxPrefetch)
	r = newReading(t, "", fmt.Sprintf("file d/a %[1]s\nfile d/b %[1]s\nfile d/c %[1]s\nfile d/d %[1]s", large))
	for _, name := range r.inOrder() {
		if !r.read(name, large[:8192]) {
			t.Errorf("%s, which is large, was prefetched", name)
		}
	}
}

// An error of a prefetch is dropped. The READ returns its own, if there is one then.
func TestErrorsOfPrefetching(t *testing.T) {
	for _, call := range []string{"openat", "pread64"} {
		r := newReading(t, "", letters('a', 'h'))
		in := r.inOrder()
		r.read(in[0], "text of "+in[0])
		if _, err := r.readNode(r.ids[in[1]], 0, 8192); err != nil {
			t.Fatal(err)
		}
		failed := 0
		sys.SetFault(func(op sys.Op) error {
			if op.Call == call {
				failed++
				return unix.EIO
			}
			return nil
		})
		for r.o.prefetch.readNext(&r.o.access) {
		}
		sys.SetFault(nil)
		if failed != 1 || r.o.prefetch.filled {
			t.Errorf("%s: failed %d times, something was read: %v", call, failed, r.o.prefetch.filled)
		}
		if !r.read(in[2], "text of "+in[2]) {
			t.Errorf("%s: the layer was not asked again", call)
		}
	}
}

// A panic during a prefetch does not affect later requests.
func TestPanicMeanwhile(t *testing.T) {
	r := newReading(t, "", letters('a', 'h'))
	in := r.inOrder()
	for _, name := range in[:2] {
		if _, err := r.readNode(r.ids[name], 0, 8192); err != nil {
			t.Fatal(err)
		}
		sys.SetFault(func(op sys.Op) error {
			if name == in[1] && op.Call == "openat" {
				panic("a fault")
			}
			return nil
		})
		idle := func() (done bool) {
			defer func() { _ = recover() }() // as the connection does
			return r.o.Idle()
		}
		for idle() {
		}
		sys.SetFault(nil)
	}
	r.read(in[2], "text of "+in[2])
	r.do(r.write("d/"+in[3], 0, "TEXT"))
}
