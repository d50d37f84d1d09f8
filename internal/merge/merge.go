package merge

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/copyup"
	"github.com/fuse-overlay/fuse-overlay/fs"
	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/internal/changes"
	"github.com/fuse-overlay/fuse-overlay/internal/ondisk"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/internal/view"
)

// Merge is an upper with its lowers.
type Merge struct {
	cfg     fs.Config
	changes bool         // the layers change, not only read
	stack   *stack.Stack // for how the layers have their objects
	upper   *sys.Dir
	lower   *sys.Dir
	index   *sys.Dir   // nil: there is none
	staging *sys.Dir   // directory "work" in the work directory; nil if the layers are only read
	locks   []*sys.Dir // nil if the layers are only read
	dresser dresser

	comparison *changes.Comparison // nil if a merge was begun
	below      *view.View          // the further lowers; nil: there are none

	list  *list  // nil before Plan and Resume
	makes []made // objects to make before the commit
	// owners are those that objects get, each with the path of one.
	owners map[ids]string

	// Done, unless it is nil, is called after each object that is made, and after each name that is
	// changed.
	Done func()

	committed bool
}

// Names in the work directory.
const (
	// Incompat is the name of a merge in the directory of reasons not to mount. It is a directory,
	// which is empty at the commit.
	Incompat = copyup.Merge
	// listName is a file beside it.
	listName = "list"
	// appliedName is a file beside it: the lower has all changes.
	appliedName = "applied"
	// oldName and whiteName are directories in it, of what is removed and of whiteouts.
	oldName, whiteName = "old", "white"
	// newName is the directory of what gets a place in the lower, in a lower on another mount.
	// Otherwise that lies beside Incompat.
	newName = "new"
	// buildName is the name of the directory incompat before the commit and at the end. A mount sweeps
	// it, also one of the kernel's overlayfs. That removes no directory in it that is not empty
	// (ovl_workdir_cleanup): it would mount read-only and ignore the index.
	buildName = "#merge"
	// lowerStaging is the name of the staging directory in a lower on another mount. No mount of this
	// program shows it.
	lowerStaging = ".wh..wh.merge"
)

// errBegun is returned by OpenToRead.
var errBegun = errors.New("a merge has begun and is not complete: the same command without --dry-run completes it")

// OpenToRead opens the layers to find out what a merge does. cfg is that of a mount of them, with
// the work directory. An error is one line that names the directory and the reason.
func OpenToRead(cfg fs.Config) (*Merge, error) { return opened(&Merge{cfg: cfg}) }

// Open is [OpenToRead] with the locks of the upper, the work directory and the lower. While a mount
// uses one of them for writing, it is an error.
func Open(cfg fs.Config) (*Merge, error) { return opened(&Merge{cfg: cfg, changes: true}) }

