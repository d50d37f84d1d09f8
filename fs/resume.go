package fs

import (
	"errors"
	"math"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs/conn"
	"github.com/fuse-overlay/fuse-overlay/fs/journal"
	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/inodecache"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// Inheritable is what the next process of a mount needs to know of it.
type Inheritable struct {
	Layers *stack.Inherited
	Conn   *conn.Inherited
}

// Inheritable returns what the next process needs for [Resume]. The descriptors in it are kept.
func (m *Mount) Inheritable() (*Inheritable, error) {
	o := m.overlay
	i := &Inheritable{Layers: o.stack.Inheritable(), Conn: m.Mount.Inheritable()}
	if o.cfg.LayersChange {
		return nil, errLayersChange
	}
	for _, fd := range append(i.Layers.Descriptors(), i.Conn.Device) {
		if err := o.journal.Keep(fd); err != nil {
			return nil, err
		}
	}
	return i, nil
}

// errLayersChange is the error of a mount whose nodes the journal does not describe.
var errLayersChange = errors.New("the mount shows an upperdir that another mount may change")

// Resume serves a mount whose process has died. i is what that process has stored. The kernel sends
// the requests again that were not answered.
func Resume(cfg Config, cc conn.MountConfig, i *Inheritable) (o *Overlay, m *Mount, err error) {
	cfg.inherited = i.Layers
	cfg.AfterVolatile = cfg.AfterVolatile || cfg.Volatile
	if o, err = openLayers(cfg); err != nil {
		return nil, nil, err
	}
	c, err := o.conn.Resume(cc, o.traits(), i.Conn)
	if err != nil {
		return nil, nil, err
	}
	if err := o.rebuild(); err != nil {
		return nil, nil, err
	}
	if err := o.serve(c); err != nil {
		return nil, nil, err
	}
	o.start(c)
	o.stack.PublishAgain(sys.Self(c.Place()))
	return o, &Mount{Mount: c, overlay: o}, nil
}

// rebuild makes the nodes that the kernel knows.
func (o *Overlay) rebuild() error {
	entries, last := o.cfg.Journal.Nodes()
	r := rebuilding{o: o, nodes: make(map[uint64]*Node, len(entries))}
	for i := range entries {
		r.makeNode(&entries[i])
	}
	if r.nodes[inodecache.RootID] == nil {
		return errors.New("the journal has no root")
	}
	o.root = r.nodes[inodecache.RootID]
	o.nodes.Skip(last)
	for i := range entries {
		r.place(&entries[i])
	}
	o.journal = &nodeJournal{o.cfg.Journal, o.log}
	for _, n := range r.elsewhere() {
		if err := o.findAgain(n); err != nil {
			return &findAgainError{n.name, err}
		}
	}
	return nil
}

// findAgainError is the error of a directory that a redirect led to.
type findAgainError struct {
	name string
	err  error
}

func (e *findAgainError) Error() string {
	return "cannot find the directory " + e.name + " again: " + e.err.Error()
}

// Unwrap returns the reason.
func (e *findAgainError) Unwrap() error { return e.err }

// rebuilding makes nodes of the entries of a journal. No other goroutine uses the overlay.
type rebuilding struct {
	o     *Overlay
	nodes map[uint64]*Node
	moved []*Node // directories that a redirect leads to
}

// makeNode makes the node of an entry, without its names.
func (r *rebuilding) makeNode(e *journal.Node) {
	o := r.o
	n := &Node{kind: e.Kind, layer: int32(e.Layer), unlinked: e.Flags&journal.Unlinked != 0, key: inodecache.Key{Dev: e.Dev, Ino: e.Inode}}
	n.ino.Store(e.Ino)
	if object := inheritedObject(e.Descriptor); object != nil {
		n.setRareLocked().object = object
	}
	if e.Flags&journal.Linkable != 0 {
		n.setRareLocked().linkable = true
	}
	switch {
	case e.Kind == unix.S_IFDIR && n.unlinked:
		n.dir = newDirState(stack.RemovedDir(e.Layer))
	case e.Kind == unix.S_IFDIR:
		n.dir = newDirState(stack.InheritedDir(e.Layers))
		if e.Flags&journal.Elsewhere != 0 && e.Name.Parent != 0 {
			r.moved = append(r.moved, n)
		}
	case e.Kind == unix.S_IFREG && e.Layer == stack.Upper:
		// A process may have it open for writing past the page cache, which may have data of it.
		n.flags.set(flagDirectIO | flagPagesRead)
	}
	o.nodes.Restore(n, e.ID, e.Granted)
	r.nodes[e.ID] = n
	o.numbers.Reserve(e.Ino)
	if n.key == (inodecache.Key{}) {
		return
	}
	if o.numbers.Of(n.key) != e.Ino && n.dir == nil {
		o.numbers.Restore(n.key, e.Ino)
	}
	if n.dir == nil {
		o.nodes.Link(n.key, n)
	}
}

// place gives the node of an entry its names.
func (r *rebuilding) place(e *journal.Node) {
	n := r.nodes[e.ID]
	if e.Name.Parent == 0 {
		return
	}
	n.parent, n.name = r.nodes[e.Name.Parent], e.Name.Text
	if n.parent == nil || n.parent.dir == nil { // no node of the kernel's is without its directory
		n.parent, n.unlinked = r.o.root, true
		return
	}
	if !n.unlinked {
		n.parent.dir.children[n.name] = n
	}
	for _, other := range e.Other {
		if p := r.nodes[other.Parent]; p != nil && p.dir != nil && !n.unlinked {
			rare := n.setRareLocked()
			rare.others = append(rare.others, placed{p, other.Text})
			p.dir.children[other.Text] = n
		}
	}
	r.o.numbers.claim(n)
}

// elsewhere returns the directories that a redirect leads to, each after those above it.
func (r *rebuilding) elsewhere() []*Node {
	depth := func(n *Node) (d int) {
		for ; n.parent != nil; n = n.parent {
			d++
		}
		return d
	}
	slices.SortFunc(r.moved, func(a, b *Node) int { return depth(a) - depth(b) })
	return r.moved
}

// findAgain finds the layers of a directory by its name. Preconditions: no other goroutine uses the
// overlay.
func (o *Overlay) findAgain(n *Node) error {
	d := o.openDir(n.parent)
	defer d.release()
	q, f := stack.Query{Name: n.name, Use: stack.ToList}, stack.Found{}
	for {
		need, err := o.stack.Resolve(&q, &n.parent.dir.Dir, d, &f)
		switch {
		case err != nil:
			return err
		case need == stack.NeedLoad:
			err = o.load(n.parent, q.Use)
		case need == stack.NeedUpper:
			_, err = d.upper()
		case need == stack.NeedLayers:
			err = o.stack.LookUpInLayers(&q, d, &f)
		default:
			if !f.IsDir() {
				return unix.ENOENT
			}
			n.dir.Dir = stack.NewDir(f.Dirs, &q)
			return o.load(n, stack.ToList)
		}
		if err != nil {
			return err
		}
	}
}

// forgetUnused drops the nodes that the kernel has no reference to. It comes after the interrupted
// requests were reconciled.
func (o *Overlay) forgetUnused() {
	for _, n := range o.nodes.Sample(math.MaxInt, func(n *Node) bool { return n != o.root }) {
		if _, last := o.nodes.Unref(n.ID(), 0); last {
			o.drop(n)
		}
	}
}
