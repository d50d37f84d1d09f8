package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs/conn"
	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// A process may have died after a change of the upper and before it has stored that in the journal.
// Then a node of the journal lies elsewhere than its object. The change is part of a request that
// the kernel sends again, since it was not answered. So the nodes of these requests are compared
// with the upper, before any request is served.

// Reconcile compares the nodes of an interrupted request with the upper.
func (o *Overlay) Reconcile(r conn.Redo) {
	n, ok := o.nodes.Get(r.NodeID)
	if !ok || !o.stack.Writable() {
		return
	}
	o.noteCopyUps(n)
	if m, ok := o.nodes.Get(r.Linked); ok {
		o.noteCopyUps(m)
	}
	q, ok := o.nodes.Get(r.NewDir)
	if ok {
		o.noteCopyUps(q)
	}
	if r.Name == "" || n.dir == nil {
		return
	}
	from := placed{n, r.Name}
	src := o.noteCopyUpOf(from)
	switch {
	case r.NewName != "" && q != nil && q.dir != nil:
		to := placed{q, r.NewName}
		o.reconcileRename(from, to, src, o.noteCopyUpOf(to), r.Exchange)
	case r.Linked != 0:
		o.reconcileLink(from, r.Linked)
	case src != nil && !o.liesAt(src, from):
		o.loseName(src, from)
	}
}

// Reconciled is called after the last Reconcile.
func (o *Overlay) Reconciled() { o.forgetUnused() }

// noteCopyUpOf is noteCopyUps for the node of a name. nil: it has none.
func (o *Overlay) noteCopyUpOf(at placed) *Node {
	n := at.parent.dir.children[at.name]
	if n != nil {
		o.noteCopyUps(n)
	}
	return n
}

// noteCopyUps notes that n or a directory above it was copied up.
func (o *Overlay) noteCopyUps(n *Node) {
	p := n.place()
	if p.parent == nil || p.unlinked {
		return
	}
	o.noteCopyUps(p.parent)
	if p.layer == stack.Upper {
		return
	}
	var st sys.Stat
	if !o.statUpper(p.placed, &st) || st.Mode&unix.S_IFMT != n.kind {
		return
	}
	n.mu.Lock()
	n.layer, n.key = stack.Upper, keyOf(&st)
	n.mu.Unlock()
	if n.dir != nil {
		n.dir.AddUpper()
	} else {
		o.numbers.SetOrigin(keyOf(&st), n.ino.Load())
		o.nodes.Link(keyOf(&st), n)
	}
	o.journal.copiedUp(n)
}

// statUpper fills st with the attributes of what the upper has under a name. found is false if that
// is nothing, or a whiteout.
func (o *Overlay) statUpper(at placed, st *sys.Stat) (found bool) {
	d := o.openDir(at.parent)
	defer d.release()
	if !at.parent.inUpper() {
		return false
	}
	var f stack.Found
	err := o.lockEntry(at.parent, d, at.name, &f)
	if err != nil {
		o.log.Warn("cannot find out what an interrupted request has done", zap.String("name", at.name), zap.Error(err))
		return false
	}
	at.parent.dir.mu.Unlock()
	*st = f.Stat
	return f.Exists() && f.Layer == stack.Upper
}

// liesAt reports whether a name shows the object of n.
func (o *Overlay) liesAt(n *Node, at placed) bool {
	d := o.openDir(at.parent)
	defer d.release()
	var f stack.Found
	if err := o.lockEntry(at.parent, d, at.name, &f); err != nil {
		return true // it is not known to be gone
	}
	at.parent.dir.mu.Unlock()
	p := n.place()
	switch {
	case !f.Exists():
		return false
	case p.layer == stack.Upper:
		n.mu.Lock()
		defer n.mu.Unlock()
		return f.Layer == stack.Upper && keyOf(&f.Stat) == n.key
	}
	return f.Layer == p.layer
}

// loseName notes that a name of n was removed.
func (o *Overlay) loseName(n *Node, at placed) {
	if at.parent.dir.children[at.name] == n {
		delete(at.parent.dir.children, at.name)
	}
	o.removeName(n, at)
	if n.dir != nil {
		n.dir.Dir = stack.RemovedDir(n.place().layer)
	}
}

// reconcileRename notes what a RENAME has done. src and dst are the nodes of both names; nil: none.
func (o *Overlay) reconcileRename(from, to placed, src, dst *Node, exchange bool) {
	if src == nil || src == dst || !o.liesAt(src, to) {
		return // not begun, or noted as a whole
	}
	if dst != nil && !exchange {
		o.loseName(dst, to)
	}
	delete(from.parent.dir.children, from.name)
	to.parent.dir.children[to.name] = src
	o.moveName(src, from, to)
	if dst != nil && exchange {
		from.parent.dir.children[from.name] = dst
		o.moveName(dst, to, from)
	}
}

// reconcileLink notes what a LINK has done.
func (o *Overlay) reconcileLink(at placed, linked uint64) {
	n, ok := o.nodes.Get(linked)
	if ok && at.parent.dir.children[at.name] == nil && o.liesAt(n, at) {
		o.addName(n, at)
		at.parent.dir.children[at.name] = n
	}
}

// Child returns the ID of the node that a name of a directory leads to, if it has one.
func (o *Overlay) Child(parent uint64, name string) uint64 {
	p, ok := o.nodes.Get(parent)
	if !ok || p.dir == nil {
		return 0
	}
	p.dir.mu.Lock()
	defer p.dir.mu.Unlock()
	if n := p.dir.children[name]; n != nil {
		return n.Serial()
	}
	return 0
}

// CreateAgain answers a CREATE whose file has been made already.
func (o *Overlay) CreateAgain(in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	if status := o.Lookup(nil, &in.InHeader, name, &out.EntryOut); status != fuse.OK {
		return status
	}
	n, err := o.node(out.NodeId)
	if err != nil {
		return o.status("create", err)
	}
	return o.openMade(n, in.Flags, out)
}
