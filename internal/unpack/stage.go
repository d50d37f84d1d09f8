package unpack

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/copyup"
	"github.com/fuse-overlay/fuse-overlay/internal/ondisk"
	"github.com/fuse-overlay/fuse-overlay/internal/quote"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/whiteout"
)

// stage is a directory beside the target in which the layer is made. No other user can search it.
type stage struct {
	target string // as the user gave it
	name   string // of the target, in parent

	parent   *sys.Dir
	path     string // of dir
	dir      *sys.Dir
	work     *copyup.Work // dir, with names for what is removed
	tree     *sys.Dir     // the root of the layer
	treePath string

	whiteouts *whiteout.Maker
}

const (
	treeName = "tree"
	rootMode = 0o755 // of a layer that has no entry for its root
)

// newStage makes the staging directory. An error means that nothing is left.
func newStage(target string) (*stage, error) {
	absolute, err := filepath.Abs(target)
	if err != nil {
		return nil, err
	}
	if err := checkTarget(target); err != nil {
		return nil, err
	}
	s := &stage{target: target, name: filepath.Base(absolute)}
	parent := filepath.Dir(absolute)
	if s.path, err = os.MkdirTemp(parent, "."+s.name+".apply-"); err != nil {
		return nil, fmt.Errorf("cannot make a directory beside %s: %w", quote.Word(target), cause(err))
	}
	if err := s.open(parent); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot prepare %s: %w", quote.Word(s.path), err), s.close())
	}
	return s, nil
}

// checkTarget returns an error unless the target does not exist or is an empty directory.
func checkTarget(target string) error {
	info, err := os.Lstat(target)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !info.IsDir():
		return fmt.Errorf("%s exists and is not a directory", quote.Word(target))
	}
	entries, err := os.ReadDir(target)
	if err != nil {
		return err
	}
	if len(entries) > 0 {
		return fmt.Errorf("%s is not empty; a layer gets a directory of its own", quote.Word(target))
	}
	return nil
}

func (s *stage) open(parent string) (err error) {
	if s.parent, s.dir, err = sys.OpenUpper(parent, s.path, 0); err != nil {
		return err
	}
	s.work = copyup.OpenWork(s.dir)
	if err := s.dir.Mkdir(treeName, rootMode); err != nil {
		return err
	}
	if s.tree, err = s.dir.OpenDir(treeName); err != nil {
		return err
	}
	s.treePath = filepath.Join(s.path, treeName)
	var st unix.Statfs_t
	if err := s.dir.Ref().Statfs(&st); err != nil {
		return err
	}
	s.whiteouts, err = whiteout.NewMaker(s.work, int(st.Namelen), whiteout.Wanted{Names: ondisk.Names{}})
	return err
}

// publish makes the layer durable and moves it to its place. One sync of the file system takes less
// time than one of each object.
func (s *stage) publish() error {
	s.whiteouts.Close()
	if err := s.tree.SyncFS(); err != nil {
		return fmt.Errorf("cannot make the layer durable: %w", err)
	}
	if err := s.move(); err != nil {
		if err == unix.EBUSY {
			return fmt.Errorf("%s is a mount point; give a new directory in it", quote.Word(s.target))
		}
		return fmt.Errorf("cannot move the layer to %s: %w", quote.Word(s.target), err)
	}
	if err := s.parent.Sync(); err != nil {
		return fmt.Errorf("cannot make the layer durable: %w", err)
	}
	return nil
}

// move renames the root of the layer to the target, which may be an empty directory.
func (s *stage) move() error {
	err := s.dir.Rename(treeName, s.parent, s.name, 0)
	if err != unix.EACCES {
		return err
	}
	// The kernel moves only a writable directory to another parent.
	var st sys.Stat
	if err := s.tree.Ref().Stat(&st); err != nil {
		return err
	}
	if err := s.tree.Ref().Chmod(st.Mode&0o7777 | ownerAll); err != nil {
		return err
	}
	if err := s.dir.Rename(treeName, s.parent, s.name, 0); err != nil {
		return err
	}
	return s.tree.Ref().Chmod(st.Mode & 0o7777)
}

// close removes the staging directory with all that is left in it.
func (s *stage) close() error {
	var err error
	if s.work != nil {
		err = s.work.Sweep()
	}
	for _, d := range []*sys.Dir{s.tree, s.dir, s.parent} {
		if d != nil {
			d.Close()
		}
	}
	if err == nil {
		err = os.Remove(s.path)
	}
	if err != nil {
		return fmt.Errorf("cannot remove %s: %w; remove it yourself", quote.Word(s.path), cause(err))
	}
	return nil
}

// cause returns an error without the names of call and file.
func cause(err error) error {
	var call *os.PathError
	if errors.As(err, &call) {
		return call.Err
	}
	return err
}
