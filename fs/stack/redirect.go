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

// A directory that was renamed merges with directories of another name. The redirect xattr of its
// part in one layer is where the layers below have it (Documentation/filesystems/overlayfs.rst,
// "redirect_dir").

// Redirects is what a rename of a directory with lower parts does, and whether redirects in layers
// are followed.
type Redirects int

// The values of option redirect_dir.
const (
	RedirectsOff      Redirects = iota // renaming is EXDEV; redirects are followed
	RedirectsOn                        // renaming writes redirects; they are followed
	RedirectsFollow                    // as off
	RedirectsNoFollow                  // renaming is EXDEV; a directory with a redirect is EPERM
)

// moved is where a layer has a directory, as a path below its root.
type moved struct {
	layer uint16
	path  string
}

// MovedTo returns where a layer has the directory. ok is false if the layer has it under its name
// in its part of the parent.
func (d *Dir) MovedTo(layer int) (path string, ok bool) {
	for _, m := range d.moved {
		if int(m.layer) == layer {
			return m.path, true
		}
	}
	return "", false
}

// Moved reports whether MovedTo returns a path for some layer. Precondition: loaded.
func (d *Dir) Moved() bool { return len(d.moved) > 0 }

// Redirect is where the layers below the upper have the directory: a name beside its own, or a path
// from their roots that begins with a slash. Empty: under its own name. Precondition: loaded.
func (d *Dir) Redirect() string { return d.redirect }

// Places are where layers have a directory. They do not depend on its name.
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

// SetPlaces sets what MovedTo and Redirect return.
func (d *Dir) SetPlaces(p Places) { d.redirect, d.moved = p.redirect, p.moved }

// MayBeRedirected reports whether a directory whose topmost part lies in layer may merge with
// directories of another name.
func (s *Stack) MayBeRedirected(layer int) bool { return layer < len(s.layers)-1 }

// WritesRedirects reports whether directories with lower parts can be renamed (redirect_dir=on).
func (s *Stack) WritesRedirects() bool { return s.redirects == RedirectsOn }

// checkRedirect checks the redirect of a layer's directory. It returns EPERM if the redirect must
// not be followed, and EINVAL if its value is invalid.
func (s *Stack) checkRedirect(layer int, m *whiteout.DirXattrs) error {
	switch {
	case s.redirects == RedirectsNoFollow, m.ByUser && !s.followsUsers(layer):
		return unix.EPERM
	case !ondisk.ValidRedirect(m.Redirect):
		return unix.EINVAL
	}
	return nil
}

// follow replaces the layers of d after the i-th by those that the redirect of the i-th leads to.
// Compare ovl_lookup and ovl_lookup_layer of fs/overlayfs/namei.c.
func (s *Stack) follow(d *Dir, o LayerDirs, i int, m *whiteout.DirXattrs) error {
	at := int(d.layers[i])
	if !s.MayBeRedirected(at) {
		return nil // it is the last layer
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
	d.layers, d.moved, d.followed = layers, places, true
	return nil
}

// redirectWalk looks for a directory, or for the data of a metacopy, in one layer after the other.
type redirectWalk struct {
	s    *Stack
	to   string // a path from the layers' roots, or a name in the directory's parent
	stop bool   // no layer below has a part of it

	file     bool // it looks for the data of a metacopy
	metacopy bool // the file that was found last is a metacopy
	st       sys.Stat
}

func (w *redirectWalk) absolute() bool { return w.to[0] == '/' }

// look walks down in one layer from base. If it meets a redirect there, it changes to for the
// layers below.
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
		file, lookFor := last && w.file, w.lookForDir
		if file {
			lookFor = w.lookForFile
		}
		m, found, err := lookFor(h, layer, name)
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
			w.to, w.stop = path.Join(m.Redirect, rest), false // an opaque directory above does not stop an absolute redirect
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

// lookForDir looks for a directory of the walk in the directory h of a layer, and returns its
// xattrs.
func (w *redirectWalk) lookForDir(h *sys.Dir, layer int, name string) (m whiteout.DirXattrs, found bool, err error) {
	var st sys.Stat
	if exists, err := w.stat(h, layer, name, &st); !exists {
		return m, false, err
	}
	rule := aboveIsDir
	if rule.next(uint16(layer), direntType(st.Mode)) != isPart {
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

// stat fills st with the attributes of what a layer has under a name.
func (w *redirectWalk) stat(h *sys.Dir, layer int, name string, st *sys.Stat) (exists bool, err error) {
	err = w.s.Shown(layer, h.At(name)).Stat(st)
	if err != unix.ENOENT {
		return err == nil, ignoreGone(err)
	}
	rule := aboveIsDir
	err = w.s.lookForMarker(&rule, h, uint16(layer), name)
	w.stop = w.stop || rule.closed
	return false, ignoreGone(err)
}

// aboveIsDir is the state of the merge rule in a walk: a layer above has a directory.
var aboveIsDir = merge{typ: unix.DT_DIR}

// ignoreGone returns nil if err means that an object does not exist. No object has a name that is
// too long, but a redirect may consist of such names (ovl_lookup_single).
func ignoreGone(err error) error {
	if err == unix.ENOENT || err == unix.ENOTDIR || err == unix.ENAMETOOLONG {
		return nil
	}
	return err
}
