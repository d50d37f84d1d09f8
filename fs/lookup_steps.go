package fs

import (
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/inodecache"
	"github.com/fuse-overlay/fuse-overlay/internal/ondisk"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// meeting is the way from a name in a directory to its node, in three steps. With the directory's
// mu held, begin looks at what lies in the upper. A lower may take any time to answer, so askAside
// makes the calls on lowers with no lock held. With the mu held again, finish checks whether the
// answer still counts.
type meeting struct {
	name string
	keep bool // name may be kept; else it lies in a buffer that is used again

	node  *Node       // the answer, with a reference; nil: there is nothing
	found stack.Found // Stat: the attributes

	query  stack.Query
	need   stack.Need // what the query needs
	known  *Node      // was the name's node, with a reference, and lay at place
	former *Node      // a node with a reference that is of no use
	place  place
	anew   bool  // of a listing: the meeting has to begin anew
	fresh  *Node // a new directory with one reference, the only one; settleDir follows before finish

	handle     ondisk.Handle // of what the upper's object is a copy of
	hasHandle  bool
	origin     inodecache.Key // of that, if it was found
	hasOrigin  bool
	incomplete bool // the upper's object is to keep the handle as it is now

	err error // what askAside met with
}

// begin does what needs no lower. done is false if askAside and finish have to follow.
// Preconditions: p.dir.mu held, d opens p.
func (o *Overlay) begin(p *Node, d *openDir, m *meeting) (done bool, err error) {
	if n := p.dir.children[m.name]; n != nil && o.nodes.Ref(n) {
		m.known, m.place = n, n.place()
		if !m.place.inUpperDir() {
			return false, nil
		}
		if !d.Has(stack.Upper) {
			m.need = stack.NeedUpper
			return false, nil
		}
		met, err := o.metKnown(p, m, o.statAt(d, stack.Upper, m.name, &m.found.Stat))
		if met || err != nil {
			return met, err
		}
	}
	m.need, err = o.stack.Resolve(&m.query, &p.dir.Dir, d, &m.found)
	if err != nil || !m.need.Resolved() {
		return false, err
	}
	if !m.found.Exists() {
		return true, nil
	}
	if o.wantsOrigin(p, &m.found) {
		up, err := d.upper()
		if err == nil {
			m.handle, m.hasHandle, err = o.stack.OriginHandle(up.At(m.name))
		}
		if err != nil {
			return false, err
		}
	}
	if m.need == stack.NeedData || m.found.IsDir() || m.hasHandle {
		return false, nil
	}
	m.node, err = o.meet(p, m)
	return err == nil, err
}

// statAt fills st with what a layer's directory has under a name.
func (o *Overlay) statAt(d *openDir, layer int, name string, st *sys.Stat) error {
	h, err := d.Layer(layer)
	if err != nil {
		return err
	}
	return o.stack.Shown(layer, h.At(name)).Stat(st)
}

// metKnown ends a meeting with the known node. err is the error of the stat of its object. met is
// false if the name has another object now, because a layer was changed under the mount.
// Precondition: p.dir.mu is held.
func (o *Overlay) metKnown(p *Node, m *meeting, err error) (met bool, _ error) {
	n := m.known
	m.known = nil
	if err == nil && m.found.Stat.Mode&unix.S_IFMT == n.kind {
		m.node = n
		return true, nil
	}
	m.former = n
	if err != nil && err != unix.ENOENT {
		return false, err
	}
	if p.dir.children[m.name] == n {
		delete(p.dir.children, m.name)
	}
	return false, nil
}

// askAside makes the calls on layers that begin has left open, and keeps their errors for finish.
// For a new directory the caller calls settleDir. Precondition: no directory's mu is held.
func (o *Overlay) askAside(p *Node, d *openDir, m *meeting) {
	switch {
	case m.need == stack.NeedLoad: // the caller does that before the meeting begins anew
		return
	case m.need == stack.NeedUpper:
		_, m.err = d.upper()
		return
	case m.known != nil:
		m.err = o.statKnown(m.known, &m.place, d, m.name, &m.found.Stat)
		return
	case m.need != stack.NeedNothing:
		m.err = o.stack.LookUpInLayers(&m.query, d, &m.found)
	}
	if m.err != nil || !m.found.Exists() {
		return
	}
	if m.hasHandle {
		var st sys.Stat
		m.hasOrigin, m.incomplete, m.err = o.stack.Origin(&m.query, d, &m.handle, &m.found, &st)
		m.origin = keyOf(&st)
	}
	if m.found.IsDir() && m.err == nil {
		m.fresh = o.newNode(p, m.ownName(), &m.found, &m.query)
	}
}

// statKnown fills st with the attributes of a known node, which has a name in the directory that d opens.
func (o *Overlay) statKnown(n *Node, p *place, d *openDir, name string, st *sys.Stat) error {
	if p.shared != nil {
		return o.statShared(n, st)
	}
	return o.statAt(d, p.layer, name, st)
}

// finish ends a meeting if the answer of the layers still counts; done is false if not.
// Preconditions: those of begin.
func (o *Overlay) finish(p *Node, d *openDir, m *meeting) (done bool, err error) {
	switch {
	case m.need == stack.NeedUpper:
		return false, m.err
	case m.known != nil && m.known.place() != m.place:
		return false, nil
	case m.known != nil:
		return o.metKnown(p, m, m.err)
	}
	if n := p.dir.children[m.name]; n != nil && !o.nodes.Dropped(n) {
		return false, nil // another request was first
	}
	if counts, err := o.stack.Confirm(&m.query, &p.dir.Dir, d, &m.found); !counts || err != nil {
		return false, err
	}
	if m.err != nil {
		return false, m.err
	}
	if !m.found.Exists() {
		return true, nil
	}
	return o.attach(p, d, m)
}

// attach gives the name the node of what was found, which is not known there yet. Preconditions: those of begin.
func (o *Overlay) attach(p *Node, d *openDir, m *meeting) (done bool, err error) {
	o.recall(m)
	if m.incomplete {
		if up, err := d.upper(); err == nil {
			o.stack.SetOrigin(up.At(m.name), m.handle)
		}
	}
	if m.fresh != nil {
		p.dir.children[m.fresh.name] = m.fresh
		m.node, m.fresh = m.fresh, nil
		return true, nil
	}
	m.node, err = o.meet(p, m)
	return err == nil, err
}

// ownName is the name for a node to keep.
func (m *meeting) ownName() string {
	if m.keep {
		return m.name
	}
	return strings.Clone(m.name)
}

// abandon gives back what a meeting has not used. Precondition: no directory's mu is held.
func (o *Overlay) abandon(m *meeting) {
	if m.known != nil {
		o.forgetOne(m.known)
	}
	if m.former != nil {
		o.forgetOne(m.former)
	}
	m.known, m.former = nil, nil
	if m.fresh != nil {
		o.reject(m.fresh)
		m.fresh = nil
	}
}

// reject drops a new directory. Precondition: no other goroutine has a reference to it.
func (o *Overlay) reject(n *Node) {
	o.unref(n)
	if o.nodes.Drop(n) {
		o.releaseNumber(n, true)
	}
	o.evict(n)
}

// meet returns the node of an object that is no directory, with one reference more. For a further
// link of a known object that is the known node, else a new one. Precondition: p.dir.mu is held.
func (o *Overlay) meet(p *Node, m *meeting) (*Node, error) {
	n, known, err := o.knownObject(&m.found)
	if err != nil {
		m.former = n
		return nil, err
	}
	name := m.ownName()
	if !known {
		n = o.newNode(p, name, &m.found, nil)
		first, made, err := o.linkShared(n, &m.found)
		if err != nil {
			m.former = n
			return nil, err
		}
		if !made { // another of its names was looked up at the same time
			o.unref(n)
			o.nodes.Drop(n)
			n, known = first, true
		} else {
			o.claimNumber(n)
		}
	}
	if known {
		n.addName(placed{p, name})
	}
	p.dir.children[name] = n
	return n, nil
}

// newNode makes the node of what has been found under a name, with one reference. For a directory
// the caller calls settleDir or reject before any other goroutine has a reference. q is the look-up that
// found it.
func (o *Overlay) newNode(p *Node, name string, f *stack.Found, q *stack.Query) *Node {
	n := &Node{kind: f.Stat.Mode & unix.S_IFMT, parent: p, name: name, layer: int32(f.Layer)}
	if f.Layer == stack.Upper {
		n.key = keyOf(&f.Stat)
	}
	if f.Stat.Size >= bulk {
		n.flags.Or(large)
	}
	n.setDataLocked(f.Data) // no other goroutine has a reference to n
	if o.cfg.LayersChange {
		n.setRareLocked().parts = partsOf(f)
	}
	if f.Shared != nil {
		n.setRareLocked().shared = f.Shared
	}
	n.ino.Store(o.numbers.Of(keyOf(&f.Stat)))
	if f.IsDir() {
		n.dir = newDirState(stack.NewDir(f.Dirs, q))
	} else if manyLinks(&f.Stat) {
		n.flags.Or(manyNames)
	}
	o.nodes.Insert(n)
	o.crowded()
	return n
}
