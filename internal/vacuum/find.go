package vacuum

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/changes"
	"github.com/fuse-overlay/fuse-overlay/internal/ondisk"
	"github.com/fuse-overlay/fuse-overlay/internal/quote"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/internal/view"
	"github.com/fuse-overlay/fuse-overlay/whiteout"
)

// finder is one walk through the upper.
type finder struct {
	*Vacuum
	drops []Drop
}

// openDir is a directory of the upper.
type openDir struct {
	path string
	up   *sys.Dir
	now  *view.Node
	was  *view.Node // what shows in it of the lowers; nil: nothing
	at   string     // the path of was in the lowers
	whiteout.DirXattrs
	names map[string]bool
}

// Find returns what can be dropped, the objects in a directory before the directory.
func (v *Vacuum) Find() ([]Drop, error) {
	f := finder{Vacuum: v}
	now, err := v.merged.Root()
	if err != nil {
		return nil, err
	}
	was, err := v.lowers.Root()
	if err != nil {
		return nil, err
	}
	up, err := v.stack.Root(0).OpenDir("")
	if err != nil {
		return nil, err
	}
	defer up.Close()
	_, err = f.dir(&openDir{up: up, now: now, was: was})
	return f.drops, err
}

// at wraps an error of the object at a path.
func at(p string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", quote.Path(p), err)
}

// dir looks through a directory. empty: nothing is left in it after the drops.
func (f *finder) dir(d *openDir) (empty bool, err error) {
	if d.DirXattrs, err = whiteout.ReadDirXattrs(f.stack.Names(), d.up); err != nil {
		return false, at(d.path, err)
	}
	d.names = map[string]bool{}
	if err := d.up.List(func(e sys.Dirent) error { d.names[e.Name] = true; return nil }); err != nil {
		return false, at(d.path, err)
	}
	d.Opaque = d.Opaque || d.names[whiteout.OpaqueMarker]
	if err := f.follow(d); err != nil {
		return false, at(d.path, err)
	}
	names := make([]string, 0, len(d.names))
	for name := range d.names {
		names = append(names, name)
	}
	slices.Sort(names)
	empty = true
	for _, name := range names {
		dropped, err := f.name(d, name)
		if err != nil {
			return false, err
		}
		empty = empty && dropped
	}
	return empty, nil
}

// follow sets what shows in the directory of the lowers, by its marks.
func (f *finder) follow(d *openDir) error {
	switch {
	case d.Opaque:
		d.was = nil
	case d.Redirect == "" || d.path == "":
	case !ondisk.ValidRedirect(d.Redirect):
		return unix.EINVAL
	default:
		target, absolute := strings.CutPrefix(d.Redirect, "/")
		if !absolute {
			target = path.Join(path.Dir(d.at), d.Redirect)
		}
		d.was, d.at = nil, target
		to, err := f.lowers.Lookup(target)
		if err != nil {
			return err
		}
		if to.IsDir() {
			d.was = to
		}
	}
	return nil
}

// name looks at what the upper has under a name. dropped: it is to be dropped.
func (f *finder) name(d *openDir, name string) (dropped bool, err error) {
	if f.Seen != nil {
		f.Seen()
	}
	p, r := path.Join(d.path, name), d.up.At(name)
	var st sys.Stat
	if err := r.Stat(&st); err != nil {
		return false, at(p, err)
	}
	if whiteout.IsMarker(name) {
		hidden, ok := whiteout.Hidden(name)
		if !ok || d.names[hidden] || st.Size != 0 || st.Mode&unix.S_IFMT != unix.S_IFREG {
			return false, nil
		}
		return f.whiteout(d, p, hidden, &st)
	}
	absent, err := f.isWhiteout(r, &st, d.XattrWhiteouts)
	if err != nil {
		return false, at(p, err)
	}
	if absent {
		return f.whiteout(d, p, name, &st)
	}
	now, err := d.now.Lookup(name)
	if err != nil {
		return false, at(p, err)
	}
	defer now.Forget()
	was, err := f.wasUnder(d, name)
	if err != nil {
		return false, at(p, err)
	}
	defer was.Forget()
	if now.IsDir() && st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return f.child(d, name, now, was, &st)
	}
	same, err := equal(now, was)
	if !same || err != nil || st.Nlink != 1 {
		return false, at(p, err)
	}
	f.add(Copy, p, &st)
	return true, nil
}

// isWhiteout reports whether an object of the upper is an in-place whiteout.
func (f *finder) isWhiteout(r sys.Ref, st *sys.Stat, xattrWhiteouts bool) (bool, error) {
	shown := *st
	if f.stack.Overrides(0) {
		if err := f.stack.Shown(0, r).Stat(&shown); err != nil {
			return false, err
		}
	}
	return whiteout.Is(f.stack.Names(), r, &shown, xattrWhiteouts)
}

// wasUnder returns what the lowers show under a name of a directory; nil: nothing.
func (f *finder) wasUnder(d *openDir, name string) (*view.Node, error) {
	if !d.was.IsDir() {
		return nil, nil
	}
	return d.was.Lookup(name)
}

func (f *finder) whiteout(d *openDir, p, hidden string, st *sys.Stat) (dropped bool, err error) {
	was, err := f.wasUnder(d, hidden)
	defer was.Forget()
	if was != nil || err != nil {
		return false, at(p, err)
	}
	f.add(Whiteout, p, st)
	return true, nil
}

// child looks through a directory in d.
func (f *finder) child(d *openDir, name string, now, was *view.Node, st *sys.Stat) (dropped bool, err error) {
	p := path.Join(d.path, name)
	up, err := d.up.OpenDir(name)
	if err != nil {
		return false, at(p, err)
	}
	defer up.Close()
	c := openDir{path: p, up: up, now: now, was: was, at: path.Join(d.at, name)}
	marked := d.names[whiteout.Marker(name)]
	if marked || !was.IsDir() {
		c.was = nil
	}
	empty, err := f.dir(&c)
	if c.was != was {
		c.was.Forget()
	}
	if err != nil || !empty || c.Opaque || c.Redirect != "" || c.was == nil {
		return false, err
	}
	same, err := equal(now, was)
	if !same || err != nil {
		return false, at(p, err)
	}
	f.add(Directory, p, st)
	return true, nil
}

func (f *finder) add(kind Kind, p string, st *sys.Stat) {
	d := Drop{Kind: kind, Path: p, inode: object{st.Dev, st.Ino}}
	if st.Nlink == 1 || kind == Directory {
		d.Bytes = st.Blocks * 512 // st_blocks counts 512 bytes
	}
	f.drops = append(f.drops, d)
}

// flags are the inode flags that chattr sets and a copy-up copies.
const flags = sys.FlagSync | sys.FlagImmutable | sys.FlagAppend | sys.FlagNodump | sys.FlagNoatime

// equal reports whether an object of the upper, which shows as now, shows nothing else than was
// does. Objects of which the lowers have several links are never equal: without the copy they would
// be one object again.
func equal(now, was *view.Node) (bool, error) {
	if now == nil || was == nil || now.Type() != was.Type() || now.Nlink != was.Nlink || !now.IsDir() && now.Nlink != 1 {
		return false, nil
	}
	a, err := now.InodeFlags()
	if err != nil {
		return false, err
	}
	b, err := was.InodeFlags()
	if err != nil || a&flags != b&flags {
		return false, err
	}
	aspects, err := changes.Compare(now, was)
	return err == nil && aspects == 0, err
}
