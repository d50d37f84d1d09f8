package stack

import (
	"slices"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/whiteout"
)

// A lower may not answer for a long time, and many requests use one directory. So a look-up of a
// name has three steps. [Dir.Seek], with the directory held, notes what the directory knows of the
// name. [Stack.Ask], with nothing held, makes the calls on the layers. [Sought.Still], with the
// directory held again, reports whether the answer counts. Objects of lowers do not change, so the
// answer counts if the directory still takes the name from the same layer. An object of the upper
// may change whenever the directory is not held. [Stack.Glance] looks at that object with the
// directory held, and makes no call on a lower.

// View is a directory as it was at a moment, but for its index, which is in use by others.
type View struct {
	dir     Dir
	indexed bool // the index holds what the names mean
	anew    bool // layers change
}

// View notes how d is. Precondition: d is held.
func (s *Stack) View(d *Dir) View { return View{*d, d.index != nil && !s.changing, s.changing} }

// Dir is the directory as it was, for calls that do not use its index.
func (v *View) Dir() *Dir { return &v.dir }

// Sought is what a directory knew of a name.
type Sought struct {
	name  string
	was   *View
	at    *entry // in the index; nil: none
	entry entry  // as it was
}

// Seek notes what d knows of a name. v is the current view of d. Preconditions: d is held, and
// loaded, if only to look.
func (d *Dir) Seek(v *View, name string) Sought {
	q := Sought{name: name, was: v}
	if v.indexed {
		q.set(d.index.find(name))
	}
	return q
}

// SeekListed is Seek for an entry that [Dir.List] has just passed to its function.
func (d *Dir) SeekListed(v *View, l *Listed) Sought {
	q := Sought{name: l.Name, was: v}
	if v.indexed {
		q.set(l.entry)
	}
	return q
}

func (q *Sought) set(e *entry) {
	if q.at = e; e != nil {
		q.entry = *e
	}
}

func (q *Sought) indexed() bool { return q.was.indexed }

// Was is the directory as it was.
func (q *Sought) Was() *Dir { return &q.was.dir }

// Local reports whether the meaning of the name needs no call on a lower: [Stack.Glance] finds it.
func (q *Sought) Local() bool {
	switch {
	case len(q.name) > NameMax || whiteout.IsMarker(q.name):
		return true
	case q.was.anew:
		return false
	case q.indexed():
		return q.at == nil || q.entry.absent() || q.entry.layer == Upper
	}
	return len(q.was.dir.parts) == 1 && q.was.dir.parts[0].layer == Upper
}

// NeedsUpper reports whether Glance looks at the upper. Precondition: Local.
func (q *Sought) NeedsUpper() bool {
	switch {
	case len(q.name) > NameMax || whiteout.IsMarker(q.name):
		return false
	case q.indexed():
		return q.at != nil && !q.entry.absent()
	}
	return true
}

// Glance fills f with what a name means that has just been sought and is local. complete is false
// if the data of a file is elsewhere: [Stack.Ask] finds it. Precondition: the directory is held.
func (s *Stack) Glance(q *Sought, o Opened, f *Found) (complete bool, err error) {
	*f = Found{}
	switch {
	case len(q.name) > NameMax:
		return false, unix.ENAMETOOLONG
	case whiteout.IsMarker(q.name):
		return true, nil
	case !q.indexed():
		err = s.stat(o, q.name, Upper, q.was.dir.parts[0].xattrWhiteouts, f)
	case q.at == nil:
		return true, nil
	default:
		if q.entry.found(f); q.entry.absent() {
			return true, nil
		}
		err = s.stat(o, q.name, Upper, false, f)
	}
	if err != nil || !f.Exists() || !s.mayLackData(&q.was.dir, Upper, &f.Stat) {
		return true, err
	}
	h, err := o.Layer(Upper)
	if err != nil {
		return false, err
	}
	m, err := s.names.ReadFile(h.At(q.name))
	if err == unix.ENOENT {
		err = nil
	}
	return !m.Metacopy, err
}

// Ask finds out from the layers what a name means, as [Stack.Lookup]. list: the directory has to be
// listed first.
// Precondition: none; other users of the directory may change it meanwhile.
func (s *Stack) Ask(q *Sought, o Opened, f *Found) (list bool, err error) {
	*f = Found{}
	switch {
	case s.changing:
		return false, s.lookAnew(&q.was.dir, o, q.name, f)
	case q.indexed():
		return false, s.lookupEntry(&q.was.dir, q.found(), o, f)
	case len(q.was.dir.parts) == 1:
		p := &q.was.dir.parts[0]
		return false, s.look(&q.was.dir, o, q.name, int(p.layer), p.xattrWhiteouts, f)
	}
	if err := s.lookUnlisted(&q.was.dir, o, q.name, f); err != nil {
		return false, err
	}
	return f.IsDir(), nil // a layer changed under the mount, or does not count: other parts may have it as well
}

// found is the entry as it was; nil: none.
func (q *Sought) found() *entry {
	if q.at == nil {
		return nil
	}
	return &q.entry
}

// Still reports whether the result of Ask counts for d, in which the name was sought. For an object
// of the upper, Glance must also find that it is the same, unless d is unchanged. Precondition: d
// is held.
func (q *Sought) Still(d *Dir) bool {
	switch {
	case d.changes == q.was.dir.changes:
		return true
	case d.index == nil || !q.indexed() || q.at == nil:
		return false
	}
	return !q.at.gone && q.at.layer == q.entry.layer && q.at.typ == q.entry.typ && slices.Equal(q.at.lowers(), q.entry.lowers())
}

// AsItWas reports whether nothing has changed in d since the name was sought. Precondition: d is held.
func (q *Sought) AsItWas(d *Dir) bool { return d.changes == q.was.dir.changes }
