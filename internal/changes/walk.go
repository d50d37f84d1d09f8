package changes

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/ondisk"
	"github.com/fuse-overlay/fuse-overlay/internal/quote"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/internal/view"
	"github.com/fuse-overlay/fuse-overlay/whiteout"
)

// walk is one walk through the upper.
type walk struct {
	*Comparison
	visitor Visitor
	filter  filter
	links   map[uint64]*firstName // of files with several names, by their inode numbers
	// linked are names that only lowers have, and that lead to copies in the index or to directories
	// with such names, by directory.
	linked map[string][]string
}

// pair is an object of the merged tree, and the one of the lowers that it is compared with.
type pair struct {
	path    string
	now     *view.Node // nil: none
	was     *view.Node // nil: none
	wasPath string     // the path of was in the lowers, or where it would be
}

// child returns the pair of a name in a directory, without the objects.
func (p *pair) child(name string) pair {
	return pair{path: path.Join(p.path, name), wasPath: path.Join(p.wasPath, name)}
}

// openDir is a directory of the upper that is walked through.
type openDir struct {
	pair
	up  *sys.Dir // nil: the upper does not have it
	raw *upperDir
	// lowerOnly are names of walk.linked that the upper does not have.
	lowerOnly map[string]bool
	// merges: what the lowers have in the directory shows.
	merges bool
}

// at wraps an error of the object at a path.
func at(p string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", quote.Path(p), err)
}

// dir reports a directory, and what is below it. up is the directory in the upper; nil: the upper
// does not have it. parent is nil for the root.
func (w *walk) dir(p pair, up *sys.Dir, parent *openDir) error {
	raw, err := readUpper(w.names, up)
	if err != nil {
		return at(p.path, err)
	}
	d := openDir{pair: p, up: up, raw: raw}
	marked := parent != nil && parent.raw.marked[path.Base(p.path)]
	d.merges = !raw.Opaque && !marked
	renamed := false
	switch {
	case !d.merges || parent == nil:
	case raw.Redirect == "":
		d.merges = parent.merges
	default: // it may lead out of an opaque directory
		if renamed, err = w.followDir(&d, parent); err != nil {
			return at(p.path, err)
		}
	}
	if renamed {
		defer d.was.Forget()
	}
	selected := w.filter.place(p.path) == inside
	if selected {
		if err := w.reportDir(&d.pair, renamed); err != nil {
			return err
		}
	}
	if !d.was.IsDir() {
		d.was = nil
	}
	out := Dir{Path: p.path, Now: p.now, Was: d.was, WasPath: d.wasPath, Renamed: renamed, Selected: selected}
	out.Replaces = (renamed || !d.merges) && (!w.HasLowers() || p.was.IsDir())
	w.addLinked(&d)
	if err := w.chooseNames(&d); err != nil {
		return at(p.path, err)
	}
	if out.Unmarkable, err = d.hasUnmarkable(); err != nil {
		return at(p.path, err)
	}
	if enter, err := w.visitor.Enter(&out); !enter || err != nil {
		return err
	}
	for _, name := range d.raw.names {
		if err := w.name(&d, name); err != nil {
			return err
		}
	}
	return nil
}

// followDir sets what a directory with a redirect is compared with, and reports whether that has
// another path than the directory. Then the caller forgets d.was.
func (w *walk) followDir(d, parent *openDir) (renamed bool, err error) {
	from, known, err := d.source(parent, d.raw.Redirect)
	if err != nil {
		return false, err
	}
	if !w.HasLowers() {
		renamed = from != d.wasPath
		d.wasPath = from
		return renamed, nil
	}
	if from == d.wasPath && known {
		return false, nil
	}
	var to *view.Node
	if known {
		if to, err = w.lowers.Lookup(from); err != nil {
			return false, err
		}
	}
	if !to.IsDir() { // nothing of the lowers shows
		to.Forget()
		d.merges = false
		return false, nil
	}
	d.was, d.wasPath = to, from
	return true, nil
}