func opened(m *Merge) (*Merge, error) {
	m.cfg.IDs, m.cfg.ReadOnly = nil, true
	if err := m.open(); err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

func (m *Merge) open() (err error) {
	if m.changes {
		if err := m.lock(); err != nil {
			return err
		}
	}
	if m.upper, err = sys.OpenForChanges(m.cfg.Upper); err != nil {
		return fmt.Errorf("upperdir %q: %w", m.cfg.Upper, err)
	}
	if m.lower, err = sys.OpenForChanges(m.cfg.Lowers[0]); err != nil {
		return fmt.Errorf("lowerdir %q: %w", m.cfg.Lowers[0], err)
	}
	if err := m.lower.MayChange(); err == unix.EROFS {
		return fmt.Errorf("lowerdir %q: %w", m.cfg.Lowers[0], err)
	}
	if err := m.openWork(); err != nil {
		return fmt.Errorf("workdir %q: %w", m.cfg.Work, err)
	}
	if err := m.openStack(); err != nil {
		return err
	}
	if m.list != nil {
		return m.knowsLayers()
	}
	return m.openViews()
}

// lock locks the layers that change. A mount locks its upper and its work directory only, so a
// lower that no mount writes to can be locked.
func (m *Merge) lock() error {
	upper, work, err := stack.TakeUpper(stack.Config{Upper: m.cfg.Upper, Work: m.cfg.Work})
	if err != nil {
		return err
	}
	m.locks = append(m.locks, upper, work)
	lower, _, err := stack.TakeUpper(stack.Config{Upper: m.cfg.Lowers[0]})
	if err != nil {
		return fmt.Errorf("lowerdir %q: %w", m.cfg.Lowers[0], errors.Unwrap(err))
	}
	m.locks = append(m.locks, lower)
	return nil
}

// openWork opens the work directory, and reads the list of a merge that was begun.
func (m *Merge) openWork() error {
	work, err := sys.OpenForChanges(m.cfg.Work)
	if err != nil {
		return err
	}
	defer work.Close()
	m.staging, err = work.OpenDir(stack.StagingDir)
	if err == unix.ENOENT && m.changes {
		if err = work.Mkdir(stack.StagingDir, 0o700); err == nil {
			m.staging, err = work.OpenDir(stack.StagingDir)
		}
	}
	if err == unix.ENOENT && !m.changes {
		err = nil
	}
	if err != nil {
		return err
	}
	if m.index, err = openIndex(work); err != nil {
		return err
	}
	if m.staging == nil {
		return nil
	}
	return m.readList()
}

func (m *Merge) readList() error {
	reason, err := copyup.Incompat(m.staging)
	switch {
	case err != nil || reason == "":
		return err
	case reason != Incompat:
		return fmt.Errorf("was used by a mount with the feature %q: mount and unmount the overlay without it first", reason)
	case !m.changes:
		return errBegun
	}
	dir, err := m.staging.OpenDir(copyup.IncompatDir)
	if err != nil {
		return err
	}
	defer dir.Close()
	text, err := readFile(dir, listName)
	if err == nil {
		m.list, err = decode(text)
	}
	return err
}

// errOtherLayers is for a merge that was begun with other layers.
var errOtherLayers = errors.New("a merge of other layers was begun: complete it with the upper and the lower that it has begun with")

// knowsLayers compares the layers with those of the list.
func (m *Merge) knowsLayers() error {
	upper, lower, err := m.roots()
	if err == nil && !(upper.is(m.list.Upper) && lower.is(m.list.Lower)) {
		err = fmt.Errorf("workdir %q: %w", m.cfg.Work, errOtherLayers)
	}
	return err
}

func (m *Merge) roots() (upper, lower layer, err error) {
	if upper, err = layerOf(m.upper); err == nil {
		lower, err = layerOf(m.lower)
	}
	return upper, lower, err
}

// errOtherLower is for a lower that the upper does not belong to.
var errOtherLower = errors.New("was mounted with another first lower")

func (m *Merge) openStack() (err error) {
	features := m.cfg.Features
	features.Index = false
	m.stack, err = stack.Open(stack.Config{
		Upper: m.cfg.Upper, ReadOnly: true, Lowers: m.cfg.Lowers, DataOnly: m.cfg.DataOnly, Redirects: m.cfg.Redirects,
		Features: features, Permissions: m.cfg.Permissions,
	})
	if err != nil {
		return err
	}
	m.dresser = dresser{names: m.stack.Names(), scheme: m.stack.OnDisk(stack.Upper + 1)}
	root := m.stack.Root(stack.Upper).Ref()
	for _, ns := range ondisk.Written {
		if !m.stack.Names().Has(ns) {
			continue
		}
		err := m.stack.HoldsRoot(ns, root, stack.Upper+1)
		if err == unix.ESTALE {
			err = errOtherLower
		}
		if err != nil {
			return fmt.Errorf("upperdir %q: %w", m.cfg.Upper, err)
		}
	}
	return nil
}

// openViews opens what a plan reads.
func (m *Merge) openViews() (err error) {
	if err := useIndex(&m.cfg, m.index); err != nil {
		return err
	}
	if m.comparison, err = changes.Open(m.cfg); err != nil {
		return err
	}
	m.comparison.Unchanged = true
	if len(m.cfg.Lowers) > 1 {
		below := m.cfg
		below.Upper, below.Lowers, below.Features.Index = "", m.cfg.Lowers[1:], false
		m.below, err = view.Open(below)
	}
	return err
}

// useIndex sets index=on if the index has copies: then the last mount had it. index may be nil.
func useIndex(cfg *fs.Config, index *sys.Dir) error {
	if index == nil {
		return nil
	}
	return index.List(func(e sys.Dirent) error {
		cfg.Features.Index = cfg.Features.Index || e.Type != unix.DT_CHR
		return nil
	})
}

// openIndex opens the index in a work directory; nil: there is none.
func openIndex(work *sys.Dir) (*sys.Dir, error) {
	index, err := work.OpenDir(stack.IndexDir)
	if err == unix.ENOENT {
		return nil, nil
	}
	return index, err
}

// Close closes the layers, and unlocks them.
func (m *Merge) Close() {
	for _, d := range append(m.locks, m.upper, m.lower, m.index, m.staging) {
		if d != nil {
			d.Close()
		}
	}
	if m.comparison != nil {
		m.comparison.Close()
	}
	if m.below != nil {
		m.below.Close()
	}
	if m.stack != nil {
		m.stack.Close()
	}
}

// Begun reports whether an earlier call has begun a merge of the layers. Then there is no plan to
// make, and Run completes it.
func (m *Merge) Begun() bool { return m.comparison == nil }

// within returns the path of a directory below another, if it lies there.
func within(dir, base string) (path string, ok bool) {
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return "", false
	}
	if base, err = filepath.EvalSymlinks(base); err != nil {
		return "", false
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return "", false
	}
	if base, err = filepath.Abs(base); err != nil {
		return "", false
	}
	path, err = filepath.Rel(base, dir)
	return path, err == nil && path != ".." && !strings.HasPrefix(path, "../")
}

// readFile reads a file of a directory.
func readFile(d *sys.Dir, name string) ([]byte, error) {
	f, err := d.At(name).OpenFile(unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var st sys.Stat
	if err := f.Ref().Stat(&st); err != nil {
		return nil, err
	}
	text := make([]byte, st.Size)
	_, err = f.Pread(text, 0)
	return text, err
}
