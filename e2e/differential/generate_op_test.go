package differential

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
	"github.com/fuse-overlay/fuse-overlay/e2e/operation"
)

// weights are the relative frequencies of the operations.
var weights = []struct {
	n    int
	name string
}{
	{8, "create"}, {5, "overwrite"}, {6, "append"}, {5, "pwrite"}, {4, "truncate"}, {8, "mkdir"}, {8, "rmdir"},
	{10, "unlink"}, {14, "rename"}, {6, "link"}, {4, "symlink"}, {4, "mknod"}, {5, "chmod"}, {4, "chown"},
	{4, "utimes"}, {5, "setxattr"}, {3, "removexattr"}, {2, "getxattr"}, {2, "listxattr"}, {4, "readdir"}, {5, "read"},
	{2, "readlink"}, {3, "stat"}, {7, "slot-open"}, {3, "slot-write"}, {3, "slot-read"}, {2, "slot-truncate"},
	{3, "slot-stat"}, {2, "slot-sync"}, {1, "slot-chmod"}, {2, "slot-fallocate"}, {2, "slot-close"},
	{3, "mapread"}, {4, "mapwrite"}, {3, "slot-map"}, {4, "slot-mapread"}, {6, "slot-mapwrite"}, {2, "slot-msync"},
	{1, "slot-unmap"}, {1, "slot-writeback"}, {1, "slot-syncfs"}, {1, "slot-dup"}, {1, "slot-reopen"}, {1, "slot-process"},
}

// onOpenFiles are the operations by path that often name a file that a slot has open.
var onOpenFiles = map[string]bool{
	"overwrite": true, "append": true, "pwrite": true, "truncate": true, "unlink": true, "rename": true, "chmod": true,
	"utimes": true, "read": true, "stat": true, "mapread": true, "mapwrite": true, "slot-open": true,
}

var weightSum = func() (n int) {
	for _, w := range weights {
		n += w.n
	}
	return n
}()

func (g *generator) op() operation.Op {
	n := g.IntN(weightSum)
	name := ""
	for _, w := range weights {
		if n -= w.n; n < 0 {
			name = w.name
			break
		}
	}
	o := operation.Op{Name: name, Path: g.path(), Slot: g.IntN(operation.Slots)}
	if g.chance(15) {
		o.UID = 1000 + g.IntN(2)
	}
	g.chooseSlot(&o)
	g.fill(&o)
	if onOpenFiles[o.Name] && g.chance(25) {
		g.nameOpenFile(&o)
	}
	g.follow(o)
	if strings.HasPrefix(o.Name, "slot-") && o.Name != "slot-open" {
		o.Path = ""
	}
	return o
}

// chooseSlot makes an operation on a slot use one that is open, or mapped. If there is none, the
// operation becomes the one that opens or maps a slot.
func (g *generator) chooseSlot(o *operation.Op) {
	if !strings.HasPrefix(o.Name, "slot-") || o.Name == "slot-open" {
		return
	}
	var open, mapped []int
	for i := range operation.Slots {
		if g.slots[i] != "" {
			open = append(open, i)
		}
		if g.maps[i] {
			mapped = append(mapped, i)
		}
	}
	ofMapping := slices.Contains([]string{"slot-mapread", "slot-mapwrite", "slot-msync", "slot-unmap"}, o.Name)
	switch {
	case ofMapping && len(mapped) > 0:
		o.Slot = pick(g, mapped)
		return
	case ofMapping:
		o.Name = "slot-map"
	}
	if len(open) > 0 {
		o.Slot = pick(g, open)
	} else {
		o.Name = "slot-open"
	}
}

// nameOpenFile makes an operation name a file that a slot has open.
func (g *generator) nameOpenFile(o *operation.Op) {
	path := g.slots[g.IntN(operation.Slots)]
	switch {
	case path == "":
	case o.Name == "rename" && g.chance(50):
		o.Path2 = path
	default:
		o.Path = path
	}
}

