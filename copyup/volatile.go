package copyup

import (
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// A volatile mount does not wait for the disk. It makes incompat/volatile/dirty in the staging
// area, as the kernel's overlayfs does (ovl_create_volatile_dirty). The directory stays when the
// mount ends. Then the next mount refuses the upper, because a power cut may have damaged it. Every
// entry of incompat is a reason to refuse it.
const (
	// IncompatDir is the directory of these entries in the staging area.
	IncompatDir = "incompat"
	// Volatile is the reason of a volatile mount.
	Volatile = "volatile"
	// Merge is the reason of a merge of the upper into its lower that is not complete.
	Merge     = "merge"
	dirtyName = "dirty"
)

// Incompat returns the name of a reason why the staging area must not be used; empty: there is
// none. Call it before [Work.Sweep].
func Incompat(dir *sys.Dir) (reason string, err error) {
	d, err := dir.OpenDir(IncompatDir)
	switch err {
	case nil:
	case unix.ENOENT, unix.ENOTDIR, unix.ELOOP: // there is no such directory
		return "", nil
	default:
		return "", err
	}
	defer d.Close()
	err = d.List(func(e sys.Dirent) error {
		// A merge has further entries. Volatile comes after any other reason.
		if reason == "" || e.Name == Merge || reason == Volatile {
			reason = e.Name
		}
		return nil
	})
	return reason, err
}

// SetVolatile makes the directory incompat: from now on a power cut may damage the upper. It does
// not wait for the disk. Preconditions: [Incompat] returned no reason, and [Work.Sweep] returned
// nil.
func (w *Work) SetVolatile() error {
	name := w.Name() // the directory is complete before it is renamed
	err := w.makeVolatile(name)
	if err == nil {
		err = w.dir.Rename(name, w.dir, IncompatDir, 0)
	}
	if err != nil {
		_ = w.Remove(name) // Sweep of the next mount removes it otherwise
	}
	return err
}

// makeVolatile makes the directory under a staging name. Its owner needs no rights of root to
// remove it.
func (w *Work) makeVolatile(name string) error {
	if err := w.dir.Mkdir(name, 0o700); err != nil {
		return err
	}
	incompat, err := w.dir.OpenDir(name)
	if err != nil {
		return err
	}
	defer incompat.Close()
	if err := incompat.Mkdir(Volatile, 0o700); err != nil {
		return err
	}
	volatile, err := incompat.OpenDir(Volatile)
	if err != nil {
		return err
	}
	defer volatile.Close()
	f, err := volatile.CreateFile(dirtyName, 0o600)
	if err != nil {
		return err
	}
	f.Close()
	return nil
}

// ClearVolatile syncs the file system and removes the directory that [Work.SetVolatile] has made.
func (w *Work) ClearVolatile() error {
	if err := w.dir.SyncFS(); err != nil {
		return err
	}
	return w.Remove(IncompatDir)
}
