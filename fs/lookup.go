package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// Lookup answers LOOKUP. A name that is not there is an entry without a node, which the kernel keeps as well.
func (o *Overlay) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	p, err := o.node(h.NodeId)
	if err != nil {
		return o.status("lookup", err)
	}
	var st sys.Stat
	n, err := o.child(p, name, &st)
	if err != nil {
		return o.status("lookup", err)
	}
	if o.cfg.LayersChange && (n == nil || n.dir == nil) {
		o.walked.Store(nil)
	}
	if n == nil {
		out.SetEntryTimeout(o.policy.Timeout)
		return fuse.OK
	}
	if n.dir == nil {
		o.listers.looked(p.dir.lister.Swap(0))
	}
	return o.status("lookup", o.entry(n, &st, out))
}

// child returns the node of a name with one reference more, and its attributes; nil when there is nothing. Precondition: no
// directory's mu is held.
func (o *Overlay) child(p *Node, name string, st *sys.Stat) (*Node, error) {
	if p.dir == nil {
		return nil, unix.ENOTDIR
	}
	o.refresh(p)
	d := o.open(p)
	defer d.release()
	use := stack.ToLookUp
	for {
		if err := o.lockLoaded(p, use); err != nil {
			return nil, err
		}
		m := meeting{name: name, query: stack.Query{Name: name, Use: use}}
		done, err := o.start(p, d, &m)
		o.abandon(&m)
		use = m.query.Use
		if !done && err == nil {
			continue
		}
		if err == nil && m.node != nil && m.found.Shared != nil { // it may have been changed through another name since it was found
			if err = o.statShared(m.node, &m.found.Stat); err != nil {
				o.forgetOne(m.node)
			}
		}
		if err != nil {
			return nil, err
		}
		*st = m.found.Stat
		return m.node, nil
	}
}

// start runs all steps of a meeting except abandon, and reports whether the meeting is done.
// p.dir.mu is held before the call and released after it. Preconditions: those of begin.
func (o *Overlay) start(p *Node, d *openDir, m *meeting) (done bool, err error) {
	if o.cfg.LayersChange {
		need, err := o.stack.Resolve(&m.query, &p.dir.Dir, d, &m.found)
		p.dir.mu.Unlock()
		if need != stack.NeedLayers || err != nil {
			return need == stack.NeedNothing, err
		}
		return o.meetAnew(p, d, m)
	}
	done, err = o.begin(p, d, m)
	p.dir.mu.Unlock()
	if !done && err == nil {
		done, err = o.meetAside(p, d, m)
	}
	return done, err
}

// meetAside goes on with a meeting that has begun, and reports whether it has come to an end. Precondition: no directory's mu is held.
func (o *Overlay) meetAside(p *Node, d *openDir, m *meeting) (done bool, err error) {
	o.askAside(p, d, m)
	if m.fresh != nil && m.err == nil {
		var err [1]error
		o.settleDirs([]*Node{m.fresh}, err[:])
		m.err = err[0]
	}
	p.dir.mu.Lock()
	done, err = o.finish(p, d, m)
	p.dir.mu.Unlock()
	return done, err
}

// unref gives back a reference that was not handed to the kernel. The node stays for a FORGET or the next look to drop.
// Precondition: none; in particular a directory's mu may be held.
func (o *Overlay) unref(n *Node) { o.nodes.Unref(n.ID(), 1) }
