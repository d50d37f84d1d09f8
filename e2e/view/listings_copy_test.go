package view

import (
	"fmt"
	"maps"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// listingCopies are listings that go on while the kernel gets a complete copy of another listing.
// The kernel's copy of each name here takes 32 bytes: 126 names, "." and ".." fill a page.
var listingCopies = []struct {
	name  string
	files int
	run   func(d *listedDir, order []string)
}{
	{"names removed while the copy is made make it end with a page", 127, func(d *listedDir, order []string) {
		slow := d.begin()
		slow.read(400)
		d.create("new") // so the listings have other offsets
		copied := d.begin()
		copied.read(400)
		d.remove(order[125:]...)
		copied.end("the copied listing")
		slow.end("the slow listing")
	}},
	{"the copy ends with a page", 125, func(d *listedDir, order []string) {
		slow := d.begin()
		slow.read(400)
		d.create("new")
		d.begin().end("the copied listing")
		slow.end("the slow listing")
	}},
	{"the copy ends with the second page", 253, func(d *listedDir, order []string) {
		slow := d.begin()
		slow.read(6000)
		d.create("new")
		d.begin().end("the copied listing")
		slow.end("the slow listing")
	}},
	{"a name comes back that the copy lacks", 300, func(d *listedDir, order []string) {
		d.remove(order[100])
		copied := d.begin()
		copied.readPast(order[101])
		d.create(order[100])
		slow := d.begin()
		slow.read(400)
		copied.end("the copied listing")
		slow.end("the slow listing")
	}},
	{"a name was removed that the copy has", 300, func(d *listedDir, order []string) {
		d.create("new")
		copied := d.begin()
		copied.readPast(order[101])
		d.remove(order[100])
		slow := d.begin()
		slow.read(400)
		copied.end("the copied listing")
		slow.end("the slow listing")
	}},
	{"a third listing completes the copy", 300, func(d *listedDir, order []string) {
		d.create("new")
		copied := d.begin()
		copied.readPast(order[101])
		d.remove(order[100])
		slow := d.begin()
		slow.read(400)
		d.begin().end("the third listing")
		slow.end("the slow listing")
		copied.end("the copied listing")
	}},
	{"the copy outlives the change", 300, func(d *listedDir, order []string) {
		d.create("new")
		copied := d.begin()
		copied.read(400)
		d.remove(order[100])
		copied.end("the copied listing")
		d.begin().end("the next listing")
		d.create(order[100])
		d.begin().end("the last listing")
	}},
}

func TestListingsBesideTheKernelsCopy(t *testing.T) {
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		var layer strings.Builder
		for i, c := range listingCopies {
			table, _ := numbered(c.files, fmt.Sprint("d", i))
			layer.WriteString(table)
		}
		o := e.Mounted(t, "", layer.String())
		for i, c := range listingCopies {
			t.Run(c.name, func(t *testing.T) {
				dir := o.Path(fmt.Sprint("d", i))
				f := harness.Open(t, dir, os.O_RDONLY)
				order, err := f.Readdirnames(-1)
				harness.Check(t, err)
				harness.Check(t, f.Close())
				_, there := numbered(c.files)
				c.run(newListedDir(t, dir, there), order)
			})
		}
	})
}

// Threads list a directory while another one changes it. Each listing has the names that stay, and
// once the changes have ended, a listing has exactly the names of the directory.
func TestListingsByThreadsDuringChanges(t *testing.T) {
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		const rounds, changes, listers = 40, 20, 6
		table, stay := numbered(123, "d") // with a few names more they fill a page of the kernel's copy
		dir := e.Mounted(t, "dir d", table).Path("d")
		list := func(what string, there, gone map[string]bool) {
			d := newListedDir(t, dir, there)
			d.gone = gone
			r := d.begin()
			r.read(100)
			r.end(what)
		}
		for round := range rounds {
			there, gone := maps.Clone(stay), map[string]bool{}
			var all sync.WaitGroup
			var done atomic.Bool
			for range listers {
				all.Go(func() {
					for !done.Load() {
						list(fmt.Sprint("round ", round), stay, nil)
					}
				})
			}
			for i := range changes {
				name := fmt.Sprint("x", i%5)
				if there[name] {
					harness.Check(t, os.Remove(dir+"/"+name))
					delete(there, name)
					gone[name] = true
				} else {
					harness.Write(t, dir+"/"+name, "")
					there[name] = true
					delete(gone, name)
				}
			}
			done.Store(true)
			all.Wait()
			list(fmt.Sprint("after round ", round), there, gone)
			for name := range there {
				if !stay[name] {
					harness.Check(t, os.Remove(dir+"/"+name))
				}
			}
		}
	})
}
