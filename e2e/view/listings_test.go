package view

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// reading is one listing in progress, by a descriptor of its own.
type reading struct {
	f    *os.File
	seen map[string]int
	must map[string]bool // names that have been there since it began
}

func begin(t *testing.T, dir string, there map[string]bool) *reading {
	t.Helper()
	r := &reading{f: harness.Open(t, dir, os.O_RDONLY), seen: map[string]int{}, must: map[string]bool{}}
	for name := range there {
		r.must[name] = true
	}
	return r
}

// read makes one getdents call, and reports false at the end.
func (r *reading) read(t *testing.T, size int) bool {
	t.Helper()
	entries, err := harness.Getdents(r.f, size)
	harness.Check(t, err)
	for _, e := range entries {
		if e.Name != "." && e.Name != ".." {
			r.seen[e.Name]++
		}
	}
	return len(entries) > 0
}

// end reads the rest and fails the test if a name was listed too often or not at all.
func (r *reading) end(t *testing.T, what string) {
	t.Helper()
	for r.read(t, 2000) {
	}
	harness.Check(t, r.f.Close())
	for name, n := range r.seen {
		if n > 1 {
			t.Errorf("%s: %s was listed %d times", what, name, n)
		}
	}
	for name := range r.must {
		if r.seen[name] == 0 {
			t.Errorf("%s: %s was there all the time and was not listed", what, name)
		}
	}
}

// numbered returns a table of files and the set of their names.
func numbered(n int, dirs ...string) (table string, there map[string]bool) {
	var b strings.Builder
	there = map[string]bool{}
	for i := range n {
		name := fmt.Sprintf("n%d", i)
		for _, dir := range dirs {
			fmt.Fprintf(&b, "file %s/%s \"\"\n", dir, name)
		}
		there[name] = true
	}
	return b.String(), there
}

// A process that lists a directory does not get a name twice if the name is removed and made again
// in the meantime. This holds even if another process lists the directory in between.
func TestNamesAreListedOnceThoughAnotherLists(t *testing.T) {
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		kinds := []string{"same", "more", "less", "moved", "warm-same", "warm-more", "warm-less", "warm-moved"}
		// With entries of 32 bytes, 126 names, "." and ".." fill a page of the kernel's.
		sizes := []int{60, 125, 126, 254, 300}
		var top, below strings.Builder
		for _, n := range sizes {
			for _, kind := range kinds {
				table, _ := numbered(n, fmt.Sprint(kind, n))
				top.WriteString(table)
				fmt.Fprintf(&below, "file %s%d/low \"\"\n", kind, n)
			}
		}
		o := e.Mounted(t, top.String(), below.String())
		for _, n := range sizes {
			for _, kind := range kinds {
				dir := o.Path(fmt.Sprint(kind, n))
				_, there := numbered(n)
				kind, warm := strings.CutPrefix(kind, "warm-")
				if warm { // else the kernel has no copy of the listing
					_, err := os.ReadDir(dir)
					harness.Check(t, err)
				}
				r := begin(t, dir, there)
				r.read(t, 400)
				remove := func(name string) {
					delete(r.must, name)
					harness.Check(t, os.Remove(dir+"/"+name))
				}
				remove("n2")
				switch kind {
				case "more":
					for i := range 128 {
						harness.Write(t, fmt.Sprintf("%s/x%d", dir, i), "")
					}
				case "less":
					for i := range n / 2 {
						remove(fmt.Sprint("n", n-1-i))
					}
				case "moved":
					delete(r.must, "n7")
					harness.Check(t, os.Rename(dir+"/n7", dir+"/elsewhere"))
					harness.Check(t, os.Rename(dir+"/elsewhere", dir+"/n7"))
				}
				harness.Write(t, dir+"/n2", "")
				_, err := os.ReadDir(dir)
				harness.Check(t, err)
				r.end(t, fmt.Sprintf("%s, %d names, listed before: %v", kind, n, warm))
			}
		}
	})
}

// Many listings begin at different times and are read at different speeds, while names come and go.
func TestManyListingsOfOneDirectory(t *testing.T) {
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		seed := rand.Uint64()
		t.Log("seed", seed)
		r := rand.New(rand.NewPCG(seed, 7))
		table, there := numbered(200+r.IntN(200), "d")
		o := e.Mounted(t, "dir d", table)
		made := 0
		create := func(name string) {
			harness.Write(t, o.Path("d/"+name), "")
			there[name] = true
		}
		var readings []*reading
		gone := func(name string) {
			delete(there, name)
			for _, l := range readings {
				delete(l.must, name)
			}
		}
		pick := func() string {
			k := r.IntN(len(there))
			for name := range there {
				if k--; k < 0 {
					return name
				}
			}
			return ""
		}
		var removed []string
		for step := range 3000 {
			switch k := r.IntN(20); {
			case k == 0 && len(readings) < 6:
				readings = append(readings, begin(t, o.Path("d"), there))
			case k == 1 && len(readings) > 0:
				i := r.IntN(len(readings))
				readings[i].end(t, fmt.Sprintf("step %d", step))
				readings = append(readings[:i], readings[i+1:]...)
			case k == 2:
				l := begin(t, o.Path("d"), there)
				l.end(t, fmt.Sprintf("step %d, at once", step))
			case k < 8 && len(readings) > 0:
				readings[r.IntN(len(readings))].read(t, 100+r.IntN(1500))
			case k < 12 && len(there) < 600:
				made++
				create(fmt.Sprintf("m%d", made))
			case k < 16 && len(there) > 20:
				name := pick()
				harness.Check(t, os.Remove(o.Path("d/"+name)))
				gone(name)
				removed = append(removed, name)
			case k < 18 && len(removed) > 0:
				i := r.IntN(len(removed))
				create(removed[i])
				removed = append(removed[:i], removed[i+1:]...)
			case k < 19:
				from := pick()
				made++
				to := fmt.Sprintf("m%d", made)
				harness.Check(t, os.Rename(o.Path("d/"+from), o.Path("d/"+to)))
				gone(from)
				there[to] = true
			}
		}
		for _, l := range readings {
			l.end(t, "at the end")
		}
	})
}

// A listing ends even if names are made faster than it is read, while other processes begin to list
// the directory.
func TestListingEndsWhileOthersListAndCreate(t *testing.T) {
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		const n = 300
		table, there := numbered(n, "d")
		o := e.Mounted(t, "dir d", table)
		r := begin(t, o.Path("d"), there)
		for part := 0; r.read(t, 400); part++ { // some twelve names
			if len(r.seen) > n {
				t.Fatalf("a listing of %d names does not end after %d", n, len(r.seen))
			}
			for i := range 20 {
				harness.Write(t, o.Path(fmt.Sprintf("d/new%d-%d", part, i)), "")
			}
			_, err := os.ReadDir(o.Path("d"))
			harness.Check(t, err)
		}
		r.end(t, "the listing")
	})
}
