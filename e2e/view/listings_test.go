package view

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// listedDir is a directory with listings in progress, and the names that each of them has to
// return.
type listedDir struct {
	t        *testing.T
	path     string
	there    map[string]bool
	gone     map[string]bool // names that it had before
	readings map[*reading]bool
}

func newListedDir(t *testing.T, path string, there map[string]bool) *listedDir {
	return &listedDir{t: t, path: path, there: there, gone: map[string]bool{}, readings: map[*reading]bool{}}
}

// reading is one listing in progress, by a descriptor of its own.
type reading struct {
	d       *listedDir
	f       *os.File
	seen    map[string]int
	must    map[string]bool // names that have been there since it began
	mustNot map[string]bool // names that have been absent since it began
}

func (d *listedDir) begin() *reading {
	d.t.Helper()
	f := harness.Open(d.t, d.path, os.O_RDONLY)
	r := &reading{d: d, f: f, seen: map[string]int{}, must: maps.Clone(d.there), mustNot: maps.Clone(d.gone)}
	d.readings[r] = true
	return r
}

func (d *listedDir) noteNew(name string) {
	d.there[name] = true
	delete(d.gone, name)
	for r := range d.readings {
		delete(r.mustNot, name)
	}
}

func (d *listedDir) noteGone(name string) {
	delete(d.there, name)
	d.gone[name] = true
	for r := range d.readings {
		delete(r.must, name)
	}
}

func (d *listedDir) create(names ...string) {
	d.t.Helper()
	for _, name := range names {
		harness.Write(d.t, d.path+"/"+name, "")
		d.noteNew(name)
	}
}

func (d *listedDir) remove(names ...string) {
	d.t.Helper()
	for _, name := range names {
		harness.Check(d.t, os.Remove(d.path+"/"+name))
		d.noteGone(name)
	}
}

func (d *listedDir) rename(from, to string) {
	d.t.Helper()
	harness.Check(d.t, os.Rename(d.path+"/"+from, d.path+"/"+to))
	d.noteGone(from)
	d.noteNew(to)
}

// read makes one getdents call, and reports false at the end.
func (r *reading) read(size int) bool {
	r.d.t.Helper()
	entries, err := harness.Getdents(r.f, size)
	harness.Check(r.d.t, err)
	for _, e := range entries {
		r.seen[e.Name]++
	}
	return len(entries) > 0
}

// readPast reads on until the listing has returned a name.
func (r *reading) readPast(name string) {
	r.d.t.Helper()
	for r.seen[name] == 0 && r.read(400) {
	}
}

// end reads the rest, and fails the test if the listing has a name too often, lacks one, or has one
// that was removed before it began.
func (r *reading) end(what string) {
	r.d.t.Helper()
	for r.read(2000) {
	}
	harness.Check(r.d.t, r.f.Close())
	delete(r.d.readings, r)
	for name, n := range r.seen {
		if n > 1 {
			r.d.t.Errorf("%s: %s was listed %d times", what, name, n)
		}
		if r.mustNot[name] {
			r.d.t.Errorf("%s: %s was removed before the listing began and was listed", what, name)
		}
	}
	for name := range r.must {
		if r.seen[name] == 0 {
			r.d.t.Errorf("%s: %s was there all the time and was not listed", what, name)
		}
	}
	for _, name := range []string{".", ".."} {
		if r.seen[name] != 1 {
			r.d.t.Errorf("%s: %s was listed %d times", what, name, r.seen[name])
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
				_, there := numbered(n)
				d := newListedDir(t, o.Path(fmt.Sprint(kind, n)), there)
				kind, warm := strings.CutPrefix(kind, "warm-")
				if warm { // else the kernel has no copy of the listing
					_, err := os.ReadDir(d.path)
					harness.Check(t, err)
				}
				r := d.begin()
				r.read(400)
				d.remove("n2")
				switch kind {
				case "more":
					for i := range 128 {
						d.create(fmt.Sprint("x", i))
					}
				case "less":
					for i := range n / 2 {
						d.remove(fmt.Sprint("n", n-1-i))
					}
				case "moved":
					d.rename("n7", "elsewhere")
					d.rename("elsewhere", "n7")
				}
				d.create("n2")
				d.begin().end("the other listing")
				r.end(fmt.Sprintf("%s, %d names, listed before: %v", kind, n, warm))
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
		large := 200 + r.IntN(200)
		largeTable, largeNames := numbered(large, "large")
		pageTable, pageNames := numbered(126, "page") // as many as fill a page of the kernel's copy
		o := e.Mounted(t, "dir large\ndir page", largeTable+pageTable)
		randomListings(newListedDir(t, o.Path("large"), largeNames), r, 20, 600)
		randomListings(newListedDir(t, o.Path("page"), pageNames), r, 122, 130)
	})
}

// randomListings lists and changes a directory, which keeps between atLeast and atMost names.
func randomListings(d *listedDir, r *rand.Rand, atLeast, atMost int) {
	var readings []*reading
	var removed []string
	made := 0
	another := func() string {
		made++
		return fmt.Sprint("m", made)
	}
	pick := func() string {
		k := r.IntN(len(d.there))
		for name := range d.there {
			if k--; k < 0 {
				return name
			}
		}
		return ""
	}
	for step := range 3000 {
		switch k := r.IntN(20); {
		case k == 0 && len(readings) < 6:
			readings = append(readings, d.begin())
		case k == 1 && len(readings) > 0:
			i := r.IntN(len(readings))
			readings[i].end(fmt.Sprintf("step %d", step))
			readings = append(readings[:i], readings[i+1:]...)
		case k == 2:
			d.begin().end(fmt.Sprintf("step %d, at once", step))
		case k < 8 && len(readings) > 0:
			readings[r.IntN(len(readings))].read(100 + r.IntN(1500))
		case k < 12 && len(d.there) < atMost:
			d.create(another())
		case k < 16 && len(d.there) > atLeast:
			name := pick()
			d.remove(name)
			removed = append(removed, name)
		case k < 18 && len(removed) > 0 && len(d.there) < atMost:
			i := r.IntN(len(removed))
			d.create(removed[i])
			removed = append(removed[:i], removed[i+1:]...)
		case k < 19:
			d.rename(pick(), another())
		}
	}
	for _, l := range readings {
		l.end("at the end")
	}
}

// A listing ends even if names are made faster than it is read, while other processes begin to list
// the directory.
func TestListingEndsWhileOthersListAndCreate(t *testing.T) {
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		const n = 300
		table, there := numbered(n, "d")
		d := newListedDir(t, e.Mounted(t, "dir d", table).Path("d"), there)
		r := d.begin()
		for part := 0; r.read(400); part++ { // some twelve names
			if len(r.seen) > n+2 {
				t.Fatalf("a listing of %d names does not end after %d", n, len(r.seen))
			}
			for i := range 20 {
				d.create(fmt.Sprintf("new%d-%d", part, i))
			}
			d.begin().end("the other listing")
		}
		r.end("the listing")
	})
}
