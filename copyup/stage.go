package copyup

import (
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/owner"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// Copier copies objects up. Many goroutines may use it at once. It must not be copied. The exported
// fields do not change after the first copy-up.
type Copier struct {
	// Work is the staging area, on the mount of the upper.
	Work *Work
	// Sync keeps a copy whole over a power cut: the copy-up waits for the disk before it publishes
	// the copy. It is false with option volatile.
	Sync bool
	// CopiesXattr reports whether a copy gets the attribute with this name in the layer. It does not
	// get those of the overlay. Required.
	CopiesXattr func(name string) bool
	// Origin returns the attribute with the file handle of the source. If its name is empty, the
	// copy gets none. nil: no copy gets one.
	Origin func(src sys.Ref, st *sys.Stat) (Xattr, error)
	// Protattr returns the attribute that records [sys.FlagImmutable] and [sys.FlagAppend] of the
	// source. ok is false if the upper has no extended attributes. nil: no copy gets one.
	Protattr func(flags uint32) (x Xattr, ok bool)
	// Slow may be nil. A copy-up calls it before it waits for the disk, and before it copies 1 MiB
	// or more.
	Slow func()
	// Upper is the ownership scheme of the upper; nil: the owner is that of the inode.
	Upper *owner.Scheme

	// The source devices for whose files the kernel refuses FICLONE, and copy_file_range.
	noClone, noCopyRange deviceSet
}

// Staged is a complete copy in the work directory. Publish, Orphan or Discard ends it. After one of
// the others Discard does nothing, so callers defer it.
type Staged struct {
	work    *Work
	pending bool      // until Publish, Orphan or Discard
	name    string    // in the work directory; empty for an O_TMPFILE file
	file    *sys.File // of a regular file
	dir     *sys.Dir  // a directory to fsync
	kind    uint32    // the file type of the source (S_IFMT)
	mode    uint32    // the permission bits of the source
	hasData bool      // the copy-up has written data to file
}

// Data is the data that the copy of a regular file gets. It is no error if the source shrinks or
// grows during the copy-up. Then the copy has the data that the copy-up has read, at most the size
// in st.
type Data struct {
	// Amount is how much data. For First(0) and [Hole] the copy-up does not open the source.
	Amount Amount
	// From is the file with the data; nil: the source.
	From *sys.File

	st *sys.Stat // of From
}

// Xattr is an extended attribute of the overlay.
type Xattr struct {
	Name  string
	Value []byte
}

// Stage makes a complete copy of the object at src in the work directory. The object is of any
// type; the copy of a directory has no entries. st are the attributes of src. xattrs are attributes
// of the overlay that the copy gets besides those of src.
//
// After an error Stage removes the copy. If that fails too, [Work.Sweep] removes it.
func (c *Copier) Stage(src owner.Ref, st *sys.Stat, data Data, xattrs ...Xattr) (*Staged, error) {
	s := &Staged{work: c.Work, pending: true, kind: st.Mode & unix.S_IFMT, mode: st.Mode & 0o7777}
	if err := c.stage(s, src, st, data, xattrs); err != nil {
		s.Discard()
		return nil, err
	}
	return s, nil
}

func (c *Copier) stage(s *Staged, src owner.Ref, st *sys.Stat, data Data, xattrs []Xattr) error {
	switch {
	case s.kind != unix.S_IFREG || data.Amount.readsNothing() || st.Size == 0:
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
	m := &metadata{src: src, st: st, truncated: s.kind == unix.S_IFREG && data.Amount.truncates(st.Size)}
	if err := m.findFlags(); err != nil {
		return err
	}
	if protection := m.flags & (sys.FlagImmutable | sys.FlagAppend); protection != 0 && c.Protattr != nil {
		if x, ok := c.Protattr(protection); ok {
			xattrs = append(xattrs[:len(xattrs):len(xattrs)], x)
		}
	}
	m.hasOverlayXattrs = len(xattrs) > 0
	if err := m.listXattrs(c.CopiesXattr); err != nil {
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
	for _, x := range xattrs { // before the mode, as the origin
		if err := s.ref().SetXattr(x.Name, x.Value, 0); err != nil {
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

// create makes the object without data, in the work directory, where no other process reaches it.
func (c *Copier) create(s *Staged, m *metadata) (err error) {
	dir := c.Work.Dir()
	mode, kind := m.initialMode(c.Work, c.Upper), c.Upper.Inode(s.kind)&unix.S_IFMT
	if s.kind == unix.S_IFREG && c.Work.trust.tmpfile {
		s.file, err = c.Work.dir.CreateTmpfile(mode)
		return err
	}
	s.name = c.Work.Name()
	switch kind {
	case unix.S_IFREG:
		s.file, err = dir.CreateFile(s.name, mode)
		if err == nil && s.kind != kind { // the file stands for a device, fifo or socket
			s.file.Close()
			s.file = nil
		}
		return err
	case unix.S_IFDIR:
		if err := dir.Mkdir(s.name, mode); err != nil || !c.syncs() {
			return err
		}
		s.dir, err = dir.OpenDir(s.name) // here, because the final mode may forbid it
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

// openSource opens a file of a lower for reading. If the daemon is the owner or root, the reads do
// not change the access time: a program that copies the layer must not see a difference.
func openSource(src sys.Ref) (*sys.File, error) {
	f, err := src.OpenFile(unix.O_RDONLY | unix.O_NOATIME)
	if err == unix.EPERM {
		f, err = src.OpenFile(unix.O_RDONLY)
	}
	return f, err
}

// ref returns the staged object.
func (s *Staged) ref() sys.Ref {
	if s.file != nil {
		return s.file.Ref()
	}
	return s.work.Dir().At(s.name)
}

// File returns the copy of a regular file, opened for reading and writing; nil for other types.
// After Publish the caller closes it.
func (s *Staged) File() *sys.File { return s.file }

// Publish puts the copy in its place: the entry name of parent, which must not exist. It restores
// parent's access and modification times, because the merged view has not changed. It ignores an
// error of that, as ovl_copy_up_one does: the copy is in its place.
//
// After an error the copy is still staged.
//
// Precondition: no other call changes parent's entries.
func (s *Staged) Publish(parent *sys.Dir, name string) error {
	var before sys.Stat
	if err := parent.Ref().Stat(&before); err != nil {
		return err
	}
	if err := s.put(parent, name); err != nil {
		return err
	}
	_ = parent.Ref().Utimes(before.Atim, before.Mtim)
	s.unstage()
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

// publishReadOnly publishes a directory that its owner may not write to. The kernel moves only a
// writable directory to another parent. The daemon has no more rights than the owner, so it adds
// the permission for the call. If the daemon is killed in between, the owner keeps the permission.
func (s *Staged) publishReadOnly(parent *sys.Dir, name string) error {
	if err := s.ref().Chmod(s.mode | 0o200); err != nil {
		return err
	}
	if err := s.work.dir.RenameNew(s.name, parent, name); err != nil {
		return err
	}
	_ = parent.At(name).Chmod(s.mode) // not an error of the copy-up: the copy is in its place
	return nil
}

// Orphan removes the name of the staged copy of a regular file and returns the file, which the
// caller closes. Such a file is the copy of a lower's file that is unlinked and still open. After
// an error the copy is still staged.
func (s *Staged) Orphan() (*sys.File, error) {
	if s.file == nil {
		return nil, unix.EINVAL
	}
	if s.name != "" {
		if err := s.work.Dir().Unlink(s.name); err != nil {
			return nil, err
		}
	}
	s.unstage()
	return s.file, nil
}

// unstage ends the staging. It does not close file.
func (s *Staged) unstage() {
	s.pending = false
	if s.dir != nil {
		s.dir.Close()
		s.dir = nil
	}
}

// Discard closes and removes the copy. If that fails, [Work.Sweep] removes it.
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
	s.unstage()
}
