package fs

import (
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// Lookup answers LOOKUP. A name that is not there is an entry without a node, which the kernel keeps as well.
func (o *Overlay) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	o.counts.add(opLookup)
	p, err := o.node(h.NodeId)
	if err != nil {
		return o.status("lookup", err)
	}
	var st sys.Stat
	o.renameMu.RLock()
	n, err := o.child(p, name, &st)
	o.renameMu.RUnlock()
	if err != nil {
		return o.status("lookup", err)
	}
	if o.cfg.LayersChange && (n == nil || n.dir == nil) {
		o.walked.Store(nil)
	}
	if n == nil {
		out.SetEntryTimeout(o.policy.timeout)
		return fuse.OK
	}
	if n.dir == nil {
		o.listers.looked(p.dir.lister.Swap(0))
	}
	return o.status("lookup", o.entry(n, &st, out))
}

// child returns the node of a name with one reference more, and its attributes; nil when there is nothing.
// Precondition: renameMu R.
func (o *Overlay) child(p *Node, name string, st *sys.Stat) (*Node, error) {
	if p.dir == nil {
		return nil, unix.ENOTDIR
	}
	o.refresh(p)
	d := o.open(p)
	defer d.release()
	p.dir.mu.Lock()
	defer p.dir.mu.Unlock()
	if err := o.stack.LoadToLook(&p.dir.Dir, d); err != nil {
		return nil, err
	}
	return o.childLocked(p, d, name, st)
}

// childLocked is child for who holds p.dir.mu. Preconditions: renameMu R, p.dir.mu held, p loaded, d opens p.
func (o *Overlay) childLocked(p *Node, d *openDir, name string, st *sys.Stat) (*Node, error) {
	if o.cfg.LayersChange {
		return o.childAnew(p, d, name, st)
	}
	if n, err := o.knownLocked(p, d, name, st); n != nil || err != nil {
		return n, err
	}
	var f stack.Found
	if err := o.stack.Lookup(&p.dir.Dir, d, name, &f); err != nil || !f.Exists() {
		return nil, err
	}
	if err := o.recall(p, d, name, &f); err != nil {
		return nil, err
	}
	return o.found(p, strings.Clone(name), &f, st) // the caller's may lie in a buffer
}

// listedLocked is childLocked for an entry of a listing of p under way, but that a new directory is left unsettled.
func (o *Overlay) listedLocked(p *Node, d *openDir, l *stack.Listed, st *sys.Stat) (n *Node, unsettled bool, err error) {
	if o.cfg.LayersChange {
		n, err := o.childAnew(p, d, l.Name, st)
		return n, false, err
	}
	if n, err := o.knownLocked(p, d, l.Name, st); n != nil || err != nil {
		return n, false, err
	}
	var f stack.Found
	if err := o.stack.LookupListed(&p.dir.Dir, l, d, &f); err != nil || !f.Exists() {
		return nil, false, err
	}
	if err := o.recall(p, d, l.Name, &f); err != nil {
		return nil, false, err
	}
	if f.IsDir() {
		*st = f.Stat
		n, unsettled = o.meet(p, l.Name, &f)
		return n, unsettled, nil
	}
	n, err = o.found(p, l.Name, &f, st)
	return n, false, err
}

// found is adopt that tells the attributes besides. Preconditions: those of adopt.
func (o *Overlay) found(p *Node, name string, f *stack.Found, st *sys.Stat) (*Node, error) {
	n, err := o.adopt(p, name, f)
	*st = f.Stat
	if err != nil || f.Shared == nil {
		return n, err
	}
	if err := o.statShared(n, st); err != nil { // it may have been changed through another name since it was found
		o.unref(n)
		return nil, err
	}
	return n, nil
}

// knownLocked returns the node that a name has already, with one reference more; nil where there is none or not any more.
// Preconditions: those of childLocked.
func (o *Overlay) knownLocked(p *Node, d *openDir, name string, st *sys.Stat) (*Node, error) {
	n := p.dir.children[name]
	if n == nil || !o.nodes.Ref(n) {
		return nil, nil
	}
	err := o.statKnown(n, d, name, st)
	if err == nil && st.Mode&unix.S_IFMT == n.kind {
		return n, nil
	}
	o.unref(n)
	if err != nil && err != unix.ENOENT {
		return nil, err
	}
	delete(p.dir.children, name) // a layer changed under the mount: look again
	return nil, nil
}

// statKnown fills st with the attributes of a known node, which has a name in the directory that d opens. Precondition: renameMu
// R.
func (o *Overlay) statKnown(n *Node, d *openDir, name string, st *sys.Stat) error {
	p := n.place()
	if p.shared != nil {
		return o.statShared(n, st)
	}
	h, err := d.Layer(p.layer)
	if err != nil {
		return err
	}
	return o.stack.Shown(p.layer, h.At(name)).Stat(st)
}

// unref gives back a reference that was not handed to the kernel. The node stays for a FORGET or the next look to drop.
// Precondition: none; in particular a directory's mu may be held.
func (o *Overlay) unref(n *Node) { o.nodes.Unref(n.ID(), 1) }

// adopt returns the node of an object found under a name, with one reference more: the one there is, for a further link
// of a known object, or a new one. It keeps name. Preconditions: renameMu R, p.dir.mu held.
func (o *Overlay) adopt(p *Node, name string, f *stack.Found) (*Node, error) {
	n, unsettled := o.meet(p, name, f)
	if unsettled {
		var err [1]error
		if o.settleDirs([]*Node{n}, err[:]); err[0] != nil {
			o.reject(p, name, n)
			return nil, err[0]
		}
	}
	return n, nil
}

// meet is adopt, but that a new directory is left to be settled, or rejected, before p.dir.mu is given back: unsettled.
func (o *Overlay) meet(p *Node, name string, f *stack.Found) (n *Node, unsettled bool) {
	if n, ok := o.knownObject(f); ok {
		n.addName(placed{p, name})
		p.dir.children[name] = n
		return n, false
	}
	n = &Node{kind: f.Stat.Mode & unix.S_IFMT, parent: p, name: name, layer: int32(f.Layer)}
	if f.Layer == stack.Upper {
		n.key = keyOf(&f.Stat)
	}
	if f.Stat.Size >= bulk {
		n.flags.Or(large)
	}
	n.setDataLocked(f.Data) // nobody else knows n
	if o.cfg.LayersChange {
		n.setRareLocked().parts = partsOf(f)
	}
	if f.Shared != nil {
		n.setRareLocked().shared = f.Shared
	}
	n.ino.Store(o.numbers.Of(keyOf(&f.Stat)))
	if f.IsDir() {
		n.dir = newDirState(stack.NewDir(f.Dirs, &p.dir.Dir))
	} else if manyLinks(&f.Stat) {
		n.flags.Or(manyNames)
	}
	o.nodes.Insert(n)
	o.crowded()
	if n.dir == nil {
		if first, made := o.linkNode(n, f); !made { // another of its names was looked up at the same time
			o.unref(n)
			o.nodes.Drop(n)
			first.addName(placed{p, name})
			n = first
		} else {
			o.claimNumber(n)
		}
	}
	p.dir.children[name] = n
	return n, n.dir != nil
}

// reject takes back a directory that was met and cannot be settled. Precondition: p.dir.mu is held.
func (o *Overlay) reject(p *Node, name string, n *Node) {
	delete(p.dir.children, name)
	o.unref(n)
	if o.nodes.Drop(n) {
		o.releaseNumber(n, true)
	}
}
