package stack

import (
	"slices"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/whiteout"
)

// A lower may not answer for a long time, and many requests use one directory. So no call on a
// lower is made while the directory is held. [Stack.Resolve] is called with the directory held. It
// either returns what a name means, or it names the step that is needed first. The caller releases
// the directory, does that step and calls Resolve again:
//
//	NeedLoad    [Stack.Load] for Query.Use
//	NeedUpper   open the directory in the upper
//	NeedLayers  [Stack.LookUpInLayers]
//
// Objects of lowers do not change. So what LookUpInLayers found stays valid if the directory still
// takes the name from the same layer. An object of the upper may change whenever the directory is
// not held, so Resolve looks at it with the directory held.

// Query is the lookup of one name in one directory. Name and Use are set by the caller.
type Query struct {
	Name string
	Use  Use // what the directory has to be loaded for; Resolve may change it to ToList

	step    step
	listed  bool // the directory's name table knew the name, or that it is absent
	changes uint64
	parts   []part
	at      *entry // in the name table; nil: none
	entry   entry  // as it was
	hint    *entry // where the name is in the name table, before the first step; nil: to be looked for
}

// step is how far a query has come.
type step uint8

const (
	noStep step = iota
	noted       // what the directory knew of the name is in the query
	looked      // LookUpInLayers has returned
)

// Need is the step that comes before [Stack.Resolve] can return what a name means.
type Need uint8

const (
	// NeedNothing: the name is resolved.
	NeedNothing Need = iota
	// NeedLoad: the directory has to be loaded for the query's Use.
	NeedLoad
	// NeedUpper: the directory has to be open in the upper.
	NeedUpper
	// NeedLayers: lowers have to be looked at.
	NeedLayers
	// NeedData: the name is resolved but for Found.Data. LookUpInLayers finds that.
	NeedData
)

// Resolved reports whether a name is known but for where the data of a file is.
func (n Need) Resolved() bool { return n == NeedNothing || n == NeedData }

// NewDir returns the directory that lies in the given layers, topmost first, as a [Found] has them.
// It was looked up by q in its parent; nil: it is the root.
func NewDir(layers []uint16, q *Query) Dir {
	d := Dir{layers: layers}
	if q != nil {
		d.above = q.parts
	}
	return d
}

// Query returns the query for an entry that [Dir.List] has just passed to its function.
func (l *Listed) Query() Query { return Query{Name: l.Name, hint: l.entry} }

// Resolve fills f with what a name means in d, if it needs no step before. f is the one that
// LookUpInLayers filled. Precondition: d is held.
func (s *Stack) Resolve(q *Query, d *Dir, o LayerDirs, f *Found) (Need, error) {
	need := s.Needs(q, d, o)
	if need != NeedNothing || q.step == looked {
		return need, nil
	}
	return s.lookUpInUpper(q, o, f)
}

// Needs returns the step that Resolve needs, and makes no call. Precondition: d is held.
func (s *Stack) Needs(q *Query, d *Dir, o LayerDirs) Need {
	if !s.Loaded(d, q.Use) {
		q.step = noStep
		return NeedLoad
	}
	if q.Use == ToChange && d.HasUpper() && !o.Has(Upper) {
		return NeedUpper
	}
	if q.step == looked && !s.isLocal(q) && q.isValid(d) {
		return NeedNothing
	}
	s.note(q, d)
	switch {
	case q.Use == ToLookUp && s.isLookedUpOften(d):
		q.Use, q.step = ToList, noStep
		return NeedLoad
	case !s.isLocal(q):
		return NeedLayers
	case s.needsUpper(q) && !o.Has(Upper):
		return NeedUpper
	}
	return NeedNothing
}

// note records in q what d knows of its name.
func (s *Stack) note(q *Query, d *Dir) {
	q.step, q.listed = noted, d.table != nil && !s.layersChange
	q.changes, q.parts = d.changes, d.parts
	q.at = nil
	if !q.listed {
		return
	}
	if q.at = q.hint; q.at == nil {
		q.at = d.table.find(q.Name)
	}
	q.hint = nil
	if q.at != nil {
		q.entry = *q.at
	}
}

// isUnseen reports whether no layer can show the name.
func (q *Query) isUnseen() bool { return len(q.Name) > NameMax || whiteout.IsMarker(q.Name) }

// isLocal reports whether the meaning of the name needs no call on a lower.
func (s *Stack) isLocal(q *Query) bool {
	switch {
	case q.isUnseen():
		return true
	case s.layersChange:
		return false
	case q.listed:
		return q.at == nil || q.entry.absent() || q.entry.layer == Upper
	}
	return len(q.parts) == 1 && q.parts[0].layer == Upper
}

