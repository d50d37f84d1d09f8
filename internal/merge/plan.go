package merge

import (
	"errors"
	"fmt"
	"path"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/internal/changes"
	"github.com/fuse-overlay/fuse-overlay/internal/host"
	"github.com/fuse-overlay/fuse-overlay/internal/quote"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// planner makes the list of a merge. It is a [changes.Visitor], and passes on what it gets.
type planner struct {
	*Merge
	out changes.Visitor

	dressAll bool // objects of the upper do not have their attributes in their inodes, or not writable
	dirs     []*plannedDir
	byPath   map[string]*plannedDir
	steps    []*plannedStep
	groups   map[uint64][]*plannedStep // the names of files with several, by inode numbers of the view
	gathers  []gather
	change   *changes.Change // the last one of a directory

	// freed are paths in the lowers that nothing shows of any more. moved are those of directories
	// that show under another path.
	freed, moved map[string]bool
	// kept are paths in the lower that hold the upper or the work directory.
	kept []string
}

// plannedDir is a directory of the upper.
type plannedDir struct {
	path, was string
	dirty     bool // It changes, or names in it do.
	named     bool // Names in it change.
	isNew     bool // It does not lie in the lower under the path was, or is not what lies there.
	hides     bool // Nothing of the lowers shows in it.
	sameOwner bool // as in the lower
	attributes
}

// plannedStep is a step, of which not all may be decided.
type plannedStep struct {
	step
	kind     changes.Kind
	inUpper  bool
	metacopy bool
	// takes is the path of the file in the lower that has the data of the metacopy and no other name;
	// empty: its data is copied.
	takes string
	attrs attributes
	ino   uint64 // in the view
}

// errShownTwice is for what cannot be moved.
var errShownTwice = errors.New("shows a directory of the lower that shows elsewhere as well, by a redirect; merge these layers --into a copy")

// Plan finds out what a merge does. out gets the changes. Nothing changes in the layers.
func (m *Merge) Plan(out changes.Visitor) error {
	p := planner{
		Merge: m, out: out, byPath: map[string]*plannedDir{}, groups: map[uint64][]*plannedStep{},
		freed: map[string]bool{}, moved: map[string]bool{},
	}
	p.dressAll = m.stack.Overrides(stack.Upper) || m.dresser.scheme.Overrides() || host.User() != 0
	for _, dir := range []string{m.cfg.Upper, m.cfg.Work} {
		if rel, ok := within(dir, m.cfg.Lowers[0]); ok {
			p.kept = append(p.kept, rel)
		}
	}
	m.list, m.makes, m.owners = &list{}, nil, map[ids]string{}
	var err error
	if m.list.Upper, m.list.Lower, err = m.roots(); err != nil {
		return err
	}
	if m.list.Renames, err = m.mayRename(); err != nil {
		return err
	}
	if err := m.comparison.Walk(nil, &p); err != nil {
		return err
	}
	return p.complete()
}

// mayRename reports whether objects can be renamed from the upper and the work directory to the
// lower.
func (m *Merge) mayRename() (bool, error) {
	if m.staging == nil { // the layers are only read
		return sys.SameMount(m.upper, m.lower)
	}
	for _, d := range []*sys.Dir{m.upper, m.staging} {
		if same, err := sys.SameMount(d, m.lower); !same || err != nil {
			return false, err
		}
	}
	return true, nil
}

// at wraps an error of the object at a path.
func at(p string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", quote.Path(p), err)
}

// Enter plans a directory.
func (p *planner) Enter(d *changes.Dir) (bool, error) {
	change := p.change
	p.change = nil
	if change != nil && change.Path != d.Path {
		change = nil
	}
	if err := p.dir(d, change); err != nil {
		return false, at(d.Path, err)
	}
	return p.out.Enter(d)
}

func (p *planner) dir(d *changes.Dir, change *changes.Change) error {
	dir := &plannedDir{path: d.Path, was: d.WasPath, dirty: change != nil}
	var err error
	if dir.attributes, err = attributesOf(d.Now); err != nil {
		return err
	}
	p.dirs = append(p.dirs, dir)
	p.byPath[d.Path] = dir
	var st sys.Stat
	has, err := p.statLower(d.WasPath, &st)
	if err != nil {
		return err
	}
	inLower := d.Was != nil && has && st.Mode&unix.S_IFMT == unix.S_IFDIR
	switch {
	case inLower && (d.Path == "." || !d.Renamed && !d.Replaces): // in an opaque root each name is removed by itself
		return p.sameDir(dir, d, change, &st)
	case d.Path == ".":
		return unix.ENOTDIR // the root of the lower always is there
	}
	p.touch(d.Path)
	dir.dirty = true
	s := &plannedStep{step: step{Path: d.Path}}
	p.steps = append(p.steps, s)
	dir.hides = d.Replaces && !d.Renamed
	if d.Was == nil || dir.hides {
		p.freed[d.WasPath] = true
	}
	if d.Renamed {
		p.freed[p.naturalWas(d.Path)] = true
	}
	if s.Marks, err = p.marksOf(d); err != nil {
		return err
	}
	if !inLower || dir.hides {
		dir.isNew = true
		s.From.Staged = p.make(made{Path: d.Path})
		return p.keeps(d.Path)
	}
	if p.moved[d.WasPath] {
		return errShownTwice
	}
	p.moved[d.WasPath] = true
	s.From.Staged = p.gather(d.WasPath, &st)
	return p.keeps(d.Path)
}

// naturalWas returns where the lowers have what is under a path, if it was not renamed itself.
func (p *planner) naturalWas(at string) string {
	return path.Join(p.byPath[path.Dir(at)].was, path.Base(at))
}

// errOtherOwner is for an object whose attributes this process must not change.
var errOtherOwner = errors.New("belongs to another user in the lower, so this process cannot change its attributes: run the command as root")

// sameDir plans a directory that stays where it is. st are the attributes of the lower's inode.
func (p *planner) sameDir(dir *plannedDir, d *changes.Dir, change *changes.Change, st *sys.Stat) error {
	if change != nil && change.Aspects&^changes.Times != 0 && !p.mayOwn(st) {
		return errOtherOwner
	}
	dir.sameOwner = d.Was.UID == dir.UID && d.Was.GID == dir.GID
	was, err := d.Was.InodeFlags()
	dir.dirty = dir.dirty || was&flags != dir.Flags
	return err
}

// mayOwn reports whether this process has the rights of the owner of an object of the lower.
func (p *planner) mayOwn(st *sys.Stat) bool { return host.User() == 0 || host.User() == st.Uid }

// touch notes that a name in its directory changes.
func (p *planner) touch(at string) {
	d := p.byPath[path.Dir(at)]
	d.dirty, d.named = true, true
}

// gather plans the move of an object of the lower to the staging directory.
func (p *planner) gather(from string, st *sys.Stat) (name string) {
	name = fmt.Sprintf("g%d", len(p.gathers))
	p.gathers = append(p.gathers, gather{From: from, Is: objectOf(st), To: name})
	return name
}

// make plans an object of the staging directory.
func (p *planner) make(m made) (name string) {
	m.Name = fmt.Sprintf("m%d", len(p.makes))
	p.makes = append(p.makes, m)
	return m.Name
}

// statLower fills st with what the lower itself has at a path, and reports whether it has anything.
// A mount in the way is an error.
func (m *Merge) statLower(at string, st *sys.Stat) (bool, error) {
	if at == "." {
		return true, m.lower.Ref().Stat(st)
	}
	d, err := m.lower.OpenDir(path.Dir(at))
	switch err {
	case nil:
	case unix.ENOENT, unix.ENOTDIR, unix.ELOOP:
		return false, nil
	case unix.EXDEV:
		return false, errMountInLower
	default:
		return false, err
	}
	defer d.Close()
	r := d.At(path.Base(at))
	if err := r.Stat(st); err != nil {
		if err == unix.ENOENT {
			err = nil
		}
		return false, err
	}
	covered, err := r.IsMountPoint()
	if covered {
		err = errMountInLower
	}
	return err == nil, err
}

// errMountInLower is for a change of what a mount covers, or of what is in it.
var errMountInLower = errors.New("a mount lies there in the lower: unmount it first")
