package kills

import (
	"bytes"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// object is what an object of the mount must be.
type object struct {
	Kind     uint32 // a type bit pattern of st_mode
	Mode     uint32
	UID, GID int
	Xattrs   map[string]string
	Target   string // of a symbolic link
	// Data is the content of a file. Before are those that the file had since it was last known what
	// the upper has, the oldest first. Without any the upper has Data.
	Data   []byte
	Before [][]byte
	// Mtime is the mtime in seconds if an operation has set it, and no later one has changed it.
	Mtime int64
	// InLower: a directory merges with one of a lower, or a file is one of several names that a lower
	// has for it.
	InLower bool
}

func (o *object) isDir() bool  { return o.Kind == unix.S_IFDIR }
func (o *object) isFile() bool { return o.Kind == unix.S_IFREG }

// certain reports whether the upper must have exactly Data.
func (o *object) certain() bool { return len(o.Before) == 0 }

// write gives a file another content, which the upper may not have yet, or in part.
func (o *object) write(data []byte) {
	o.Before = append(o.Before, o.Data)
	o.Data, o.Mtime = data, 0
}

// sync notes that the upper has the content.
func (o *object) sync() { o.Before = nil }

// mayHold reports whether a file may have this content after a kill.
func (o *object) mayHold(got []byte) bool {
	if bytes.Equal(got, o.Data) {
		return true
	}
	if o.certain() {
		return false
	}
	versions := append(slices.Clone(o.Before), o.Data)
	least, most := len(o.Data), len(o.Data)
	for _, v := range versions {
		least, most = min(least, len(v)), max(most, len(v))
	}
	if len(got) < least || len(got) > most {
		return false
	}
	for i, c := range got {
		if c == 0 && i >= len(o.Before[0]) {
			continue // a later part of the file was stored first
		}
		if !slices.ContainsFunc(versions, func(v []byte) bool { return i < len(v) && v[i] == c }) {
			return false
		}
	}
	return true
}

// tree maps the names of one process to their objects. Hard links share one.
type tree struct {
	// Objects may have some without names.
	Objects []*object
	// Names maps paths below the mount to indices in Objects.
	Names map[string]int
	// Open are the indices of the files that are kept open, or notOpen.
	Open [slots]int
	// Indexed: a change through one name of a lower file shows under all.
	Indexed bool
	// Handles: the daemon opens objects by handle, so all names of such a file have one inode number.
	Handles bool
	// Closed are the indices of files whose data close(2) has written back, before it was known that
	// the daemon was alive after that.
	Closed []int
}

const notOpen = -1

func newTree(indexed, handles bool) *tree {
	t := &tree{Names: map[string]int{}, Indexed: indexed, Handles: handles}
	t.closeAll()
	return t
}

// write gives the file of an index another content.
func (t *tree) write(i int, data []byte) {
	t.Closed = slices.DeleteFunc(t.Closed, func(closed int) bool { return closed == i })
	t.Objects[i].write(data)
}

// close notes that the file of an index was closed. The data is not certain yet. If a page could
// not be written back, because the daemon was dead, Linux reports that to one close(2) only. That
// may be one of another process (filemap_check_errors).
func (t *tree) close(i int) {
	if !t.Objects[i].certain() {
		t.Closed = append(t.Closed, i)
	}
}

// daemonReplied notes that the daemon was alive after all that was done before.
func (t *tree) daemonReplied() {
	for _, i := range t.Closed {
		t.Objects[i].sync()
	}
	t.Closed = nil
}

// closeAll notes that no file is open.
func (t *tree) closeAll() {
	t.Closed = nil
	for i := range t.Open {
		t.Open[i] = notOpen
	}
}

func (t *tree) at(path string) *object {
	i, ok := t.Names[path]
	if !ok {
		return nil
	}
	return t.Objects[i]
}

func (t *tree) add(path string, o *object) {
	t.Names[path] = len(t.Objects)
	t.Objects = append(t.Objects, o)
}

// paths are all names, sorted.
func (t *tree) paths() []string { return slices.Sorted(maps.Keys(t.Names)) }

// below are the names in a directory and its subdirectories, sorted.
func (t *tree) below(dir string) (list []string) {
	for p := range t.Names {
		if strings.HasPrefix(p, dir+"/") {
			list = append(list, p)
		}
	}
	slices.Sort(list)
	return list
}

// links is the number of names of an object.
func (t *tree) links(o *object) (n int) {
	for _, i := range t.Names {
		if t.Objects[i] == o {
			n++
		}
	}
	return n
}

// copy returns a copy of the tree. Contents are shared, because they are never changed.
func (t *tree) copy() *tree {
	c := &tree{Names: maps.Clone(t.Names), Open: t.Open, Indexed: t.Indexed, Handles: t.Handles, Closed: slices.Clone(t.Closed)}
	for _, o := range t.Objects {
		clone := *o
		clone.Xattrs, clone.Before = maps.Clone(o.Xattrs), slices.Clone(o.Before)
		c.Objects = append(c.Objects, &clone)
	}
	return c
}

// compact leaves out the objects without names. No file may be open.
func (t *tree) compact() {
	c := tree{Names: map[string]int{}}
	at := map[int]int{}
	for _, p := range t.paths() {
		i := t.Names[p]
		if _, ok := at[i]; !ok {
			at[i] = len(c.Objects)
			c.Objects = append(c.Objects, t.Objects[i])
		}
		c.Names[p] = at[i]
	}
	t.Objects, t.Names = c.Objects, c.Names
}

// changed returns the object of a name that is about to be changed. Without an index, a change of a
// linked file of a lower makes that name a file of its own.
func (t *tree) changed(path string) *object {
	o := t.at(path)
	if o.InLower && o.isFile() && !t.Indexed {
		clone := *o
		clone.Xattrs, clone.InLower = maps.Clone(o.Xattrs), false
		t.add(path, &clone)
		return &clone
	}
	return o
}

// move gives an object, and all below it, another name.
func (t *tree) move(from, to string) {
	below := t.below(from)
	t.Names[to] = t.Names[from]
	delete(t.Names, from)
	for _, p := range below {
		t.Names[to+strings.TrimPrefix(p, from)] = t.Names[p]
		delete(t.Names, p)
	}
}

// exchange swaps two objects with all below them.
func (t *tree) exchange(a, b string) {
	const aside = "\x00"
	t.move(a, aside)
	t.move(b, a)
	t.move(aside, b)
}

// isBelow reports whether a path is a directory or lies in it.
func isBelow(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, dir+"/")
}

// dirOf is the directory of a path, without a dot for the root.
func dirOf(path string) string { return filepath.Dir(path) }
