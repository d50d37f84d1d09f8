package stack

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/copyup"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
)

// from returns up to n entries after a place, as one request for a part of a listing does.
func (m *merged) from(cookie uint64, n int) []Listed {
	var out []Listed
	m.List(cookie, ^uint64(0), func(e *Listed) bool {
		if len(out) == n {
			return false
		}
		out = append(out, *e)
		return true
	})
	return out
}

func TestListingMerges(t *testing.T) {
	s := newSite(t, "file a\nwhite b\nfile .wh.c\ndir d", "file b\nfile c\nfile d\nfifo e", "symlink a x\ndir f\nfile .wh.f", "dir f\nfile g")
	var got []string
	for _, e := range s.dir("").withNames().from(0, 100) {
		got = append(got, fmt.Sprint(e.Name, e.Type))
	}
	slices.Sort(got)
	want := []string{fmt.Sprint("a", unix.DT_REG), fmt.Sprint("d", unix.DT_DIR), fmt.Sprint("e", unix.DT_FIFO), fmt.Sprint("f", unix.DT_DIR),
		fmt.Sprint("g", unix.DT_REG)}
	if !slices.Equal(got, want) {
		t.Errorf("listed %v, want %v", got, want)
	}
}

// A listing can go on at any offset, and returns the same entries again.
func TestListingResumesAnywhere(t *testing.T) {
	var table strings.Builder
	for i := range 100 {
		fmt.Fprintf(&table, "file %d\n", i)
	}
	d := newSite(t, "", table.String()).dir("").withNames()
	all := d.from(0, 1000)
	if len(all) != 100 || all[0].Place < firstPlace {
		t.Fatalf("%d entries, the first is %+v", len(all), all[0])
	}
	for i, e := range all {
		if rest := d.from(e.Place, 1000); !slices.Equal(rest, all[i+1:]) {
			t.Errorf("after %+v: %v", e, rest)
		}
	}
}

// change is one step of a process that changes the directory while another lists it.
type change struct {
	*merged
	r        *rand.Rand
	made     int
	expected map[string]bool // names that have been there since the listing began
}

func (c *change) step() {
	names := c.from(0, 1<<20)
	pick := func() string { return names[c.r.IntN(len(names))].Name }
	switch c.r.IntN(6) {
	case 0, 1:
		c.made++
		name := fmt.Sprint("new", c.made)
		f := c.lookup(name)
		must(c.s.t, c.s.Link(&c.Dir, c.upper(), name, &f, c.upper().At("source"), unix.S_IFREG))
	case 2, 3:
		if name := pick(); name != "source" {
			must(c.s.t, c.remove(name))
			delete(c.expected, name)
		}
	case 4: // replaces one by another
		c.made++
		tmp := fmt.Sprint("tmp", c.made)
		f := c.lookup(tmp)
		file, err := c.s.Create(&c.Dir, c.upper(), tmp, &f, &Object{Mode: unix.S_IFREG | 0o644})
		must(c.s.t, err)
		file.Close()
		if to := c.end(pick()); to.Found.State == InUpper && to.Name != "source" {
			must(c.s.t, c.s.Rename(c.end(tmp), to))
		}
	case 5:
		a, b := c.end(pick()), c.end(pick())
		if a.Found.State == InUpper && b.Found.State == InUpper && a.Found.Stat.Ino != b.Found.Stat.Ino {
			must(c.s.t, c.s.Exchange(a, b))
		}
	}
}

// While names come and go, a listing in parts returns each name that stays exactly once. It returns
// no name twice unless that was removed, and no name that was removed before. Offsets only grow.
func TestListingIsStableWhileNamesComeAndGo(t *testing.T) {
	for seed := range uint64(20) {
		s := newSite(t, "file source", "")
		for i := range 60 {
			testkit.Build(t, s.folder(i%2), fmt.Sprintf("file %d \"%d\"\n", i, i))
		}
		c := &change{merged: s.dir("").withNames(), r: rand.New(rand.NewPCG(seed, 3)), expected: map[string]bool{}}
		for _, name := range c.names() {
			c.expected[name] = true
		}
		cookie, told := uint64(0), map[string]int{}
		for part := 0; ; part++ {
			entries := c.from(cookie, 1+c.r.IntN(5))
			if len(entries) == 0 {
				break
			}
			for _, e := range entries {
				if e.Place <= cookie {
					t.Fatalf("seed %d: offset %d after %d", seed, e.Place, cookie)
				}
				if f := c.lookup(e.Name); !f.Exists() {
					t.Errorf("seed %d: %s is told and not there", seed, e.Name)
				}
				cookie = e.Place
				if told[e.Name]++; told[e.Name] > 1 {
					t.Errorf("seed %d: %s is told twice", seed, e.Name)
				}
			}
			for range c.r.IntN(4) {
				if part < 40 {
					c.step()
				}
			}
		}
		for name := range c.expected {
			if told[name] != 1 {
				t.Errorf("seed %d: %s is told %d times", seed, name, told[name])
			}
		}
		c.wantExact("after all")
		s.shut()
	}
}

