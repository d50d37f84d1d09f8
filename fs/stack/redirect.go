package stack

import (
	"cmp"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/ondisk"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/whiteout"
)

// A directory that was renamed merges with directories of another name: the attribute redirect of its part in one layer says
// where the layers below have it (Documentation/filesystems/overlayfs.rst, "redirect_dir").

// Redirects says what is done with directories that have lower parts when they are renamed, and with redirects in layers.
type Redirects int

// The values of option redirect_dir.
const (
	RedirectsOff      Redirects = iota // renaming is EXDEV; redirects are followed
	RedirectsOn                        // renaming writes redirects; they are followed
	RedirectsFollow                    // as off
	RedirectsNoFollow                  // renaming is EXDEV; a directory with a redirect is EPERM
)

// moved is where a layer has a directory: a path below its root.
type moved struct {
	layer uint16
	path  string
}

// MovedTo is where a layer has the directory, if not under its name in that layer's part of its parent.
func (d *Dir) MovedTo(layer int) (path string, ok bool) {
	for _, m := range d.moved {
		if int(m.layer) == layer {
			return m.path, true
		}
	}
	return "", false
}

// Moved reports whether some layer has the directory elsewhere than under its name. Precondition: loaded, if only to look.
func (d *Dir) Moved() bool { return len(d.moved) > 0 }

// Redirect is the name or, with a slash before it, the path under which the layers below the upper have the directory; empty:
// under its own name. Precondition: loaded.
func (d *Dir) Redirect() string { return d.redirect }

// Places are where layers have a directory, whatever becomes of its name.
type Places struct {
	redirect string
	moved    []moved
}

// PlacesOf returns where the lower parts of the directory lie, by pathIn. Call it before the
// directory gets another name. redirect is the one for the new name; empty: the one that the
// directory has. Precondition: loaded.
func (d *Dir) PlacesOf(redirect string, pathIn func(layer int) string) Places {
	p := Places{redirect: cmp.Or(redirect, d.redirect)}
	for _, part := range d.parts {
		if part.layer != Upper {
			p.moved = append(p.moved, moved{part.layer, pathIn(int(part.layer))})
		}
	}
	return p
}

// SetPlaces notes that, for MovedTo and Redirect.
func (d *Dir) SetPlaces(p Places) { d.redirect, d.moved = p.redirect, p.moved }

// MayBeRedirected reports whether a directory whose topmost part lies in layer could merge with others that its name does not
// lead to.
func (s *Stack) MayBeRedirected(layer int) bool { return layer < len(s.layers)-1 }

// WritesRedirects reports whether directories with lower parts can be renamed.
func (s *Stack) WritesRedirects() bool { return s.redirects == RedirectsOn }

// checkRedirect checks the redirect that a layer's directory has: EPERM where it is not to be followed, EINVAL for one that is none.
func (s *Stack) checkRedirect(layer int, m *whiteout.DirXattrs) error {
	switch {
	case s.redirects == RedirectsNoFollow, m.ByUser && !s.followsUsers(layer):
		return unix.EPERM
	case !ondisk.ValidRedirect(m.Redirect):
		return unix.EINVAL
	}
	return nil
}

// follow puts in place of d's layers after the i-th those that its redirect leads to, if it is admitted. Compare ovl_lookup and
// ovl_lookup_layer of fs/overlayfs/namei.c.
func (s *Stack) follow(d *Dir, o LayerDirs, i int, m *whiteout.DirXattrs) error {
	at := int(d.layers[i])
	if !s.MayBeRedirected(at) {
		return nil // nothing is below
	}
	if err := s.checkRedirect(at, m); err != nil {
		return err
	}
	if at == Upper {
		d.redirect = m.Redirect
	}
	layers, places := slices.Clone(d.layers[:i+1]), []moved(nil)
	for _, m := range d.moved {
		if int(m.layer) <= at {
			places = append(places, m)
		}
	}
	w := redirectWalk{s: s, to: m.Redirect}
	for layer := at + 1; layer < len(s.layers) && !w.stop; layer++ {
		base := ""
		if !w.absolute() {
			if !slices.ContainsFunc(d.above, func(p part) bool { return int(p.layer) == layer }) {
				continue
			}
			base, _ = path.Split(o.Path(layer))
		}
		where, found, err := w.look(layer, base)
		if err != nil {
			return err
		}
		if found {
			layers, places = append(layers, uint16(layer)), append(places, moved{uint16(layer), where})
		}
	}
	d.layers, d.moved = layers, places
	return nil
}

