package kills

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// policy is what a process has to know of the mount and of its user.
type policy struct {
	Through   bool // a write(2) that has returned is in the upper
	Redirects bool // directories of a lower can be renamed
	Replaces  bool // and can replace directories
	Tmpfiles  bool // the mount has O_TMPFILE
	Trusted   bool // the user may set xattrs of namespace trusted
	UID, GID  int
	Owners    []int // ids that objects may get; empty: the user may not change them
}

func (p *policy) newObject(kind, mode uint32) *object {
	return &object{Kind: kind, Mode: mode, UID: p.UID, GID: p.GID}
}

// sharedDirs are the directories in which all processes work. No process changes them.
var sharedDirs = []string{"s0", "s1", "s1/t0", "s2"}

// generator makes the operations of a process from a seed.
type generator struct {
	*rand.Rand
	id    int // of the process
	tree  *tree
	p     *policy
	queue []op // what comes next in any case
}

func newGenerator(seed uint64, id int, t *tree, p *policy) *generator {
	return &generator{Rand: rand.New(rand.NewPCG(seed, uint64(id))), id: id, tree: t, p: p}
}

func pick[T any](g *generator, list []T) T { return list[g.IntN(len(list))] }

func (g *generator) chance(percent int) bool { return g.IntN(100) < percent }

// kinds are the operations, those twice that are to come more often.
var kinds = []string{
	"create", "create", "create", "replace", "replace", "overwrite", "append", "append", "pwrite", "map", "truncate", "tmpfile",
	"chmod", "chmod", "chown", "utimes", "utimes", "setxattr", "setxattr", "removexattr", "mkdir", "mkdir", "rmdir", "rmdir", "unlink",
	"unlink", "unlink", "empty", "symlink", "mkfifo", "link", "rename", "rename", "rename", "rename-dir", "rename-dir", "exchange",
	"slot-open", "slot-open", "slot-write", "slot-write", "slot-map", "slot-map", "slot-sync", "slot-close",
}

// next is an operation that must have the result Want.
func (g *generator) next() op {
	for len(g.queue) == 0 {
		kind := pick(g, kinds)
		if strings.HasPrefix(kind, "slot") {
			g.slot(kind)
		} else {
			g.named(kind)
		}
	}
	o := g.queue[0]
	g.queue = g.queue[1:]
	return o
}

func (g *generator) emit(ops ...op) { g.queue = append(g.queue, ops...) }

// named queues an operation on names, if there are some for it.
func (g *generator) named(kind string) {
	switch kind {
	case "create", "mkdir", "mkfifo", "symlink", "tmpfile":
		g.make(kind)
	case "replace":
		from, to := g.fresh(), g.some((*object).isFile)
		if from != "" && to != "" {
			g.emit(op{Kind: "create", Path: from, N: 0o644, Data: g.bytes(), Sync: g.chance(70)}, op{Kind: "rename", Path: from, Path2: to})
		}
	case "overwrite", "append", "pwrite", "map", "truncate":
		g.data(kind)
	case "rmdir":
		if dir := g.some(func(o *object) bool { return o.isDir() }); dir != "" && len(g.tree.below(dir)) == 0 {
			g.emit(op{Kind: kind, Path: dir})
		}
	case "unlink":
		if p := g.some(func(o *object) bool { return !o.isDir() }); p != "" {
			g.emit(op{Kind: kind, Path: p})
		}
	case "empty":
		g.empty()
	case "link":
		from, to := g.some((*object).isFile), g.fresh()
		if from != "" && to != "" {
			g.emit(op{Kind: kind, Path: from, Path2: to})
		}
	case "rename", "rename-dir", "exchange":
		g.rename(kind)
	default:
		g.attribute(kind)
	}
}

func (g *generator) make(kind string) {
	o := op{Kind: kind, Path: g.fresh(), N: pick(g, []int64{0o644, 0o600, 0o755, 0o777})}
	if o.Path == "" || kind == "tmpfile" && !g.p.Tmpfiles {
		return
	}
	switch kind {
	case "create", "tmpfile":
		o.Data, o.Sync = g.bytes(), g.chance(30)
	case "symlink":
		o.Text = pick(g, []string{"a", "../s0", "nowhere/at/all", strings.Repeat("x", 200)})
	case "mkdir":
		o.N |= 0o700
	}
	g.emit(o)
}

// data queues a change of a file that is not open in a slot: how much of the data of the slot is in
// the upper would not be known.
func (g *generator) data(kind string) {
	p := g.some(func(o *object) bool { return o.isFile() && o.certain() })
	if p == "" {
		return
	}
	size := int64(len(g.tree.at(p).Data))
	o := op{Kind: kind, Path: p, Data: g.bytes(), Sync: g.chance(30), N: g.Int64N(size + 1)}
	switch {
	case kind == "map":
		if size == 0 {
			return
		}
		o.N = g.Int64N(size)
		o.Data = o.Data[:min(int64(len(o.Data)), size-o.N)]
	case kind == "truncate":
		o.N, o.Data = o.N*int64(g.IntN(3)), nil
		if o.N == size {
			return
		}
	}
	g.emit(o)
}

// empty queues the removal of a directory with all that is in it.
func (g *generator) empty() {
	dir := g.some((*object).isDir)
	if dir == "" {
		return
	}
	below := g.tree.below(dir)
	if len(below) > 12 {
		return
	}
	for i := len(below) - 1; i >= 0; i-- {
		kind := "unlink"
		if g.tree.at(below[i]).isDir() {
			kind = "rmdir"
		}
		g.emit(op{Kind: kind, Path: below[i]})
	}
	g.emit(op{Kind: "rmdir", Path: dir})
	if g.chance(50) {
		g.emit(op{Kind: "mkdir", Path: dir, N: 0o750})
	}
}

