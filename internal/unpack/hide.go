package unpack

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/quote"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/whiteout"
)

// marks are what a layer hides in one directory.
type marks struct {
	opaque bool
	names  []string
}

// marksOf returns the marks of a directory, by its path from the root of the layer.
func (u *unpacker) marksOf(dir string) *marks {
	m := u.hidden[dir]
	if m == nil {
		m = &marks{}
		u.hidden[dir] = m
	}
	return m
}

// hide makes all whiteouts and opaque directories. It runs when the archive is at its end: a
// whiteout hides what layers below have, and nothing of its own layer, wherever in the archive it
// is (image-spec, layer.md, "Whiteouts").
func (u *unpacker) hide() error {
	for _, dir := range slices.Sorted(maps.Keys(u.hidden)) {
		if err := u.hideIn(dir, u.hidden[dir]); err != nil {
			return fmt.Errorf("cannot hide names in %s: %w", quote.Word("/"+dir), err)
		}
	}
	return nil
}

func (u *unpacker) hideIn(dir string, m *marks) (err error) {
	at, err := u.descend(dir)
	if err != nil || at == nil {
		return err
	}
	defer func() {
		if e := at.leave(); err == nil {
			err = e
		}
	}()
	d := at.dirs[len(at.dirs)-1].Dir
	if m.opaque {
		return u.stage.whiteouts.MakeOpaque(d)
	}
	slices.Sort(m.names)
	for _, name := range slices.Compact(m.names) {
		var st sys.Stat
		switch err := d.At(name).Stat(&st); {
		case err == unix.ENOENT:
			err = u.stage.whiteouts.Cover(whiteout.Entry{Dir: d, Name: name, Has: whiteout.Lower, Below: true})
			if err != nil {
				return fmt.Errorf("%s: %w", quote.Word(name), err)
			}
		case err != nil:
			return fmt.Errorf("%s: %w", quote.Word(name), err)
		case st.Mode&unix.S_IFMT == unix.S_IFDIR: // replaced by a new directory
			if err := u.hideIn(path.Join(dir, name), &marks{opaque: true}); err != nil {
				return err
			}
		}
	}
	return nil
}

// descent are the directories from the root of the layer to another one. The caller may search and
// change each of them, whatever its mode.
type descent struct{ dirs []visited }

// visited is a directory, and its attributes before the descent.
type visited struct {
	*sys.Dir
	before sys.Stat
}

// ownerAll are the permissions that the owner needs to make an entry in a directory.
const ownerAll = 0o700

// descend opens a directory of the layer, and makes what is missing. It returns nil if a component
// of the path is not a directory: that hides all below it.
func (u *unpacker) descend(dir string) (at *descent, err error) {
	at = &descent{}
	root, err := u.stage.dir.OpenDir(treeName)
	if err == nil {
		err = at.enter(root)
	}
	if err != nil {
		return nil, err
	}
	for name := range strings.SplitSeq(dir, "/") {
		if name == "" { // the root itself
			continue
		}
		d := at.dirs[len(at.dirs)-1]
		next, err := d.OpenDir(name)
		if err == unix.ENOENT {
			if err = d.Mkdir(name, rootMode); err == nil {
				next, err = d.OpenDir(name)
			}
		}
		if err == nil {
			err = at.enter(next)
		}
		if err == unix.ENOTDIR || err == unix.ELOOP {
			return nil, at.leave()
		}
		if err != nil {
			_ = at.leave() // the first error is returned
			return nil, err
		}
	}
	return at, nil
}

// enter adds an open directory, and closes it after an error.
func (at *descent) enter(d *sys.Dir) error {
	v := visited{Dir: d}
	err := d.Ref().Stat(&v.before)
	if err == nil && v.before.Mode&ownerAll != ownerAll {
		err = d.Ref().Chmod(v.before.Mode&0o7777 | ownerAll)
	}
	if err != nil {
		d.Close()
		return err
	}
	at.dirs = append(at.dirs, v)
	return nil
}

// leave restores modes and times, from the deepest directory up, and closes all. It returns the
// first error.
func (at *descent) leave() (first error) {
	for _, v := range slices.Backward(at.dirs) {
		err := v.Ref().Utimes(v.before.Atim, v.before.Mtim)
		if err == nil && v.before.Mode&ownerAll != ownerAll {
			err = v.Ref().Chmod(v.before.Mode & 0o7777)
		}
		if first == nil {
			first = err
		}
		v.Close()
	}
	return first
}