// redirectWalk looks for a directory, or for the data of a file, in one layer after the other.
type redirectWalk struct {
	s    *Stack
	to   string // a path from the layers' roots, or a name in the directory's parent
	stop bool   // the layers below have nothing to do with it

	file     bool // looks for a file
	metacopy bool // of the file that was found last: its data is further down
	st       sys.Stat
}

func (w *redirectWalk) absolute() bool { return w.to[0] == '/' }

// look walks down in one layer from base. What it meets there may lead elsewhere in the layers below: to is changed for them.
func (w *redirectWalk) look(layer int, base string) (where string, found bool, err error) {
	names := strings.Split(strings.TrimPrefix(w.to, "/"), "/")
	where = strings.Trim(base, "/")
	done := 0 // bytes of to, for the layers below
	if w.absolute() {
		done = 1
	}
	for i, name := range names {
		last := i == len(names)-1
		h, err := w.s.Root(layer).OpenDir(where)
		if err != nil {
			return "", false, ignoreGone(err)
		}
		file := last && w.file
		m, found, err := w.lookOne(h, layer, name, file)
		h.Close()
		if err != nil || !found {
			return "", false, err
		}
		leads := !m.Opaque && m.Redirect != "" && (file || w.s.MayBeRedirected(layer))
		if leads {
			if err := w.s.checkRedirect(layer, &m); err != nil {
				return "", false, err
			}
		}
		where = path.Join(where, name)
		rest := strings.Join(names[i+1:], "/")
		switch {
		case !leads:
		case m.Redirect[0] == '/':
			w.to, w.stop = path.Join(m.Redirect, rest), false // it goes on below, whatever was opaque above it
			done = len(m.Redirect) + 1
			continue
		default:
			w.to = path.Join(w.to[:done], m.Redirect, rest)
			name = m.Redirect
		}
		if !last {
			done += len(name) + 1
		}
	}
	return where, true, nil
}

// lookOne tells whether the directory h of a layer has a directory, or a file, of that name, and what it says of the layers
// below.
func (w *redirectWalk) lookOne(h *sys.Dir, layer int, name string, file bool) (m whiteout.DirXattrs, found bool, err error) {
	var st sys.Stat
	rule := merge{typ: unix.DT_DIR} // a layer above has the directory
	switch err := w.s.Shown(layer, h.At(name)).Stat(&st); {
	case err == unix.ENOENT:
		err = w.s.lookForMarker(&rule, h, uint16(layer), name)
		w.stop = w.stop || rule.closed
		return m, false, ignoreGone(err)
	case err != nil:
		return m, false, err
	}
	if file {
		return w.lookFile(layer, h.At(name), &st)
	}
	if rule.next(uint16(layer), direntType(st.Mode)) != isPart { // a whiteout, or what hides all below as well
		w.stop = true
		return m, false, nil
	}
	d, err := h.OpenDir(name)
	if err != nil {
		return m, false, err
	}
	defer d.Close()
	if m, err = whiteout.ReadDir(w.s.names, d); m.Opaque {
		rule.nextOpaque()
	}
	w.stop = w.stop || rule.closed
	return m, true, err
}

// ignoreGone takes what is not there, or not a directory, for the answer that it is.
func ignoreGone(err error) error {
	if err == unix.ENOENT || err == unix.ENOTDIR {
		return nil
	}
	return err
}
