package ocilayer

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/changes"
	"github.com/fuse-overlay/fuse-overlay/internal/quote"
	"github.com/fuse-overlay/fuse-overlay/internal/view"
	"github.com/fuse-overlay/fuse-overlay/whiteout"
)

// Errors of objects that a layer cannot hold.
var (
	errNoLowers = errors.New("is only a part of an object, whose rest the lowers have: give the lowers")
	// errXattrName: a PAX record ends its name at the first "=". GNU tar writes "%3D", which the
	// programs that unpack layers do not decode.
	errXattrName = errors.New(`has an xattr with "=" in its name, which a layer cannot hold`)
	errRenamed   = errors.New("was renamed, so only the whole directory can be written: give its path")
)

// Writer is a [changes.Visitor] that writes a layer. Call Close at the end.
type Writer struct {
	// Skipped is called for each socket, which an archive cannot hold.
	Skipped func(path string)

	tar     *tar.Writer
	lowers  bool // the lowers are known
	parents []parent
	names   map[uint64]string // the first name of each file with several names, by inode number
	buf     []byte
}

// parent is a directory that the walk is in.
type parent struct {
	path    string
	node    *view.Node
	written bool
}

// bufferSize is how many bytes of a file are read at a time.
const bufferSize = 256 << 10

// NewWriter returns a Writer to w. hasLowers is that of the [changes.Comparison].
func NewWriter(w io.Writer, hasLowers bool, skipped func(path string)) *Writer {
	return &Writer{
		Skipped: skipped, tar: tar.NewWriter(w), lowers: hasLowers, names: map[uint64]string{}, buf: make([]byte, bufferSize),
	}
}

// Close ends the archive.
func (w *Writer) Close() error { return w.tar.Close() }

// Change writes an object that has changed, or the marker of one that is gone.
func (w *Writer) Change(c *changes.Change) error {
	switch {
	case c.Kind == changes.Deleted:
		dir, name := path.Split(c.Path)
		return w.marker(c.Path, dir+whiteout.Marker(name))
	case c.Now == nil:
		return failed(c.Path, errNoLowers)
	case c.Now.IsDir():
		return w.dir(c.Path, c.Now)
	}
	return w.object(c.Path, c.Now)
}

// Enter writes a directory whole if the changes in it do not describe it.
func (w *Writer) Enter(d *changes.Dir) (bool, error) {
	switch {
	case d.Renamed && !w.lowers:
		return false, failed(d.Path, errNoLowers)
	case d.Renamed && !d.Selected:
		return false, failed(d.Path, errRenamed)
	case d.Selected && (d.Renamed || d.Unmarkable || d.Replaces && !w.lowers):
	default:
		w.leaveFor(d.Path)
		if len(w.parents) == 0 || w.parents[len(w.parents)-1].path != d.Path {
			w.parents = append(w.parents, parent{path: d.Path, node: d.Now, written: d.Path == "."})
		}
		return true, nil
	}
	if err := w.dir(d.Path, d.Now); err != nil {
		return false, err
	}
	if d.Replaces || d.Unmarkable {
		if err := w.marker(d.Path, path.Join(d.Path, whiteout.OpaqueMarker)); err != nil {
			return false, err
		}
	}
	return false, w.tree(d.Path, d.Now)
}

// tree writes everything in a directory.
func (w *Writer) tree(dir string, n *view.Node) error {
	names, err := n.Names()
	if err != nil {
		return failed(dir, err)
	}
	for _, name := range names {
		if err := w.treeName(path.Join(dir, name), n, name); err != nil {
			return err
		}
	}
	return nil
}

func (w *Writer) treeName(p string, dir *view.Node, name string) error {
	n, err := dir.Lookup(name)
	if err != nil {
		return failed(p, err)
	}
	defer n.Forget()
	switch {
	case n == nil: // removed meanwhile
		return nil
	case !n.IsDir():
		return w.object(p, n)
	}
	if err := w.dir(p, n); err != nil {
		return err
	}
	return w.tree(p, n)
}

// leaveFor drops the directories that a path does not lie in.
func (w *Writer) leaveFor(p string) {
	w.parents = slices.DeleteFunc(w.parents, func(d parent) bool {
		return d.path != "." && d.path != p && !strings.HasPrefix(p, d.path+"/")
	})
}

// writeParents writes the directories above a path that the archive lacks.
func (w *Writer) writeParents(p string) error {
	w.leaveFor(p)
	for i := range w.parents {
		if d := &w.parents[i]; !d.written && d.path != p {
			d.written = true
			if err := w.write(d.path, d.node); err != nil {
				return err
			}
		}
	}
	return nil
}

// dir writes a directory, unless the archive has it.
func (w *Writer) dir(p string, n *view.Node) error {
	if err := w.writeParents(p); err != nil {
		return err
	}
	if last := len(w.parents) - 1; last >= 0 && w.parents[last].path == p {
		return nil
	}
	w.parents = append(w.parents, parent{path: p, node: n, written: true})
	return w.write(p, n)
}

// object writes an object that is not a directory.
func (w *Writer) object(p string, n *view.Node) error {
	if n.Type() == unix.S_IFSOCK {
		w.Skipped(p)
		return nil
	}
	if err := w.writeParents(p); err != nil {
		return err
	}
	return w.write(p, n)
}

// marker writes an empty file that is about the object at p.
func (w *Writer) marker(p, name string) error {
	if err := w.writeParents(p); err != nil {
		return err
	}
	return failed(p, w.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Format: tar.FormatPAX}))
}

// failed wraps an error of the object at a path.
func failed(p string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", quote.Path(p), err)
}