// needsUpper reports whether the meaning of a local name needs a call on the upper.
func (s *Stack) needsUpper(q *Query) bool {
	switch {
	case q.isUnseen():
		return false
	case q.listed:
		return q.at != nil && !q.entry.absent()
	}
	return true
}

// lookUpInUpper fills f with what a local name means. It returns NeedData if the data of a file is
// elsewhere. Precondition: the directory is held.
func (s *Stack) lookUpInUpper(q *Query, o LayerDirs, f *Found) (need Need, err error) {
	*f = Found{}
	switch {
	case len(q.Name) > NameMax:
		return NeedNothing, unix.ENAMETOOLONG
	case q.isUnseen():
		return NeedNothing, nil
	case !q.listed:
		err = s.stat(o, &q.parts[0], q.Name, f)
	case q.at == nil:
		return NeedNothing, nil
	default:
		if q.entry.describe(f); q.entry.absent() {
			return NeedNothing, nil
		}
		err = s.stat(o, &part{layer: Upper}, q.Name, f)
	}
	if err != nil || !f.Exists() || !s.mayLackData(q.parts, Upper, &f.Stat) {
		return NeedNothing, err
	}
	h, err := o.Layer(Upper)
	if err != nil {
		return NeedNothing, err
	}
	m, err := s.names.ReadFile(h.At(q.Name))
	switch {
	case err == unix.ENOENT:
		return NeedNothing, nil
	case err == nil && m.Metacopy:
		return NeedData, nil
	}
	return NeedNothing, err
}

// LookUpInLayers fills f with what a name means by calls on the layers. A name of an unlisted
// directory that turns out to be a directory is not looked up: the next Resolve returns NeedLoad.
// Preconditions: Resolve or Needs has returned NeedLayers or NeedData. Other users of the directory
// may change it meanwhile.
func (s *Stack) LookUpInLayers(q *Query, o LayerDirs, f *Found) error {
	*f = Found{}
	q.step = looked
	if q.listed {
		return s.lookUpEntry(q.parts, q.noted(), o, f)
	}
	err := s.lookUpInParts(q.parts, o, q.Name, f)
	if err == nil && f.IsDir() && len(q.parts) > 1 && !s.layersChange {
		// A layer changed under the mount, or does not count its directories: other parts may have
		// it as well.
		*f, q.Use, q.step = Found{}, ToList, noStep
	}
	return err
}

// noted is the entry as it was; nil: none.
func (q *Query) noted() *entry {
	if q.at == nil {
		return nil
	}
	return &q.entry
}

// Confirm reports whether f, as Resolve or LookUpInLayers filled it, is still what the name means.
// For an object of the upper it reads the attributes anew. Preconditions: d is held.
func (s *Stack) Confirm(q *Query, d *Dir, o LayerDirs, f *Found) (bool, error) {
	switch {
	case q.step == noStep:
		return false, nil
	case q.changes == d.changes:
		return true, nil
	case !s.isLocal(q):
		return q.isValid(d), nil
	}
	var now Found
	again := Query{Name: q.Name, Use: q.Use}
	need, err := s.Resolve(&again, d, o, &now)
	if err != nil || !need.Resolved() || !now.isSame(f) {
		return false, err
	}
	if f.Shared == nil { // else the link count is that of all names
		f.Stat = now.Stat
	}
	return true, nil
}

// isSame reports whether a name means the same object by two lookups.
func (f *Found) isSame(other *Found) bool {
	return f.State == other.State && f.Stat.Dev == other.Stat.Dev && f.Stat.Ino == other.Stat.Ino &&
		slices.Equal(f.Dirs, other.Dirs)
}

// isValid reports whether what was found in lowers counts for d. Precondition: d is held.
func (q *Query) isValid(d *Dir) bool {
	switch {
	case d.changes == q.changes:
		return true
	case d.table == nil || !q.listed || q.at == nil:
		return false
	}
	return !q.at.gone && q.at.layer == q.entry.layer && q.at.typ == q.entry.typ &&
		slices.Equal(q.at.lowers(), q.entry.lowers())
}

// IsUnchanged reports whether LookUpInLayers has returned and d has not changed since the name was
// noted. Precondition: d is held.
func (q *Query) IsUnchanged(d *Dir) bool { return q.step == looked && d.changes == q.changes }

// IsUsed reports whether q has come further than its first step.
func (q *Query) IsUsed() bool { return q.step == looked }