// source returns the path in the lowers to which the redirect of an object leads. known is false if
// the lowers have no directory in which the redirect could be a name. EINVAL: the redirect is
// invalid.
func (p *pair) source(parent *openDir, redirect string) (from string, known bool, err error) {
	if !ondisk.ValidRedirect(redirect) {
		return "", false, unix.EINVAL
	}
	if rest, ok := strings.CutPrefix(redirect, "/"); ok {
		return rest, true, nil
	}
	return path.Join(path.Dir(p.wasPath), redirect), parent.merges, nil
}

// chooseNames completes the names that the walk goes through.
func (w *walk) chooseNames(d *openDir) error {
	if w.filter.place(d.path) == above {
		var names []string
		for _, below := range w.filter.below(d.path) {
			name, _, _ := strings.Cut(below, "/")
			if _, has := slices.BinarySearch(d.raw.names, name); has || !d.merges {
				names = append(names, name)
			}
		}
		d.raw.names = nil
		d.raw.add(names)
		return nil
	}
	if d.merges || d.was == nil {
		return nil
	}
	names, err := d.was.Names() // the upper does not name what is gone
	d.raw.add(names)
	return err
}

// maxName is NAME_MAX of Linux, in bytes.
const maxName = 255

// hasUnmarkable reports whether a name is gone that is too long for a marker.
func (d *openDir) hasUnmarkable() (bool, error) {
	for _, name := range d.raw.names {
		if len(whiteout.Marker(name)) <= maxName {
			continue
		}
		now, err := d.now.Lookup(name)
		now.Forget()
		if now == nil || err != nil {
			return err == nil, err
		}
	}
	return false, nil
}

// reportDir reports a directory itself.
func (w *walk) reportDir(p *pair, renamed bool) error {
	c := Change{Kind: Added, Path: p.path, WasPath: p.wasPath, Now: p.now, Was: p.was}
	if p.was != nil {
		c.Kind = Modified
		var err error
		if c.Aspects, err = compare(p.now, p.was, true); err != nil {
			return at(p.path, err)
		}
	}
	switch {
	case renamed:
		c.Kind, c.From = Renamed, p.wasPath
	case c.Kind == Modified && c.Aspects == 0, p.path == "." && p.was == nil:
		return nil
	}
	return w.visitor.Change(&c)
}

// name reports what is under a name of a directory.
func (w *walk) name(d *openDir, name string) error {
	p := d.child(name)
	where := w.filter.place(p.path)
	if where == outside {
		return nil
	}
	if !w.HasLowers() {
		c, err := w.lacksData(d, &p, name)
		if err != nil {
			return at(p.path, err)
		}
		if c != nil {
			return w.visitor.Change(c)
		}
	}
	var err error
	if p.now, err = d.now.Lookup(name); err != nil {
		return at(p.path, err)
	}
	defer p.now.Forget()
	if d.was != nil {
		if p.was, err = d.was.Lookup(name); err != nil {
			return at(p.path, err)
		}
		defer p.was.Forget()
	}
	if p.now.IsDir() {
		if d.lowerOnly[name] {
			return w.dir(p, nil, d)
		}
		up, err := d.up.OpenDir(name)
		if err != nil {
			return at(p.path, err)
		}
		defer up.Close()
		return w.dir(p, up, d)
	}
	switch {
	case where == above:
		return w.goneBelow(&p)
	case p.now != nil:
		return w.leaf(d, p, name)
	case p.was != nil || !w.HasLowers():
		return w.visitor.Change(&Change{Kind: Deleted, Path: p.path, WasPath: p.wasPath, Was: p.was})
	}
	return nil // a whiteout that hides nothing
}

// goneBelow reports the selected objects below a path that is no directory any more.
func (w *walk) goneBelow(p *pair) error {
	if !p.was.IsDir() {
		return nil
	}
	for _, below := range w.filter.below(p.path) {
		was, err := w.lowers.Lookup(path.Join(p.wasPath, below))
		if err == nil && was != nil {
			err = w.visitor.Change(&Change{
				Kind: Deleted, Path: path.Join(p.path, below), WasPath: path.Join(p.wasPath, below), Was: was,
			})
			was.Forget()
		}
		if err != nil {
			return at(p.path, err)
		}
	}
	return nil
}
