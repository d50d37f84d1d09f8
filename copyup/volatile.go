package copyup

import (
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// A mount that waits for no disk says so in the work directory, as the kernel's overlayfs does
// (ovl_create_volatile_dirty): work/incompat/volatile/dirty stays when the mount ends, and whoever mounts the same
// directories next is told, because nobody can know whether the upper is whole. Every entry of incompat is such a reason.
const (
	incompatName = "incompat"
	volatileName = "volatile"
	dirtyName    = "dirty"
)

// Incompat is one of the reasons why a staging area must not be used, as its last user left it; empty: there is none. To be
// asked before [Work.Sweep].
func Incompat(dir *sys.Dir) (reason string, err error) {
	d, err := dir.OpenDir(incompatName)
	switch err {
	case nil:
	case unix.ENOENT, unix.ENOTDIR, unix.ELOOP: // nothing, or nothing that says anything
		return "", nil
	default:
		return "", err
	}
	defer d.Close()
	err = d.List(func(e sys.Dirent) error {
		if reason == "" || reason == volatileName { // the one that is best known goes last
			reason = e.Name
		}
		return nil
	})
	return reason, err
}

// MarkVolatile notes that from now on the upper may not be whole after a power cut. Like all that such a mount does, the note
// does not wait for the disk. Precondition: [Incompat] found nothing, and the directory has been swept.
func (w *Work) MarkVolatile() error {
	name := w.Name() // made whole before it counts
	err := w.makeVolatile(name)
	if err == nil {
		err = w.dir.Rename(name, w.dir, incompatName, 0)
	}
	if err != nil {
		_ = w.Remove(name) // the error to tell is the first; the next mount sweeps
	}
	return err
}

// makeVolatile makes the note. Its modes are such that its owner can remove it, who need not be root here.
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

// UnmarkVolatile takes the note back, after it has made all of the file system durable.
func (w *Work) UnmarkVolatile() error {
	if err := w.dir.SyncFS(); err != nil {
		return err
	}
	return w.Remove(incompatName)
}