// A directory in which names come and go all the time does not grow.
func TestListingForgetsWhatHasGone(t *testing.T) {
	s := newSite(t, "", "file below")
	d := s.dir("").withNames()
	for i := range 1000 {
		name := fmt.Sprint(i)
		f := d.lookup(name)
		_, err := s.Create(&d.Dir, d.upper(), name, &f, &Object{Mode: unix.S_IFIFO | 0o600})
		must(t, err)
		must(t, d.remove(name))
		if len(d.table.order) > 100 {
			t.Fatalf("%d places for %d names", len(d.table.order), d.Visible())
		}
	}
	if names := d.names(); !slices.Equal(names, []string{"below"}) {
		t.Errorf("listed %v", names)
	}
}

// Directories of every size are merged, looked up and changed alike, with and without a map of
// their names.
func TestDirectoriesOfAnySize(t *testing.T) {
	for _, n := range []int{1, maxScanned - 1, maxScanned, maxScanned + 1, 3 * maxScanned, 63, 64, 65, 300} {
		var tables [3]strings.Builder
		layers, shown := map[string]int{}, []string{}
		for i := range n {
			name := fmt.Sprintf("name%d", i)
			for layer := range tables {
				switch (i + layer) % 4 {
				case 0:
					fmt.Fprintf(&tables[layer], "file %s\n", name)
				case 1:
					tables[layer].WriteString(white(name, i%8 < 4))
				}
			}
			switch i % 4 { // whose topmost is: the upper's file, the upper's whiteout, the second lower's file, the first's
			case 0:
				layers[name] = Upper
			case 2:
				layers[name] = 2
			case 3:
				layers[name] = 1
			default:
				continue
			}
			shown = append(shown, name)
		}
		s := newSite(t, tables[0].String(), tables[1].String(), tables[2].String())
		d := s.dir("").withNames()
		wantNames := func(want []string) {
			t.Helper()
			got := d.names()
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) || d.Visible() != len(want) {
				t.Fatalf("of %d names: shows %v and says %d, want %v", n, got, d.Visible(), want)
			}
		}
		wantNames(shown)
		for i := range n {
			name := fmt.Sprintf("name%d", i)
			f := d.lookup(name)
			if layer, ok := layers[name]; f.Exists() != ok || ok && f.Layer != layer {
				t.Errorf("of %d names: %s is %+v", n, name, f)
			}
		}
		var left []string
		for i, name := range shown {
			if i%2 == 0 {
				must(t, d.remove(name))
			} else {
				left = append(left, name)
			}
		}
		for i := range maxScanned {
			name := fmt.Sprint("new", i)
			f := d.lookup(name)
			_, err := s.Create(&d.Dir, d.upper(), name, &f, &Object{Mode: unix.S_IFIFO | 0o600})
			must(t, err)
			left = append(left, name)
		}
		wantNames(left)
		d.wantExact(fmt.Sprintf("of %d names", n))
	}
}

// A copy-up leaves an entry in its place.
func TestCopyUpKeepsThePlace(t *testing.T) {
	s := newSite(t, "", "file a \"data\"\ndir d\nfile d/in\nfile z")
	root := s.dir("").withNames()
	before := root.from(0, 10)
	for _, name := range []string{"d", "a"} {
		f := root.lookup(name)
		from, err := root.Layer(f.Layer)
		must(t, err)
		staged, _, err := s.Stage(&Source{Layer: f.Layer, Ref: from.At(name)}, copyup.Whole(), &f.Stat)
		must(t, err)
		must(t, staged.Publish(root.upper(), name))
		if staged.File() != nil {
			staged.File().Close()
		}
		s.CopiedUp(&root.Dir, name)
		s.CopiedUp(&root.Dir, name) // once more changes nothing
		if f := root.lookup(name); f.State != InUpper || !f.Below {
			t.Errorf("%s is %+v", name, f)
		}
	}
	same := func(a, b Listed) bool { return a.Name == b.Name && a.Place == b.Place && a.Type == b.Type }
	if after := root.from(0, 10); !slices.EqualFunc(after, before, same) {
		t.Errorf("the listing was %v and is %v", before, after)
	}
	root.wantExact("copied up")
	s.CopiedUp(&root.Dir, "none")
	root.wantExact("nothing copied up")
}

// If the file system does not list the type of an entry, the stack reads it.
func TestListingWithoutTypes(t *testing.T) {
	image, point := filepath.Join(t.TempDir(), "image"), t.TempDir()
	must(t, os.WriteFile(image, nil, 0o600))
	must(t, os.Truncate(image, 16<<20))
	testkit.Run(t, "mkfs.ext4", "-q", "-O", "^filetype", image)
	testkit.Run(t, "mount", image, point)
	t.Cleanup(func() { testkit.Run(t, "umount", "-l", point) })
	testkit.Build(t, point, "dir l1/d\nfile l1/f\nwhite l1/w\nchar l1/null 1/3\nfile l2/w\nfile l2/d/f\ndir upper")
	s := openSite(t, Config{Lowers: []string{point + "/l1", point + "/l2"}, Upper: point + "/upper", Work: point + "/work"})
	types := s.dir("").withNames().listed()
	if len(types) != 3 || types["d"] != unix.DT_DIR || types["f"] != unix.DT_REG || types["null"] != unix.DT_CHR {
		t.Errorf("listed %v", types)
	}
	if d := s.dir("d"); !slices.Equal(d.names(), []string{"f"}) {
		t.Errorf("d lists %v", d.names())
	}
}
