package check

import (
	"cmp"
	"path"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/ondisk"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/internal/view"
	"github.com/fuse-overlay/fuse-overlay/whiteout"
)

// layerWalk is the walk through one layer.
type layerWalk struct {
	*Checker
	report
	at      int // the number of the layer
	waiting []*dir
	// targets are the directories that have a redirect, by the path in the layers below.
	targets map[string]string
	// copies are the objects of the upper with an origin.
	copies map[ondisk.Handle]copied
	// pure are the directories that have been reported for the lack of their impure mark.
	pure map[string]bool
}

// isUpper reports whether the layer is the one that a mount writes. Only its objects are repaired.
func (w *layerWalk) isUpper() bool { return w.at == 0 }

// dir is a directory of the layer.
type dir struct {
	path string // relative to the root of the layer, which is ""
	// merges: what the layers below have at the path below shows in the directory.
	merges bool
	below  string
	parent *dir // nil: it is the root

	whiteout.DirXattrs
	*sys.Dir // while it is read
	objects  map[string]bool

	// What the directory shows in the view of this layer and those below, and in that of those
	// below; nil: not looked up, or there is none.
	self, lower             *view.Node
	lookedUp, lookedUpLower bool
	lowerErr                error
}

// object is an object of the layer.
type object struct {
	path  string
	name  string // empty: it is the root
	ref   sys.Ref
	st    sys.Stat // of the inode
	marks marks
	in    *dir // nil: it is the root
}

func (o *object) is(typ uint32) bool { return o.st.Mode&unix.S_IFMT == typ }

// isEmptyFile reports whether the object can be a marker, or a whiteout of the xattr form.
func (o *object) isEmptyFile() bool { return o.is(unix.S_IFREG) && o.st.Size == 0 }

// marks are the attributes of the overlay that an object has. If it has one in several namespaces,
// it is that which only root can have written.
type marks map[ondisk.Attr]ondisk.Namespace

func (c *Checker) checkLayer(layer int) ([]Finding, error) {
	w := &layerWalk{
		Checker: c, at: layer, report: report{layer: layerName(layer)},
		targets: map[string]string{}, copies: map[ondisk.Handle]copied{}, pure: map[string]bool{},
	}
	w.waiting = []*dir{{merges: true}}
	for len(w.waiting) > 0 {
		last := len(w.waiting) - 1
		d := w.waiting[last]
		w.waiting = w.waiting[:last]
		if err := w.directory(d); err != nil {
			return nil, err
		}
	}
	return w.sorted(), nil
}

// directory checks one directory and the objects in it that are no directories. An error is one of
// the views.
func (w *layerWalk) directory(d *dir) error {
	var err error
	if d.Dir, err = w.root(w.at).OpenDir(d.path); err != nil {
		w.unreadable(d.path, err)
		return nil
	}
	defer d.close()
	if d.DirXattrs, err = whiteout.ReadDirXattrs(w.names, d.Dir); err != nil {
		w.unreadable(d.path, err)
		return nil
	}
	self := object{path: d.path, ref: d.Ref(), in: d.parent}
	if d.path != "" {
		self.name = path.Base(d.path)
	}
	if !w.read(&self) {
		return nil
	}
	if here := (place{self.st.Dev, self.st.Ino}); w.isUpper() && d.path != "" && w.places[here] != "" {
		w.add(InsideUpper, d.path, "it is "+w.places[here], nil)
		return nil
	}
	w.ofDir(d, &self)
	entries, err := d.list()
	if err != nil {
		w.unreadable(d.path, err)
		return nil
	}
	if err := w.redirect(d, &self); err != nil {
		return err
	}
	d.merges = d.merges && !d.Opaque
	if err := w.uselessOpaque(d); err != nil {
		return err
	}
	if err := w.object(&self); err != nil {
		return err
	}
	children := []*dir(nil)
	for _, name := range entries {
		child, err := w.entry(d, name)
		if err != nil {
			return err
		}
		if child != nil {
			children = append(children, child)
		}
	}
	slices.Reverse(children)
	w.waiting = append(w.waiting, children...)
	return nil
}

// list returns the names in the directory, sorted, and looks for the opaque marker.
func (d *dir) list() (names []string, err error) {
	d.objects = map[string]bool{}
	err = d.List(func(e sys.Dirent) error {
		names = append(names, e.Name)
		d.objects[e.Name] = true
		return nil
	})
	d.Opaque = d.Opaque || d.objects[whiteout.OpaqueMarker]
	slices.Sort(names)
	return names, err
}

func (d *dir) close() {
	d.Dir.Close()
	d.self.Forget()
	d.lower.Forget()
	d.self, d.lower, d.objects = nil, nil, nil
}

