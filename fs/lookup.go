package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/inodecache"
	"github.com/fuse-overlay/fuse-overlay/internal/ondisk"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// Lookup answers LOOKUP. For a name that does not exist it answers with an entry without a node,
// which the kernel keeps as well.
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
		o.listers.noteLookup(p.dir.lister.Swap(0))
	}
	return o.status("lookup", o.entry(n, &st, out))
}

// child returns the node of a name, with one reference more, and its attributes; nil if the name
// does not exist. Preconditions: no directory's mu is held.
func (o *Overlay) child(p *Node, name string, st *sys.Stat) (*Node, error) {
	if p.dir == nil {
		return nil, unix.ENOTDIR
	}
	o.refresh(p)
	d := o.openDir(p)
	defer d.release()
	use := stack.ToLookUp
	for {
		if err := o.lockLoaded(p, use); err != nil {
			return nil, err
		}
		l := lookup{o: o, p: p, d: d, name: name, query: stack.Query{Name: name, Use: use}}
		done, err := l.run()
		l.release()
		use = l.query.Use
		if !done && err == nil {
			continue
		}
		if err == nil && l.node != nil && l.found.Shared != nil {
			// It may have been changed through another name since it was found.
			if err = o.statShared(l.node, &l.found.Stat); err != nil {
				o.forgetOne(l.node)
			}
		}
		if err != nil {
			return nil, err
		}
		*st = l.found.Stat
		return l.node, nil
	}
}

// lookup is the way from a name in a directory to its node, in three steps. With the directory's mu
// held, lookInUpperLocked reads what lies in the upper. A lower may take any time to answer, so
// askLowers makes the calls on lowers with no lock held. With the mu held again, finishLocked
// checks whether the answer is still valid. If it is not, the caller begins a new lookup.
type lookup struct {
	o    *Overlay
	p    *Node
	d    *openDir // opens p
	name string
	// nameStays: name is a string of its own. Otherwise it lies in a buffer of the request.
	nameStays bool

	node  *Node       // the result, with a reference; nil: the name does not exist
	found stack.Found // Stat: the attributes

	query  stack.Query
	need   stack.Need // of the query
	copies uint64     // tree.sharedCopies before the layers were read
	known  *Node      // was the name's node, with a reference, and lay at place
	place  place
	unused *Node // a node with a reference that release gives back
	newDir *Node // of a directory, with the only reference; initDirInode comes before finishLocked

	handle     ondisk.Handle // of the origin of the upper's object
	hasHandle  bool
	origin     inodecache.Key // of the object that handle leads to
	hasOrigin  bool
	incomplete bool // attachLocked writes handle to the upper's object

	err error // of askLowers
}

// run takes all steps, and reports whether the lookup has a result. p.dir.mu is held before the
// call, and not after it. Preconditions: those of lookInUpperLocked.
func (l *lookup) run() (done bool, err error) {
	if l.o.cfg.LayersChange {
		need, err := l.o.stack.Resolve(&l.query, &l.p.dir.Dir, l.d, &l.found)
		l.p.dir.mu.Unlock()
		if need != stack.NeedLayers || err != nil {
			return need == stack.NeedNothing, err
		}
		return l.runChanging()
	}
	done, err = l.lookInUpperLocked()
	l.p.dir.mu.Unlock()
	if !done && err == nil {
		done, err = l.runInLowers()
	}
	return done, err
}

// runInLowers takes the steps after lookInUpperLocked. Preconditions: no directory's mu is held.
func (l *lookup) runInLowers() (done bool, err error) {
	l.askLowers()
	if l.newDir != nil && l.err == nil {
		var err [1]error
		l.o.initDirs([]*Node{l.newDir}, err[:])
		l.err = err[0]
	}
	l.p.dir.mu.Lock()
	done, err = l.finishLocked()
	l.p.dir.mu.Unlock()
	return done, err
}