func (g *generator) attribute(kind string) {
	p := g.some(func(o *object) bool {
		return o.isFile() || o.isDir() || kind == "chown" || kind == "utimes" && o.Kind == unix.S_IFLNK
	})
	if p == "" || kind == "chown" && len(g.p.Owners) == 0 {
		return
	}
	n := g.tree.at(p)
	o := op{Kind: kind, Path: p}
	switch kind {
	case "chmod":
		o.N = pick(g, []int64{0o644, 0o600, 0o755, 0o700, 0o666})
		if n.isDir() {
			o.N |= 0o700
		}
	case "chown":
		o.N, o.M = int64(pick(g, g.p.Owners)), int64(pick(g, g.p.Owners))
	case "utimes":
		if !n.certain() { // the time would change when the data is written back
			return
		}
		o.N = 1_000_000_000 + g.Int64N(1000)
	case "setxattr":
		o.Text, o.Data = g.xattrName(), bytes.Repeat([]byte{byte('a' + g.IntN(26))}, 1+g.IntN(200))
	case "removexattr":
		if o.Text = g.xattrName(); n.Xattrs[o.Text] == "" {
			return
		}
	}
	g.emit(o)
}

func (g *generator) xattrName() string {
	if g.p.Trusted && g.chance(30) {
		return "trusted.t"
	}
	return pick(g, []string{"user.a", "user.b"})
}

// rename queues a rename or an exchange. A directory of a lower cannot be renamed without
// redirects.
func (g *generator) rename(kind string) {
	movesDir := kind == "rename-dir" || kind == "exchange" && g.chance(30)
	suits := func(o *object) bool { return o.isDir() == movesDir }
	from, to := g.some(suits), g.fresh()
	if kind == "exchange" || to != "" && g.chance(40) {
		to = g.some(suits)
	}
	if from == "" || to == "" || isBelow(to, from) || isBelow(from, to) {
		return
	}
	a, b := g.tree.at(from), g.tree.at(to)
	if a == b { // two names of one object: the call does nothing
		return
	}
	o := op{Kind: "rename", Path: from, Path2: to}
	if kind == "exchange" {
		o.Kind = kind
	}
	if movesDir {
		if b != nil && kind != "exchange" && (len(g.tree.below(to)) > 0 || !g.p.Replaces) {
			return
		}
		if !g.p.Redirects && (a.InLower || kind == "exchange" && b.InLower) {
			o.Want = unix.EXDEV
		}
	}
	g.emit(o)
}

// slot queues an operation on a file that stays open.
func (g *generator) slot(kind string) {
	o := op{Kind: kind, Slot: g.IntN(slots)}
	at := g.tree.Open[o.Slot]
	if (kind == "slot-open") != (at == notOpen) {
		return
	}
	if kind == "slot-open" {
		// Which name of a linked lower file gets the data is not known.
		o.Path = g.some(func(o *object) bool { return o.isFile() && (!o.InLower || g.tree.Indexed) })
		if o.Path != "" {
			g.emit(o)
		}
		return
	}
	n := g.tree.Objects[at]
	size := int64(len(n.Data))
	switch kind {
	case "slot-write":
		// What is written through must not come beside a dirty page. With writeback=0 the kernel may
		// lose an append then (docs/design/mapped-append.md).
		if g.p.Through && !n.certain() || len(n.Before) > 12 {
			return
		}
		o.N, o.Data = g.Int64N(size+1), g.bytes()
		if g.chance(50) {
			o.N = size
		}
	case "slot-map":
		if size == 0 || len(n.Before) > 12 {
			return
		}
		o.N, o.Data, o.Sync = g.Int64N(size), g.bytes(), g.chance(50)
		o.Data = o.Data[:min(int64(len(o.Data)), size-o.N)]
	}
	g.emit(o)
}

// namesOfProcess is how many names a process uses in each directory.
const namesOfProcess = 14

// fresh is a name that does not exist, in a directory that does. It is empty if there are enough
// objects.
func (g *generator) fresh() string {
	const enough = 70
	if len(g.tree.Names) > enough {
		return ""
	}
	dir := pick(g, sharedDirs)
	if g.chance(50) {
		if own := g.some((*object).isDir); own != "" && strings.Count(own, "/") < 4 {
			dir = own
		}
	}
	p := path.Join(dir, fmt.Sprintf("w%d-%c", g.id, 'a'+rune(g.IntN(namesOfProcess))))
	if g.tree.at(p) != nil {
		return ""
	}
	return p
}

// some is a name of an object that suits, or empty.
func (g *generator) some(suits func(o *object) bool) string {
	var list []string
	for _, p := range g.tree.paths() {
		if suits(g.tree.at(p)) {
			list = append(list, p)
		}
	}
	if len(list) == 0 {
		return ""
	}
	return pick(g, list)
}

// bytes are random bytes without zeros, mostly a few pages.
func (g *generator) bytes() []byte {
	size := 1 + g.IntN(9000)
	switch {
	case g.chance(40):
		size = 1 + g.IntN(40)
	case g.chance(5):
		size = 100_000 + g.IntN(300_000)
	}
	return nonzero(g.Rand, size)
}

func nonzero(r *rand.Rand, size int) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(1 + r.IntN(255))
	}
	return b
}
