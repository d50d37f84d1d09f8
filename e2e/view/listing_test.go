package view

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// The first listing of 10,000 files costs requests in proportion to its size. A second one costs
// none.
func TestLargeDirectoryIsLinear(t *testing.T) {
	harness.EachMode(t, []harness.Mode{harness.ModeRoot, harness.ModeFusermount}, func(t *testing.T, e *harness.Env) {
		const n = 10_000
		e.WriteThrough()
		o := e.Overlay(t, "dir d", "dir d")
		for i := range n {
			layer := o.Lowers[i%2]
			harness.Check(t, os.WriteFile(fmt.Sprintf("%s/d/file%05d", layer, i), nil, 0o644))
		}
		o.Mount()
		list := func() {
			entries, err := os.ReadDir(o.Path("d"))
			harness.Check(t, err)
			harness.Equal(t, "entries", len(entries), n)
		}
		harness.NeedDaemon(t)
		first := o.During(list)
		if m := first["READDIR"] + first["READDIRPLUS"]; m > n/20 || first.Total() > n+n/20 {
			t.Errorf("first listing of %d entries: %s", n, first)
		}
		list()
		harness.WantCounts(t, "a further listing", o.DuringLeast(list), nil, nil)

		// After its first OPEN the kernel knows that no RELEASE is needed.
		harness.WantText(t, o.Path("d/file00000"), "")
		created := o.During(func() {
			for i := range n {
				harness.Check(t, os.WriteFile(fmt.Sprintf("%s/d/new%05d", o.Point, i), nil, 0o644))
			}
		})
		requests := int64(3) // LOOKUP, CREATE, GETATTR of the directory
		if e.Has(harness.Passthrough) {
			requests++ // RELEASE
		}
		if created.Total() > requests*n+n/10 {
			t.Errorf("creating %d empty files: %s", n, created)
		}
		removed := o.During(func() { harness.Check(t, os.RemoveAll(o.Path("d"))) })
		if removed["UNLINK"] != 2*n || removed.Total() > 7*n {
			t.Errorf("removing %d files: %s", 2*n, removed)
		}
		harness.WantAbsent(t, o.Path("d"))
	})
}

// A listing has each name that does not change exactly once, whatever other names come and go.
func TestListingIsStable(t *testing.T) {
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		var table [2]strings.Builder
		for i := range 400 {
			fmt.Fprintf(&table[i%2], "file d/keep%03d \"\"\nfile d/drop%03d \"\"\n", i, i)
		}
		o := e.Mounted(t, table[0].String(), table[1].String())
		for round := range 3 {
			f := harness.Open(t, o.Path("d"), os.O_RDONLY)
			seen := map[string]int{}
			for i := 0; ; i++ {
				entries, err := harness.Getdents(f, 300)
				harness.Check(t, err)
				if len(entries) == 0 {
					break
				}
				for _, entry := range entries {
					seen[entry.Name]++
				}
				if i > 300 {
					continue // so that the listing may end, though it shows what is new
				}
				_ = os.Remove(o.Path(fmt.Sprintf("d/drop%03d", (i*3+round)%400)))
				harness.Write(t, o.Path(fmt.Sprintf("d/new%d-%03d", round, i)), "")
				if i%10 == 0 {
					_ = os.Rename(o.Path(fmt.Sprintf("d/new%d-%03d", round, i)), o.Path(fmt.Sprintf("d/moved%d-%03d", round, i)))
				}
			}
			for name, n := range seen {
				if n > 1 {
					t.Errorf("round %d: %s was listed %d times", round, name, n)
				}
			}
			for i := range 400 {
				if name := fmt.Sprintf("keep%03d", i); seen[name] != 1 {
					t.Errorf("round %d: %s was listed %d times", round, name, seen[name])
				}
			}
			harness.Check(t, f.Close())
			entries, err := os.ReadDir(o.Path("d"))
			harness.Check(t, err)
			for _, entry := range entries {
				if _, err := os.Lstat(o.Path("d/" + entry.Name())); err != nil {
					t.Errorf("listed, but %v", err)
				}
			}
		}
	})
}

// A listing ends even if each entry is renamed away and back while it is listed (generic/736 of
// xfstests).
func TestListingEndsWhileEntriesAreRenamed(t *testing.T) {
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		var table strings.Builder
		for i := range 500 {
			fmt.Fprintf(&table, "file d/f%03d \"\"\n", i)
		}
		o := e.Mounted(t, table.String())
		for _, warm := range []bool{false, true} {
			f := harness.Open(t, o.Path("d"), os.O_RDONLY)
			listed := 0
			for {
				entries, err := harness.Getdents(f, 1000)
				harness.Check(t, err)
				if len(entries) == 0 {
					break
				}
				for _, entry := range entries {
					if listed++; listed > 5000 {
						t.Fatalf("a listing of 500 names does not end after %d (listed before: %v)", listed, warm)
					}
					if strings.HasPrefix(entry.Name, "f") {
						harness.Check(t, os.Rename(o.Path("d/"+entry.Name), o.Path("d/TEMP")))
						harness.Check(t, os.Rename(o.Path("d/TEMP"), o.Path("d/"+entry.Name)))
					}
				}
			}
			harness.Check(t, f.Close())
		}
	})
}

// Offsets are valid for seekdir while the listing is in use. A rewind shows new names.
func TestSeekdir(t *testing.T) {
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		var table strings.Builder
		for i := range 200 {
			fmt.Fprintf(&table, "file d/f%03d \"\"\n", i)
		}
		o := e.Mounted(t, table.String(), "file d/low \"\"")
		f := harness.Open(t, o.Path("d"), os.O_RDONLY)
		var all []harness.Dirent
		for {
			entries, err := harness.Getdents(f, 1000)
			harness.Check(t, err)
			if len(entries) == 0 {
				break
			}
			all = append(all, entries...)
		}
		harness.Equal(t, "entries", len(all), 203)
		harness.Write(t, o.Path("d/added"), "")
		harness.Check(t, os.Remove(o.Path("d/"+all[150].Name)))
		for _, i := range []int{100, 3, 180, 50, 149, 202} {
			if all[i].Name == all[150].Name || i+1 < len(all) && all[i+1].Name == all[150].Name {
				continue
			}
			_, err := f.Seek(all[i].Off, io.SeekStart)
			harness.Check(t, err)
			entries, err := harness.Getdents(f, 1000)
			harness.Check(t, err)
			if i+1 < len(all) {
				if len(entries) == 0 || entries[0].Name != all[i+1].Name {
					t.Errorf("after seeking behind %s: %v, want %s", all[i].Name, entries, all[i+1].Name)
				}
			}
		}
		_, err := f.Seek(0, io.SeekStart)
		harness.Check(t, err)
		var names []string
		for {
			entries, err := harness.Getdents(f, 1000)
			harness.Check(t, err)
			if len(entries) == 0 {
				break
			}
			for _, entry := range entries {
				names = append(names, entry.Name)
			}
		}
		if !slices.Contains(names, "added") || slices.Contains(names, all[150].Name) || len(names) != 203 {
			t.Errorf("after rewinding: %d names, added %v, removed %v", len(names), slices.Contains(names, "added"),
				slices.Contains(names, all[150].Name))
		}
	})
}
