package copyup

import (
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/owner"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// Copier copies objects up. It is used by many at once and must not be copied.
type Copier struct {
	// Work is where copies are made; on the mount of the upper. Immutable, as all exported fields.
	Work *Work
	// Sync keeps a copy whole over a power cut: what must be on the disk first is waited for before it is published. False
	// for volatile.
	Sync bool
	// KeepXattr says which extended attributes, by their names in the layer, belong to the object and are copied with
	// it; the others speak of its place in the layer. Required.
	KeepXattr func(name string) bool
	// Origin gives the attribute that says what a copy is a copy of; without a name, the copy gets none. nil: no copy does.
	Origin func(src sys.Ref, st *sys.Stat) (name string, value []byte, err error)
	// Protect gives the mark for a copy whose source is immutable or append-only ([sys.FlagImmutable], [sys.FlagAppend]); ok is
	// false if the upper takes no marks. nil: no copy gets one.
	Protect func(flags uint32) (mark Mark, ok bool)
	// Slow is called before what may take long: a wait for the disk, or much to be copied. nil: nobody wants to know.
	Slow func()
	// Upper is how the upper says whose an object is; nil: by its inode. Set before the first copy.
	Upper *owner.Scheme

	// What the kernel cannot do for files of a source device, learned from its first refusal.
	noClone, noCopyRange deviceSet
}

// Staged is a complete copy in the work directory. It ends with one of Publish, Orphan and Discard; Discard after one
// of the others does nothing, so it may be deferred.
type Staged struct {
	work    *Work
	pending bool      // neither published nor given up
	name    string    // in the work directory; empty for a file that has none
	file    *sys.File // of a regular file
	dir     *sys.Dir  // of a directory that is to be synced
	kind    uint32    // S_IFMT
	mode    uint32    // the permission bits of the source
	hasData bool      // data was written into file
}

// Data says what data the copy of a regular file gets. A source that shrinks or grows meanwhile is no error: the copy has
// what was there, at most as much as the source's Stat told.
type Data struct {
	// Size in bytes that the copy has, of which only those that remain are copied: 0 does not even open the source.
	// [Whole] copies all; [Hole] copies nothing and leaves a hole of the source's size, to be filled by [Copier.Complete].
	Size int64
	// From has the data; nil: the source itself.
	From *sys.File

	st *sys.Stat // of From
}

// Special sizes of a copy.
const (
	Whole int64 = -1
	Hole  int64 = -2
)

// Mark is an extended attribute of the overlay's own.
type Mark struct {
	Name  string
	Value []byte
}

// Stage makes a complete copy of the object at src, of any kind, in the work directory; of a directory, without its
// entries. st is what src's own Stat tells of it; marks are for the copy.
//
// After an error nothing is left in the work directory, as far as the file system lets itself be cleaned up.
func (c *Copier) Stage(src owner.Ref, st *sys.Stat, data Data, marks ...Mark) (*Staged, error) {
	s := &Staged{work: c.Work, pending: true, kind: st.Mode & unix.S_IFMT, mode: st.Mode & 0o7777}
	if err := c.stage(s, src, st, data, marks); err != nil {
		s.Discard()
		return nil, err
	}
	return s, nil
}

func (c *Copier) stage(s *Staged, src owner.Ref, st *sys.Stat, data Data, marks []Mark) error {
	switch {
	case s.kind != unix.S_IFREG || data.Size == 0 || data.Size == Hole || st.Size == 0:
		data.From = nil
	case data.From == nil:
		from, err := openSource(src.Inode())
		if err != nil {
			return err
		}
		defer from.Close()
		src.Ref, data.From, data.st = from.Ref(), from, st
	default:
		data.st = &sys.Stat{}
		if err := data.From.Ref().Stat(data.st); err != nil {
			return err
		}
	}
	m := &metadata{src: src, st: st}
	if err := m.findFlags(); err != nil {
		return err
	}
	if protection := m.flags & (sys.FlagImmutable | sys.FlagAppend); protection != 0 && c.Protect != nil {
		if mark, ok := c.Protect(protection); ok {
			marks = append(marks[:len(marks):len(marks)], mark)
		}
	}
	m.marked = len(marks) > 0
	if err := m.list(c.KeepXattr); err != nil {
		return err
	}
	if err := c.findOrigin(m); err != nil {
		return err
	}
	if err := c.create(s, m); err != nil {
		return err
	}
	if err := m.writeOrigin(s.ref()); err != nil {
		return err
	}
	for _, mark := range marks { // here for the same reason
		if err := s.ref().SetXattr(mark.Name, mark.Value, 0); err != nil {
			return err
		}
	}
	if s.file != nil {
		if err := c.copyData(s, st, data); err != nil {
			return err
		}
	}
	if err := m.copy(c.Upper.On(s.ref())); err != nil {
		return err
	}
	return c.makeDurable(s)
}

// create makes the object, without data, where nobody else can reach it.
func (c *Copier) create(s *Staged, m *metadata) (err error) {
	dir := c.Work.Dir()
	mode, kind := m.begin(c.Work, c.Upper), c.Upper.Inode(s.kind)&unix.S_IFMT
	if s.kind == unix.S_IFREG && c.Work.trust.nameless {
		s.file, err = c.Work.dir.CreateTmpfile(mode)
		return err
	}
	s.name = c.Work.Name()
	switch kind {
	case unix.S_IFREG:
		s.file, err = dir.CreateFile(s.name, mode)
		if err == nil && s.kind != kind { // it stands for a device, fifo or socket
			s.file.Close()
			s.file = nil
		}
		return err
	case unix.S_IFDIR:
		if err := dir.Mkdir(s.name, mode); err != nil || !c.syncs() {
			return err
		}
		s.dir, err = dir.OpenDir(s.name) // now: the final mode may not let us
		return err
	case unix.S_IFLNK:
		target, err := m.src.Readlink()
		if err != nil {
			return err
		}
		return dir.Symlink(target, s.name)
	case unix.S_IFCHR, unix.S_IFBLK:
		return dir.Mknod(s.name, kind|mode, m.st.Rdev)
	case unix.S_IFIFO, unix.S_IFSOCK:
		return dir.Mknod(s.name, kind|mode, 0)
	}
	return unix.EINVAL
}

// openSource opens a lower file for reading, without touching its access time where that is allowed: to its owner and
// to root. Other programs' copies of the layer must not differ because we have read it.
func openSource(src sys.Ref) (*sys.File, error) {
	f, err := src.OpenFile(unix.O_RDONLY | unix.O_NOATIME)
	if err == unix.EPERM {
		f, err = src.OpenFile(unix.O_RDONLY)
	}
	return f, err
}

// ref names the staged object.
func (s *Staged) ref() sys.Ref {
	if s.file != nil {
		return s.file.Ref()
	}
	return s.work.Dir().At(s.name)
}

// File is the copy of a regular file, opened for reading and writing; nil for other kinds. After Publish it belongs to
// the caller, who closes it.
func (s *Staged) File() *sys.File { return s.file }

// Publish brings the copy to its place: the entry name of parent, which must not exist. parent's access and modification
// times stay what they were, because nothing changes in the merged view.
//
// After an error the copy is still staged. The rename decides: times that cannot be set back afterwards are not an error
// (as in ovl_copy_up_one), for the copy is in its place.
//
// Preconditions: nobody else changes parent's entries meanwhile.
func (s *Staged) Publish(parent *sys.Dir, name string) error {
	var before sys.Stat
	if err := parent.Ref().Stat(&before); err != nil {
		return err
	}
	if err := s.put(parent, name); err != nil {
		return err
	}
	_ = parent.Ref().Utimes(before.Atim, before.Mtim)
	s.leave()
	return nil
}

func (s *Staged) put(parent *sys.Dir, name string) error {
	if s.name == "" {
		return parent.Link(s.file.Ref(), name)
	}
	err := s.work.dir.RenameNew(s.name, parent, name)
	if err == unix.EACCES && s.kind == unix.S_IFDIR && s.mode&0o200 == 0 {
		return s.publishReadOnly(parent, name)
	}
	return err
}

// publishReadOnly publishes a directory that its owner may not write to, where the daemon has no more rights than he: the
// kernel lets only a writable directory get another parent. A kill between the calls leaves the owner the right to write.
func (s *Staged) publishReadOnly(parent *sys.Dir, name string) error {
	if err := s.ref().Chmod(s.mode | 0o200); err != nil {
		return err
	}
	if err := s.work.dir.RenameNew(s.name, parent, name); err != nil {
		return err
	}
	_ = parent.At(name).Chmod(s.mode) // the rename has decided
	return nil
}

// Orphan leaves of the staged copy of a regular file the open file alone, without a name: the copy of a lower file that
// is unlinked and still in use. The file belongs to the caller. After an error the copy is still staged.
func (s *Staged) Orphan() (*sys.File, error) {
	if s.file == nil {
		return nil, unix.EINVAL
	}
	if s.name != "" {
		if err := s.work.Dir().Unlink(s.name); err != nil {
			return nil, err
		}
	}
	s.leave()
	return s.file, nil
}

// leave notes that the copy is no longer staged and that its file is the caller's.
func (s *Staged) leave() {
	s.pending = false
	if s.dir != nil {
		s.dir.Close()
		s.dir = nil
	}
}

// Discard removes the copy and closes it. What cannot be removed waits for the next [Work.Sweep].
func (s *Staged) Discard() {
	if !s.pending {
		return
	}
	if s.name != "" {
		_ = s.work.Remove(s.name)
	}
	if s.file != nil {
		s.file.Close()
		s.file = nil
	}
	s.leave()
}