// follow notes what the slots have open and mapped after an operation that works.
func (g *generator) follow(o operation.Op) {
	switch o.Name {
	case "slot-open":
		g.slots[o.Slot], g.maps[o.Slot] = o.Path, false
	case "slot-close":
		g.slots[o.Slot] = ""
	case "slot-map":
		g.maps[o.Slot] = true
	case "slot-unmap":
		g.maps[o.Slot] = false
	case "rename":
		for i, path := range g.slots {
			if path == o.Path {
				g.slots[i] = o.Path2
			}
		}
	}
}

// fill sets the arguments of an operation.
func (g *generator) fill(o *operation.Op) {
	switch o.Name {
	case "create", "overwrite":
		o.N, o.Text = g.perm(diffModes), g.content()+"."
		if g.chance(70) {
			o.Path = g.fresh()
		}
	case "append":
		o.Path, o.Text = g.file(), g.content()+"."
	case "mapwrite", "slot-mapwrite":
		o.Path, o.N, o.Text = g.file(), g.offset(), g.content()+"."
		if g.chance(70) { // most files are short
			o.N = int64(g.IntN(3))
		}
	case "pwrite", "slot-write":
		o.Path, o.N, o.Text = g.file(), g.offset(), g.content()+"."
	case "truncate", "slot-truncate":
		o.Path, o.N = g.file(), g.offset()*int64(g.IntN(3))
	case "unlink":
		o.Path = g.object()
	case "read", "mapread":
		o.Path = g.file()
	case "slot-msync":
		o.N = pick(g, []int64{unix.MS_SYNC, unix.MS_ASYNC})
	case "mkdir":
		o.Path, o.N = g.fresh(), g.perm(dirModes)
	case "readlink":
		if len(g.other) > 0 {
			o.Path = pick(g, g.other)
		}
	case "rmdir", "readdir":
		o.Path = g.dir()
	case "rename":
		if g.chance(60) {
			o.Path = g.object()
		}
		o.Path2 = g.path()
		if g.chance(60) {
			o.Path2 = g.fresh()
		}
		o.N = pick(g, []int64{0, 0, 0, 0, unix.RENAME_NOREPLACE, unix.RENAME_EXCHANGE})
	case "link":
		o.Path, o.Path2 = g.object(), g.fresh()
	case "symlink":
		o.Path, o.Text = g.fresh(), pick(g, []string{"a", "b/c", "../f", "nowhere", "."})
	case "mknod":
		o.Path = g.fresh()
		node := pick(g, [][2]int64{{unix.S_IFIFO, 0}, {unix.S_IFSOCK, 0}, {unix.S_IFREG, 0}, {unix.S_IFCHR, 0},
			{unix.S_IFCHR, int64(unix.Mkdev(1, 3))}, {unix.S_IFBLK, int64(unix.Mkdev(7, 251))}})
		o.N, o.M = node[0]|0o640, node[1]
	case "chmod", "slot-chmod":
		modes := diffModes
		if g.chance(50) {
			modes = dirModes
		}
		o.N = g.perm(modes)
	case "chown":
		o.N, o.M = pick(g, []int64{0, 1000, 1001}), pick(g, []int64{0, 1000})
	case "utimes":
		o.N, o.M = harness.OldTime.Unix()+int64(g.IntN(1000)), int64(g.IntN(1_000_000_000))
	case "setxattr":
		if g.chance(50) {
			o.Path = g.file()
		}
		o.Key, o.Text = g.xattrKey(), fmt.Sprintf("w%d", g.IntN(1000))
		o.N = pick(g, []int64{0, 0, 0, unix.XATTR_CREATE, unix.XATTR_REPLACE})
	case "removexattr", "getxattr":
		o.Key = g.xattrKey()
	case "slot-open":
		o.Path = g.file()
		o.N = pick(g, []int64{0, 0, 0, unix.O_APPEND, unix.O_TRUNC, unix.O_CREAT})
	case "slot-fallocate":
		o.N = pick(g, []int64{0, unix.FALLOC_FL_KEEP_SIZE, unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE,
			unix.FALLOC_FL_ZERO_RANGE, unix.FALLOC_FL_PUNCH_HOLE})
		o.M, o.Text = g.offset(), strings.Repeat("-", 1+g.IntN(9))
	}
}