// entry checks what is under a name of a directory. It returns the directory that has the name.
func (w *layerWalk) entry(d *dir, name string) (*dir, error) {
	w.seen()
	o := object{path: path.Join(d.path, name), name: name, ref: d.At(name), in: d}
	if whiteout.IsMarker(name) {
		return nil, w.marker(&o)
	}
	if err := o.ref.Stat(&o.st); err != nil {
		w.unreadable(o.path, err)
		return nil, nil
	}
	if o.is(unix.S_IFDIR) {
		marked := d.objects[whiteout.Marker(name)]
		return &dir{path: o.path, below: path.Join(d.below, name), merges: d.merges && !marked, parent: d}, nil
	}
	if !w.read(&o) {
		return nil, nil
	}
	shown := o.st
	if w.stack.Overrides(w.inStack(w.at)) {
		if err := w.stack.Shown(w.inStack(w.at), o.ref).Stat(&shown); err != nil {
			w.add(InvalidOwner, o.path, "", nil)
			return nil, nil
		}
	}
	hidden, err := whiteout.Is(w.names, o.ref, &shown, d.XattrWhiteouts)
	if err != nil {
		w.unreadable(o.path, err)
		return nil, nil
	}
	if hidden {
		return nil, w.whiteout(&o, name)
	}
	return nil, w.object(&o)
}

// read fills in attributes and marks of an object, and reports marks that are not known. If that
// fails, it returns false.
func (w *layerWalk) read(o *object) bool {
	if err := o.ref.Stat(&o.st); err != nil {
		w.unreadable(o.path, err)
		return false
	}
	names, err := o.ref.ListXattr()
	if err != nil {
		w.unreadable(o.path, err)
		return false
	}
	slices.Sort(names)
	for _, name := range names {
		ns, attr, ok := w.names.Parse(name)
		switch {
		case ok && o.marks == nil:
			o.marks = marks{attr: ns}
		case ok && o.marks[attr] != ondisk.NoXattrs:
			o.marks[attr] = min(o.marks[attr], ns)
		case ok:
			o.marks[attr] = ns
		case w.names.Unknown(name):
			w.add(UnknownMark, o.path, name, nil)
		}
	}
	return true
}

// object checks the marks of an object that is no whiteout.
func (w *layerWalk) object(o *object) error {
	w.misplaced(o)
	w.values(o)
	if o.is(unix.S_IFDIR) && w.stack.Overrides(w.inStack(w.at)) {
		var shown sys.Stat
		if w.stack.Shown(w.inStack(w.at), o.ref).Stat(&shown) != nil {
			w.add(InvalidOwner, o.path, "", nil)
		}
	}
	if w.isUpper() {
		w.flags(o)
		w.origin(o)
	}
	if _, has := o.marks[ondisk.Metacopy]; has && o.is(unix.S_IFREG) {
		return w.metacopy(o)
	}
	return nil
}

// selfNode returns what the directory shows in the view of this layer and those below; nil: it
// cannot be looked up, which has another reason than the objects in it.
func (w *layerWalk) selfNode(d *dir) (*view.Node, error) {
	if !d.lookedUp {
		v, err := w.from(w.at)
		if err != nil {
			return nil, err
		}
		d.lookedUp = true
		if d.self, err = v.Lookup(d.path); err != nil || !d.self.IsDir() {
			d.self.Forget()
			d.self = nil
		}
	}
	return d.self, nil
}

// belowHas reports whether the layers below show something under a name of a directory. If they
// cannot be read, the answer is that they do: nothing is known to be wrong.
func (w *layerWalk) belowHas(d *dir, name string) (bool, error) {
	if !d.merges {
		return false, nil
	}
	v, err := w.from(w.at + 1)
	if v == nil || err != nil {
		return false, err
	}
	if !d.lookedUpLower {
		d.lookedUpLower = true
		if d.lower, err = v.Lookup(d.below); err != nil {
			d.lowerErr, d.lower = err, nil
		}
	}
	if d.lowerErr != nil || !d.lower.IsDir() {
		return d.lowerErr != nil, nil
	}
	n, err := d.lower.Lookup(name)
	defer n.Forget()
	return n != nil || err != nil, nil
}

// mark returns the full name of a mark of an object.
func (o *object) mark(a ondisk.Attr) string { return o.marks[a].Name(a) }

// sortedAttrs are the marks in a fixed order.
func (m marks) sortedAttrs() []ondisk.Attr {
	attrs := make([]ondisk.Attr, 0, len(m))
	for a := range m {
		attrs = append(attrs, a)
	}
	slices.SortFunc(attrs, cmp.Compare)
	return attrs
}
