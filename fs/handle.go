package fs

import (
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/inodecache"
	"github.com/fuse-overlay/fuse-overlay/internal/owner"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// use is what a cached handle is open for.
type use uint8

const (
	useDir use = iota
	useRead
	useWrite
)

// handleKey names a cached handle: node, layer and use in one number, which a map finds fastest. The layer is part of it: after a
// copy-up a handle of the lower is never found again.
type handleKey uint64

// Widths of the parts of a handleKey. A layer's number has sixteen bits (stack), so 2^46 nodes are left for the life of a mount.
const (
	useBits   = 2
	layerBits = 16
)

func (n *Node) handleKey(layer int, u use) handleKey {
	return handleKey(n.Serial()<<(layerBits+useBits) | uint64(layer)<<useBits | uint64(u))
}

// handle is an opened directory or file.
type handle struct {
	dir  *sys.Dir
	file *sys.File
	data *stack.Data // file has the data of another, a metacopy
	// appends: file was opened with O_APPEND, because its inode in the upper is append-only.
	appends bool
	// remote: it may have been opened in a layer whose server does not answer any more.
	remote bool
}

func closeHandle(h handle) {
	if h.dir != nil {
		h.dir.Close()
	}
	switch {
	case h.file == nil:
	case h.remote: // the caller that needs its place in the cache must not wait for that server
		go h.file.Close()
	default:
		h.file.Close()
	}
}

// keepHandle puts a handle of n into the cache and returns the cached one in use.
func (o *Overlay) keepHandle(n *Node, layer int, u use, h handle) *held {
	n.flags.Or(handled)
	h.remote = u == useRead && o.stack.Remote()
	kept := o.handles.Add(n.handleKey(layer, u), h)
	if o.nodes.Dropped(n) { // meanwhile: no request will look for it again
		o.handles.Evict(n.handleKey(layer, u))
	}
	return kept
}

type held = inodecache.Held[handleKey, handle]

// openDir holds the opened parts of one directory for one request. It is [stack.Opened].
type openDir struct {
	o      *Overlay
	n      *Node
	aside  *stack.Dir // nil: n's own; else holds where lowers have the directory
	layers []int
	held   []*held

	// Room for what the request finds out, which is too large to be made anew each time.
	now    stack.View
	answer answer
}

// openDirs are those that nobody uses: each request needs one or two.
var openDirs = sync.Pool{New: func() any { return &openDir{} }}

// open returns an openDir of n, to be released once.
func (o *Overlay) open(n *Node) *openDir {
	d := openDirs.Get().(*openDir)
	d.o, d.n = o, n
	return d
}

// Layer opens the directory in a layer. Precondition: no directory's mu is held, unless has is true.
func (d *openDir) Layer(layer int) (*sys.Dir, error) {
	if d.n == d.o.root {
		return d.o.stack.Root(layer), nil
	}
	if d.has(layer) {
		return d.held[len(d.held)-1].Value.dir, nil
	}
	if d.n.place().gone {
		return nil, unix.ENOENT
	}
	dir, err := d.openLayer(layer)
	if err != nil {
		return nil, err
	}
	if d.n.place().gone { // removed meanwhile, and another may have its name
		dir.Close()
		return nil, unix.ENOENT
	}
	h := d.o.keepHandle(d.n, layer, useDir, handle{dir: dir})
	d.hold(layer, h)
	return h.Value.dir, nil // another's, if that was first
}

// has reports whether the directory is open in a layer already, and then makes it the one held last.
func (d *openDir) has(layer int) bool {
	if d.n == d.o.root {
		return true
	}
	last := len(d.layers) - 1
	for i, l := range d.layers {
		if l == layer {
			d.layers[i], d.layers[last] = d.layers[last], d.layers[i]
			d.held[i], d.held[last] = d.held[last], d.held[i]
			return true
		}
	}
	h := d.o.handles.Acquire(d.n.handleKey(layer, useDir))
	if h != nil {
		d.hold(layer, h)
	}
	return h != nil
}

// hold keeps a part open until release. If a directory has many parts, it closes one of a lower:
// such parts are read one after the other.
func (d *openDir) hold(layer int, h *held) {
	i := len(d.held) - 1
	if i >= 0 && d.layers[i] == stack.Upper {
		i--
	}
	if i >= 0 && len(d.held) >= d.o.parts {
		d.o.handles.Release(d.held[i])
		d.layers, d.held = slices.Delete(d.layers, i, i+1), slices.Delete(d.held, i, i+1)
	}
	d.layers, d.held = append(d.layers, layer), append(d.held, h)
}

// openLayer opens the directory. In the upper, directories may get another place while the way there is walked: then it is walked
// again while they cannot.
func (d *openDir) openLayer(layer int) (*sys.Dir, error) {
	if layer != stack.Upper {
		return d.walk(layer)
	}
	o := d.o
	before := o.moves.Load()
	dir, err := d.walk(layer)
	if before%2 == 0 && o.moves.Load() == before {
		return dir, err
	}
	if err == nil {
		dir.Close()
	}
	o.movesMu.Lock()
	defer o.movesMu.Unlock()
	return d.walk(layer)
}

// walk opens the directory from its parent, when that is open already, or from the root.
func (d *openDir) walk(layer int) (*sys.Dir, error) {
	root := d.o.stack.Root(layer)
	if d.aside != nil {
		if at, ok := d.aside.MovedTo(layer); ok {
			return root.OpenDir(at)
		}
	}
	up, name, at, moved := d.n.whereIn(layer)
	if moved {
		return root.OpenDir(at)
	}
	if up != d.o.root {
		if h := d.o.handles.Acquire(up.handleKey(layer, useDir)); h != nil {
			defer d.o.handles.Release(h)
			return h.Value.dir.OpenDir(name)
		}
	}
	return root.OpenDir(d.n.pathIn(layer))
}

// Path is where the directory lies below a layer's root.
func (d *openDir) Path(layer int) string { return d.n.pathIn(layer) }

func (d *openDir) release() {
	for _, h := range d.held {
		d.o.handles.Release(h)
	}
	clear(d.held)
	if d.answer.asked {
		d.answer = answer{}
	}
	d.o, d.n, d.aside, d.held, d.layers = nil, nil, nil, d.held[:0], d.layers[:0]
	openDirs.Put(d)
}

// object is an object of a layer in use.
type object struct {
	owner.Ref
	dir *openDir // nil: reached without a directory
}

func (r *object) release() {
	if r.dir != nil {
		r.dir.release()
	}
}

// refTo is what has just been made in up: by its file where it has one, which spares the way through the directory.
func refTo(up *sys.Dir, name string, file *sys.File) sys.Ref {
	if file != nil {
		return file.Ref()
	}
	return up.At(name)
}

// opened returns n's object in the upper by a descriptor that is there already, a directory's or what writing to a file has left,
// to be released with the handle: that takes half as long as by its name. A nil handle: there is none.
func (o *Overlay) opened(n *Node) (r owner.Ref, h *held) {
	if n.flags.Load()&handled == 0 || !n.inUpper() {
		return r, nil
	}
	u := useWrite
	if n.dir != nil {
		u = useDir
	}
	if h = o.handles.Acquire(n.handleKey(stack.Upper, u)); h == nil {
		return r, nil
	}
	var at sys.Ref
	switch dir := h.Value.dir; {
	case dir == nil:
		at = h.Value.file.Ref()
	case dir.SearchOnly():
		o.handles.Release(h)
		return r, nil
	default:
		at = dir.Ref()
	}
	return o.stack.Shown(stack.Upper, at), h
}

// object finds the object that lies at p, which others may move or remove meanwhile.
func (o *Overlay) object(p *place) (object, error) {
	if p.gone {
		if p.kept == nil { // lost, and nothing of it was open
			return object{}, unix.ESTALE
		}
		return object{Ref: o.stack.Shown(p.layer, p.kept.Ref())}, nil
	}
	if p.parent == nil {
		return object{Ref: o.stack.Shown(p.layer, o.stack.Root(p.layer).Ref())}, nil
	}
	if p.shared != nil && p.layer == stack.Upper { // its name may be a lower's alone
		return object{Ref: o.stack.Shown(stack.Upper, o.stack.Copy(p.shared))}, nil
	}
	d := o.open(p.parent)
	h, err := d.Layer(p.layer)
	if err != nil {
		d.release()
		return object{}, err
	}
	if p.part != (stack.Part{}) {
		if err := p.check(h.At(p.name)); err != nil {
			d.release()
			return object{}, err
		}
	}
	return object{o.stack.Shown(p.layer, h.At(p.name)), d}, nil
}

// at calls f on n's object at p. there is false if n does not lie there: then f has been called in vain, if at all. In a directory of
// the upper the name cannot become another object's before f returns. A lower's object stays what it is. Precondition: no
// directory's mu is held.
func (o *Overlay) at(n *Node, p *place, f func(owner.Ref) error) (there bool, err error) {
	if !p.inUpperDir() {
		r, err := o.object(p)
		if err == nil {
			err = f(r.Ref)
			r.release()
		}
		return n.place() == *p, err
	}
	d := o.open(p.parent)
	defer d.release()
	up, err := d.upper()
	p.parent.dir.mu.Lock()
	defer p.parent.dir.mu.Unlock()
	if n.place() != *p {
		return false, nil
	}
	if err == nil && p.part != (stack.Part{}) {
		err = p.check(up.At(p.name))
	}
	if err == nil {
		err = f(o.stack.Shown(stack.Upper, up.At(p.name)))
	}
	return true, err
}

// with calls f on n's object, and again when the object was no longer there (a copy-up, a removal). Precondition: no directory's mu
// is held.
func (o *Overlay) with(n *Node, f func(owner.Ref) error) error {
	if r, h := o.opened(n); h != nil {
		defer o.handles.Release(h)
		return f(r)
	}
	for {
		p := n.place()
		there, err := o.at(n, &p, f)
		if !o.lost(n, &p, err) && there {
			return err
		}
	}
}

// change calls f, which leaves data alone, on n's object in the upper, copying it up first.
func (o *Overlay) change(n *Node, f func(owner.Ref) error) error {
	if err := o.copyUp(n, noData); err != nil {
		return err
	}
	return o.with(n, f)
}

// upper opens the directory in the upper, where it must lie. Precondition: that of Layer.
func (d *openDir) upper() (*sys.Dir, error) { return d.Layer(stack.Upper) }
