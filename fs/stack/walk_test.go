package stack

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/owner"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit/systest"
)

// EachFixedObject visits what is hidden as well, and follows no symbolic link out of the layer or
// round in it. It leaves out a writable upper.
func TestEachFixedObject(t *testing.T) {
	s := newSite(t, "file x 0606\ndir d/e 0707", "file a 0601\ndir d 0702", "file d/hidden 0603\nwhite w\nsymlink round .\nsymlink out /\ndir d/e 0704\nfile d/e/deep 0605")
	before, most := openFDs(t), 0
	var modes []string
	must(t, s.EachFixedObject(func(r owner.Ref) error {
		var st sys.Stat
		must(t, r.Inode().Stat(&st))
		modes = append(modes, fmt.Sprintf("%o", st.Mode&0o7777))
		most = max(most, openFDs(t))
		return nil
	}))
	for _, mode := range []string{"601", "702", "603", "704", "605"} {
		if !slices.Contains(modes, mode) {
			t.Errorf("the object of mode %s is missing: %v", mode, modes)
		}
	}
	if len(modes) != 2+2+7 { // two roots, and d lies in both layers
		t.Errorf("%d objects: %v", len(modes), modes)
	}
	for _, mode := range []string{"606", "707"} {
		if slices.Contains(modes, mode) {
			t.Errorf("an object of the upper: %v", modes)
		}
	}
	if most > before+1 {
		t.Errorf("%d descriptors, before %d", most, before)
	}
}

// Each call that fails ends the walk with its error, and leaves no descriptor.
func TestEachFixedObjectFails(t *testing.T) {
	s := newSite(t, "", "dir d/e", "file d/f")
	walk := func() error { return s.EachFixedObject(func(owner.Ref) error { return nil }) }
	made := calls(func() { must(t, walk()) })
	before := openFDs(t)
	for i := range made {
		n := 0
		systest.While(func(sys.Op) bool { n++; return n == i+1 }, unix.EIO, func() {
			if err := walk(); err != unix.EIO {
				t.Errorf("%s fails: %v", made[i], err)
			}
		})
	}
	if after := openFDs(t); after != before {
		t.Errorf("%d descriptors, before %d", after, before)
	}
	if !strings.Contains(strings.Join(made, " "), "getdents64") {
		t.Errorf("the walk makes %v", made)
	}
}
