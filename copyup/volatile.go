package copyup

import (
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// A volatile mount, which waits for no disk, makes work/incompat/volatile/dirty in the work
// directory, as the kernel's overlayfs does (ovl_create_volatile_dirty). It stays when the mount
// ends: the next mount of the directories refuses them, because a power cut may have damaged the
// upper. Every entry of incompat is such a reason.
const (
	incompatName = "incompat"
	volatileName = "volatile"
	dirtyName    = "dirty"
)

// Incompat returns the name of a reason why the staging area must not be used; empty: there is
// none. Call it before [Work.Sweep].
func Incompat(dir *sys.Dir) (reason string, err error) {
	d, err := dir.OpenDir(incompatName)
	switch err {
	case nil:
	case unix.ENOENT, unix.ENOTDIR, unix.ELOOP: // there is none, or no directory
		return "", nil
	default:
		return "", err
	}
	defer d.Close()
	err = d.List(func(e sys.Dirent) error {
		if reason == "" || reason == volatileName { // any other reason goes first
			reason = e.Name
		}
		return nil
	})
	return reason, err
}

// SetVolatile notes that a power cut may damage the upper from now on. It does not wait for the
// disk. Preconditions: [Incompat] has found no reason, and the directory has been swept.
func (w *Work) SetVolatile() error {
	name := w.Name() // it is complete before the rename
	err := w.makeVolatile(name)
	if err == nil {
		err = w.dir.Rename(name, w.dir, incompatName, 0)
	}
	if err != nil {
		_ = w.Remove(name) // the first error is returned; the next mount sweeps
	}
	return err
}

// makeVolatile makes the directory incompat. Its owner can remove it without being root.
func (w *Work) makeVolatile(name string) error {
	if err := w.dir.Mkdir(name, 0o700); err != nil {
		return err
	}
	incompat, err := w.dir.OpenDir(name)
	if err != nil {
		return err
	}
	defer incompat.Close()
	if err := incompat.Mkdir(volatileName, 0o700); err != nil {
		return err
	}
	volatile, err := incompat.OpenDir(volatileName)
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

// ClearVolatile syncs the file system and removes what [Work.SetVolatile] has made.
func (w *Work) ClearVolatile() error {
	if err := w.dir.SyncFS(); err != nil {
		return err
	}
	return w.Remove(incompatName)
}