// lookInUpperLocked does what needs no lower. If done is false, askLowers and finishLocked follow.
// Preconditions: p.dir.mu is held, d opens p.
func (l *lookup) lookInUpperLocked() (done bool, err error) {
	o := l.o
	if n := l.p.dir.children[l.name]; n != nil && o.nodes.Ref(n) {
		l.known, l.place = n, n.place()
		if !l.place.inUpperDir() {
			return false, nil
		}
		if !l.d.Has(stack.Upper) {
			l.need = stack.NeedUpper
			return false, nil
		}
		done, err := l.takeKnownLocked(o.statIn(l.d, stack.Upper, l.name, &l.found.Stat))
		if done || err != nil {
			return done, err
		}
	}
	l.need, err = o.stack.Resolve(&l.query, &l.p.dir.Dir, l.d, &l.found)
	if err != nil || !l.need.Resolved() {
		return false, err
	}
	if !l.found.Exists() {
		return true, nil
	}
	if o.numbers.wantsOriginLocked(l.p, &l.found) {
		if err := l.readHandle(); err != nil {
			return false, err
		}
	}
	if l.need == stack.NeedData || l.found.IsDir() || l.hasHandle {
		return false, nil
	}
	l.node, err = l.nodeOfFoundLocked()
	return err == nil, err
}

// readHandle reads the origin of the object in the upper.
func (l *lookup) readHandle() error {
	up, err := l.d.upper()
	if err == nil {
		l.handle, l.hasHandle, err = l.o.stack.OriginHandle(up.At(l.name))
	}
	return err
}

// statIn fills st with what a layer's directory has under a name.
func (a *access) statIn(d *openDir, layer int, name string, st *sys.Stat) error {
	h, err := d.Layer(layer)
	if err != nil {
		return err
	}
	return a.stack.Shown(layer, h.At(name)).Stat(st)
}

// takeKnownLocked makes the known node the result. err is the error of the stat of its object. done
// is false if the name has another object now, because a layer was changed under the mount.
// Preconditions: p.dir.mu is held.
func (l *lookup) takeKnownLocked(err error) (done bool, _ error) {
	n := l.known
	l.known = nil
	if err == nil && l.found.Stat.Mode&unix.S_IFMT == n.kind {
		l.node = n
		return true, nil
	}
	l.unused = n
	if err != nil && err != unix.ENOENT {
		return false, err
	}
	if l.p.dir.children[l.name] == n {
		delete(l.p.dir.children, l.name)
	}
	return false, nil
}

// askLowers makes the calls on layers that lookInUpperLocked has left open, and leaves their error
// to finishLocked. For newDir the caller calls initDirInode. Preconditions: no directory's mu is
// held.
func (l *lookup) askLowers() {
	l.copies = l.o.sharedCopies.Load()
	switch {
	case l.need == stack.NeedLoad: // the caller does that before it begins a new lookup
		return
	case l.need == stack.NeedUpper:
		_, l.err = l.d.upper()
		return
	case l.known != nil:
		l.err = l.o.statKnown(l.known, &l.place, l.d, l.name, &l.found.Stat)
		return
	case l.need != stack.NeedNothing:
		l.err = l.o.stack.LookUpInLayers(&l.query, l.d, &l.found)
	}
	if l.err != nil || !l.found.Exists() {
		return
	}
	if l.hasHandle {
		var st sys.Stat
		l.hasOrigin, l.incomplete, l.err = l.o.stack.Origin(&l.query, l.d, &l.handle, &l.found, &st)
		l.origin = keyOf(&st)
	}
	if l.found.IsDir() && l.err == nil {
		l.newDir = l.o.newNode(l.p, l.ownName(), &l.found, &l.query)
	}
}

// statKnown fills st with the attributes of a known node, which has a name in the directory that d
// opens.
func (a *access) statKnown(n *Node, p *place, d *openDir, name string, st *sys.Stat) error {
	if p.shared != nil {
		return a.statShared(n, st)
	}
	return a.statIn(d, p.layer, name, st)
}

// finishLocked takes the result if the answer of the layers is still valid; done is false if not.
// Preconditions: those of lookInUpperLocked.
func (l *lookup) finishLocked() (done bool, err error) {
	switch {
	case l.need == stack.NeedUpper:
		return false, l.err
	case l.known != nil && l.known.place() != l.place:
		return false, nil
	case l.known != nil:
		return l.takeKnownLocked(l.err)
	}
	if n := l.p.dir.children[l.name]; n != nil && !l.o.nodes.Dropped(n) {
		return false, nil // another request was first
	}
	if valid, err := l.o.stack.Confirm(&l.query, &l.p.dir.Dir, l.d, &l.found); !valid || err != nil {
		return false, err
	}
	if l.err != nil {
		return false, l.err
	}
	if !l.found.Exists() {
		return true, nil
	}
	return l.attachLocked()
}
