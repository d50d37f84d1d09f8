package e2e

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
)

// A directory of 10,000 files costs requests in proportion, once; a second look costs none.
func TestLargeDirectoryIsLinear(t *testing.T) {
	eachMode(t, []mode{modeRoot, modeFusermount}, func(t *testing.T, e *env) {
		const n = 10_000
		e.writeThrough()
		o := e.overlay(t, "dir d", "dir d")
		for i := range n {
			layer := o.lowers[i%2]
			check(t, os.WriteFile(fmt.Sprintf("%s/d/file%05d", layer, i), nil, 0o644))
		}
		o.mount()
		list := func() {
			entries, err := os.ReadDir(o.path("d"))
			check(t, err)
			equal(t, "entries", len(entries), n)
		}
		needDaemon(t)
		first := o.during(list)
		if m := first["READDIR"] + first["READDIRPLUS"]; m > n/20 || first.total() > n+n/20 {
			t.Errorf("first listing of %d entries: %s", n, first)
		}
		list()
		wantCounts(t, "a further listing", o.settled(list), nil, nil)

		wantText(t, o.path("d/file00000"), "") // once the kernel has asked for an open it knows that no RELEASE is needed
		created := o.during(func() {
			for i := range n {
				check(t, os.WriteFile(fmt.Sprintf("%s/d/new%05d", o.mnt, i), nil, 0o644))
			}
		})
		requests := int64(3) // LOOKUP, CREATE, GETATTR of the directory
		if e.has(passthrough) {
			requests++ // RELEASE
		}
		if created.total() > requests*n+n/10 {
			t.Errorf("creating %d empty files: %s", n, created)
		}
		removed := o.during(func() { check(t, os.RemoveAll(o.path("d"))) })
		if removed["UNLINK"] != 2*n || removed.total() > 7*n {
			t.Errorf("removing %d files: %s", 2*n, removed)
		}
		wantAbsent(t, o.path("d"))
	})
}

// Names that nobody touches are listed exactly once, whatever else happens in the directory meanwhile.
func TestListingIsStable(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, e *env) {
		var table [2]strings.Builder
		for i := range 400 {
			fmt.Fprintf(&table[i%2], "file d/keep%03d \"\"\nfile d/drop%03d \"\"\n", i, i)
		}
		o := e.mounted(t, table[0].String(), table[1].String())
		for round := range 3 {
			f := open(t, o.path("d"), os.O_RDONLY)
			seen := map[string]int{}
			for i := 0; ; i++ {
				entries, err := getdents(f, 300)
				check(t, err)
				if len(entries) == 0 {
					break
				}
				for _, entry := range entries {
					seen[entry.name]++
				}
				if i > 300 {
					continue // so that the listing may end, though it shows what is new
				}
				_ = os.Remove(o.path(fmt.Sprintf("d/drop%03d", (i*3+round)%400)))
				write(t, o.path(fmt.Sprintf("d/new%d-%03d", round, i)), "")
				if i%10 == 0 {
					_ = os.Rename(o.path(fmt.Sprintf("d/new%d-%03d", round, i)), o.path(fmt.Sprintf("d/moved%d-%03d", round, i)))
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
			check(t, f.Close())
			entries, err := os.ReadDir(o.path("d"))
			check(t, err)
			for _, entry := range entries {
				if _, err := os.Lstat(o.path("d/" + entry.Name())); err != nil {
					t.Errorf("listed, but %v", err)
				}
			}
		}
	})
}

// A listing ends though each entry is renamed away and back as it is listed (generic/736 of xfstests).
func TestListingEndsWhileEntriesAreRenamed(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, e *env) {
		var table strings.Builder
		for i := range 500 {
			fmt.Fprintf(&table, "file d/f%03d \"\"\n", i)
		}
		o := e.mounted(t, table.String())
		for _, warm := range []bool{false, true} {
			f := open(t, o.path("d"), os.O_RDONLY)
			listed := 0
			for {
				entries, err := getdents(f, 1000)
				check(t, err)
				if len(entries) == 0 {
					break
				}
				for _, entry := range entries {
					if listed++; listed > 5000 {
						t.Fatalf("a listing of 500 names goes on after %d (listed before: %v)", listed, warm)
					}
					if strings.HasPrefix(entry.name, "f") {
						check(t, os.Rename(o.path("d/"+entry.name), o.path("d/TEMP")))
						check(t, os.Rename(o.path("d/TEMP"), o.path("d/"+entry.name)))
					}
				}
			}
			check(t, f.Close())
		}
	})
}

// Offsets stay good for seekdir while the listing is in use, and rewinding shows what is new.
func TestSeekdir(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, e *env) {
		var table strings.Builder
		for i := range 200 {
			fmt.Fprintf(&table, "file d/f%03d \"\"\n", i)
		}
		o := e.mounted(t, table.String(), "file d/low \"\"")
		f := open(t, o.path("d"), os.O_RDONLY)
		var all []dirent
		for {
			entries, err := getdents(f, 1000)
			check(t, err)
			if len(entries) == 0 {
				break
			}
			all = append(all, entries...)
		}
		equal(t, "entries", len(all), 203)
		write(t, o.path("d/added"), "")
		check(t, os.Remove(o.path("d/"+all[150].name)))
		for _, i := range []int{100, 3, 180, 50, 149, 202} {
			if all[i].name == all[150].name || i+1 < len(all) && all[i+1].name == all[150].name {
				continue
			}
			_, err := f.Seek(all[i].off, io.SeekStart)
			check(t, err)
			entries, err := getdents(f, 1000)
			check(t, err)
			if i+1 < len(all) {
				if len(entries) == 0 || entries[0].name != all[i+1].name {
					t.Errorf("after seeking behind %s: %v, want %s", all[i].name, entries, all[i+1].name)
				}
			}
		}
		_, err := f.Seek(0, io.SeekStart)
		check(t, err)
		var names []string
		for {
			entries, err := getdents(f, 1000)
			check(t, err)
			if len(entries) == 0 {
				break
			}
			for _, entry := range entries {
				names = append(names, entry.name)
			}
		}
		if !slices.Contains(names, "added") || slices.Contains(names, all[150].name) || len(names) != 203 {
			t.Errorf("after rewinding: %d names, added %v, removed %v", len(names), slices.Contains(names, "added"), slices.Contains(names, all[150].name))
		}
	})
}
