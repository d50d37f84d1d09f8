package format

import (
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// sight is what a mount shows.
type sight struct {
	// lines are comparable between mounts of different folders. Times are classes, and inode numbers
	// are replaced by the names of the objects in the lowers.
	lines map[string]string
	// exact are the times themselves, comparable between mounts of the same folders.
	exact map[string]string
	inode map[string]uint64
}

// inodeBits are the low bits of st_ino: the number of the object in its layer. The bits above are
// the number of the layer.
const inodeBits = 32

// look describes all that the mount of a cell shows. A fault is something that no mount may show.
func (c *cell) look(o *harness.Overlay) (*sight, string) {
	s := &sight{exact: map[string]string{}, inode: map[string]uint64{}}
	first := map[uint64]string{} // of the names of an inode
	v := harness.ExactView
	var faults strings.Builder
	v.Also = func(rel string, st *unix.Stat_t) string {
		s.exact[rel] = fmt.Sprintf("mtime %d.%09d atime %d.%09d", st.Mtim.Sec, st.Mtim.Nsec, st.Atim.Sec, st.Atim.Nsec)
		s.inode[rel] = st.Ino
		isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
		// D1. btrfs has a count of 1, which an unmerged directory shows.
		if isDir && !o.Kernel && int(st.Nlink) != 2+subdirectories(o.Path(rel)) && (st.Nlink != 1 || c.fstype != "btrfs") {
			fmt.Fprintf(&faults, "%s: st_nlink is %d\n", rel, st.Nlink)
		}
		text := " atime " + harness.TimeClass(st.Atim)
		if c.identity {
			text += " ino " + c.origin(st.Ino)
		}
		// The kernel decodes no handles in a user namespace.
		if other, ok := first[st.Ino]; ok && !isDir && c.e.Mode == harness.ModeRoot {
			text += " one with " + harness.Word(other)
		} else {
			first[st.Ino] = rel
		}
		return text
	}
	var err error
	if s.lines, err = harness.Snapshot(o.Point, v); err != nil {
		return nil, err.Error()
	}
	if c.identity || !o.Kernel {
		faults.WriteString(harness.IdentityFaults(o.Point))
	}
	if c.inside != nil {
		inside, fault := c.inside(c, o)
		faults.WriteString(fault)
		maps.Copy(s.lines, inside)
	}
	return s, faults.String()
}

// subdirectories counts the subdirectories of a folder.
func subdirectories(dir string) (n int) {
	entries, err := harness.ListDir(dir, 32<<10)
	if err != nil {
		return -1
	}
	for _, entry := range entries {
		if entry.Kind == unix.DT_DIR && entry.Name != "." && entry.Name != ".." {
			n++
		}
	}
	return n
}

// origin is the name of an inode in the lowers, or "new".
func (c *cell) origin(ino uint64) string {
	name, ok := c.origins[ino&(1<<inodeBits-1)]
	if !ok || c.apart && c.identity && ino>>inodeBits == 0 {
		return "new"
	}
	return name
}

// findOrigins records the inodes of the lowers of the cell.
func (c *cell) findOrigins(o *harness.Overlay) error {
	c.origins = map[uint64]string{}
	for i, layer := range o.Lowers {
		err := filepath.WalkDir(layer, func(path string, _ fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			var st unix.Stat_t
			if err := unix.Lstat(path, &st); err != nil {
				return err
			}
			if rel, _ := filepath.Rel(layer, path); c.origins[st.Ino] == "" {
				c.origins[st.Ino] = fmt.Sprintf("lower%d:%s", i, harness.Word(rel))
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// differs lists the differences from what the mount before has shown of the same layers, but for
// inode numbers.
func (s *sight) differs(before *sight) string {
	d := harness.DiffLines(before.lines, s.lines)
	return d + harness.DiffLines(withPaths(before.exact), withPaths(s.exact))
}

// numbersDiffer lists the objects whose inode numbers differ from those that the mount before has
// shown.
func (s *sight) numbersDiffer(before *sight) (d string) {
	for _, rel := range slices.Sorted(maps.Keys(s.inode)) {
		if was, ok := before.inode[rel]; ok && was != s.inode[rel] {
			d += fmt.Sprintf("  %s: st_ino was %#x, is %#x\n", rel, was, s.inode[rel])
		}
	}
	return d
}

func withPaths(lines map[string]string) map[string]string {
	named := map[string]string{}
	for rel, line := range lines {
		named[rel] = harness.Word(rel) + " " + line
	}
	return named
}
