package fs

import (
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// openDir holds the opened parts of one directory for one request. It implements [stack.LayerDirs].
type openDir struct {
	a      *access
	n      *Node
	aside  *stack.Dir // nil: n's own; else holds where lowers have the directory
	layers []int
	held   []*held

	// answer is memory for what the request finds out. It is too large to be allocated for each
	// request.
	answer answer
}

// openDirs are those not in use. Each request needs one or two.
var openDirs = sync.Pool{New: func() any { return &openDir{} }}

// openDir returns an openDir of n, to be released once.
func (a *access) openDir(n *Node) *openDir {
	d := openDirs.Get().(*openDir)
	d.a, d.n = a, n
	return d
}

// Layer opens the directory in a layer. Preconditions: no directory's mu is held, unless Has is
// true.
func (d *openDir) Layer(layer int) (*sys.Dir, error) {
	if d.n == d.a.root {
		return d.a.stack.Root(layer), nil
	}
	if d.Has(layer) {
		return d.held[len(d.held)-1].Value.dir, nil
	}
	if d.n.place().unlinked {
		return nil, unix.ENOENT
	}
	dir, err := d.openLayer(layer)
	if err != nil {
		return nil, err
	}
	if d.n.place().unlinked { // removed meanwhile, and another directory may have its name
		dir.Close()
		return nil, unix.ENOENT
	}
	h := d.a.keepHandle(d.n, layer, forDir, handle{dir: dir})
	d.hold(layer, h)
	return h.Value.dir, nil // of another request, if that was first
}

// upper opens the directory in the upper, where it must lie. Preconditions: that of Layer.
func (d *openDir) upper() (*sys.Dir, error) { return d.Layer(stack.Upper) }

// Has reports whether the directory is open in a layer already. If so, it moves that part to the
// endLocked of held.
func (d *openDir) Has(layer int) bool {
	if d.n == d.a.root {
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
	h := d.a.handles.Acquire(d.n.handleKey(layer, forDir))
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
	if i >= 0 && len(d.held) >= d.a.parts {
		d.a.handles.Release(d.held[i])
		d.layers, d.held = slices.Delete(d.layers, i, i+1), slices.Delete(d.held, i, i+1)
	}
	d.layers, d.held = append(d.layers, layer), append(d.held, h)
}

// openLayer opens the directory. In the upper, directories may move while the path is walked. Then
// openLayer walks it again, with movesMu held.
func (d *openDir) openLayer(layer int) (*sys.Dir, error) {
	if layer != stack.Upper {
		return d.walk(layer)
	}
	a := d.a
	before := a.moves.Load()
	dir, err := d.walk(layer)
	if before%2 == 0 && a.moves.Load() == before {
		return dir, err
	}
	if err == nil {
		dir.Close()
	}
	a.movesMu.Lock()
	defer a.movesMu.Unlock()
	return d.walk(layer)
}

// walk opens the directory from its parent if that is open already, else from the root.
func (d *openDir) walk(layer int) (*sys.Dir, error) {
	root := d.a.stack.Root(layer)
	if d.aside != nil {
		if at, ok := d.aside.MovedTo(layer); ok {
			return root.OpenDir(at)
		}
	}
	up, name, at, moved := d.n.whereIn(layer)
	if moved {
		return root.OpenDir(at)
	}
	if up != d.a.root {
		if h := d.a.handles.Acquire(up.handleKey(layer, forDir)); h != nil {
			defer d.a.handles.Release(h)
			return h.Value.dir.OpenDir(name)
		}
	}
	return root.OpenDir(d.n.pathIn(layer))
}

// Path returns where the directory lies below a layer's root.
func (d *openDir) Path(layer int) string { return d.n.pathIn(layer) }

func (d *openDir) release() {
	for _, h := range d.held {
		d.a.handles.Release(h)
	}
	clear(d.held)
	if d.answer.query.IsUsed() {
		d.answer = answer{}
	}
	d.a, d.n, d.aside, d.held, d.layers = nil, nil, nil, d.held[:0], d.layers[:0]
	openDirs.Put(d)
}
