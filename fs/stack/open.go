package stack

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/copyup"
	"github.com/fuse-overlay/fuse-overlay/internal/host"
	"github.com/fuse-overlay/fuse-overlay/internal/owner"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/whiteout"
)

// Config is the layers of a stack and its options.
type Config struct {
	Lowers      []string // topmost first
	DataOnly    []string // data-only layers, below them
	Upper, Work string   // both or neither; with ReadOnly, only the index in Work is used
	// ReadOnly opens the upper as the topmost layer of a read-only mount, without a lock: another
	// mount may hold the upper, or take it later.
	ReadOnly bool
	// Namespace is where the mount is to be made; nil: in the mount namespace of this process.
	Namespace *host.MountNamespace
	// BesideOther is ReadOnly if another mount of this program holds the upper.
	BesideOther bool
	// Markers writes whiteouts as .wh. files even if devices can be made.
	Markers bool
	// Sync makes every copy-up durable before it shows.
	Sync bool
	// Slow, unless it is nil, is called before steps of a copy-up that may take long
	// ([copyup.Copier]).
	Slow func()
	// AfterVolatile accepts a work directory that a volatile mount has used. Otherwise it is an error.
	AfterVolatile bool
	// ACL supports POSIX ACLs: new objects inherit default ACLs. It has no effect if the mode of
	// objects is in an xattr.
	ACL bool
	// Redirects is what a rename of a directory with lower parts does, and whether redirects in layers
	// are followed.
	Redirects Redirects
	// Features are the choices of the format on disk.
	Features Features
	// ListAtOnce lists every merged directory before the first lookup in it ([Stack.LeaveUnlisted]).
	ListAtOnce bool
	// AccessTimes is when reads of objects of the upper change their access times.
	AccessTimes sys.AccessTimes
	// IDs maps the ids of layers; nil: they show unchanged.
	IDs *owner.IDs
	// Permissions is the xattr in which the upper keeps owner, mode and type; nil: the xattr that its
	// root has, or else the inode.
	Permissions *owner.Override
	// Inherited are the layers that a process before this one has opened and locked; nil: they are
	// opened by their paths.
	Inherited *Inherited
}

// Roles of a directory in an [Error].
const (
	roleLower = "lowerdir"
	roleData  = "data-only lowerdir"
	roleUpper = "upperdir"
	roleWork  = "workdir"
)

// Error is the directory that cannot be used, and the reason.
type Error struct {
	Role, Path string
	Err        error
}

func (e *Error) Error() string { return fmt.Sprintf("%s %q: %v", e.Role, e.Path, e.Err) }

// Unwrap returns the reason.
func (e *Error) Unwrap() error { return e.Err }

// Reasons without an errno of their own.
var (
	errOtherFS    = errors.New("is not on the same mount as the upperdir")
	errForeign    = errors.New("is not empty and not the work directory of an overlay")
	errTooMany    = errors.New("too many layers")
	errNoLower    = errors.New("no lowerdir given")
	errUpperWork  = errors.New("upperdir and workdir belong together: give both or neither")
	errOwnersForm = errors.New("is mounted as its inodes are: " +
		"the attribute of its root that keeps owner and mode is one that its owner may set, " +
		"and counts with xattr_permissions=2 only")
	errOtherForm = errors.New("keeps owner and mode in another attribute than the one of xattr_permissions")
)

// maxLayers is the largest number of lowers: a layer number has 16 bits.
const maxLayers = 1<<16 - 2

// workName is the staging directory inside the work directory. It has the name that the kernel's
// overlayfs gives it (OVL_WORKDIR_NAME), so that either can sweep the other's temporary objects.
const workName = "work"

// isHostRoot is a variable for tests.
var isHostRoot = host.IsHostRoot

// Open opens the layers, locks the upper and sweeps the work directory.
func Open(c Config) (*Stack, error) {
	switch {
	case len(c.Lowers) == 0:
		return nil, errNoLower
	case len(c.Lowers) > maxLayers:
		return nil, &Error{roleLower, c.Lowers[maxLayers], errTooMany}
	case (c.Upper == "") != (c.Work == "") && !c.ReadOnly:
		return nil, errUpperWork
	}
	s := newStack(&c)
	ok := false
	defer func() {
		if !ok {
			s.Close()
			s.unmakeWork(c)
		}
	}()
	if err := s.findOverlap(c); err != nil {
		return nil, err
	}
	if err := s.openLowers(&c); err != nil {
		return nil, err
	}
	if c.Upper != "" {
		if err := s.openUpper(c); err != nil {
			return nil, err
		}
	}
	s.findRemote()
	if err := s.findSources(c); err != nil {
		return nil, err
	}
	if err := s.setSchemes(c); err != nil {
		return nil, err
	}
	if err := s.openIndex(c); err != nil {
		return nil, err
	}
	s.setUUID(c.Features.UUID)
	ok = true
	return s, nil
}

// newStack returns a stack without layers.
func newStack(c *Config) *Stack {
	s := &Stack{
		layers: make([]layer, 1+len(c.Lowers)), acl: c.ACL, uid: uint32(os.Geteuid()), gid: uint32(os.Getegid()),
		metacopy: c.Features.MetaCopy, verity: c.Features.Verity, digest: (*sys.File).Verity,
		names:     c.Features.Names,
		redirects: c.Redirects, hostRoot: isHostRoot(), listAtOnce: c.ListAtOnce,
	}
	s.overflow, _ = host.OverflowIDs()
	return s
}

func (s *Stack) openLowers(c *Config) error {
	if c.Inherited != nil {
		s.inheritLowers(c.Inherited)
	} else if err := s.openLowersByPath(c); err != nil {
		return err
	}
	for i := range c.Lowers {
		if err := s.setDevice(i + 1); err != nil {
			return &Error{roleLower, c.Lowers[i], err}
		}
	}
	return nil
}

func (s *Stack) openLowersByPath(c *Config) error {
	lowers, failed, err := sys.OpenLowers(c.Lowers)
	if err != nil {
		return &Error{roleLower, c.Lowers[failed], err}
	}
	for i, root := range lowers { // before any error, so that Close closes them
		s.layers[i+1].root = root
	}
	if s.dataOnly, failed, err = sys.OpenLowers(c.DataOnly); err != nil {
		return &Error{roleData, c.DataOnly[failed], err}
	}
	return nil
}

func (s *Stack) setDevice(layer int) error {
	var st sys.Stat
	if err := s.layers[layer].root.Ref().Stat(&st); err != nil {
		return err
	}
	s.layers[layer].dev = st.Dev
	s.layers[layer].ownedBelow = s.isOwnedBelow(st.Uid)
	return nil
}

func (s *Stack) openUpper(c Config) error {
	if c.ReadOnly {
		return s.openForReading(c)
	}
	if c.Inherited != nil {
		return s.inheritUpper(c)
	}
	err := os.Mkdir(c.Work, 0o700)
	if err != nil && !errors.Is(err, os.ErrExist) {
		return &Error{roleWork, c.Work, errnoOf(err)}
	}
	s.createdWork = err == nil
	upper, work, err := sys.OpenUpper(c.Upper, c.Work, c.AccessTimes)
	if err == unix.EXDEV {
		return &Error{roleWork, c.Work, errOtherFS}
	}
	if err != nil {
		return openError(c, err)
	}
	s.workRoot = work
	s.layers[Upper].root = upper
	if err := s.setDevice(Upper); err != nil {
		return &Error{roleUpper, c.Upper, err}
	}
	if err := takeUpper(c, upper, work); err != nil {
		var inUse *Error
		if c.BesideOther && errors.As(err, &inUse) && errors.As(err, new(*inUseError)) {
			return s.openBesideOther(c, inUse)
		}
		return err
	}
	return s.prepareWork(c, upper, work)
}

// unmakeWork removes the directories that openUpper has made, after the mount has failed. A
// directory that is not empty stays.
func (s *Stack) unmakeWork(c Config) {
	if s.createdWork {
		_ = os.Remove(filepath.Join(c.Work, workName))
		_ = os.Remove(c.Work)
	}
}

// openError returns which of the two directories cannot be opened.
func openError(c Config, err error) error {
	for _, d := range []struct{ role, path string }{{roleUpper, c.Upper}, {roleWork, c.Work}} {
		if st, serr := os.Stat(d.path); serr != nil {
			return &Error{d.role, d.path, errnoOf(serr)}
		} else if !st.IsDir() {
			return &Error{d.role, d.path, unix.ENOTDIR}
		}
	}
	return &Error{roleUpper, c.Upper, err}
}

// prepareWork makes the staging directory, sweeps it and finds out what the file system can do.
func (s *Stack) prepareWork(c Config, upper, work *sys.Dir) error {
	if c.Inherited == nil {
		if err := checkKernel(c, upper, work); err != nil {
			return err
		}
	}
	fail := func(err error) error { return &Error{roleWork, c.Work, err} }
	if err := checkForeign(work); err != nil {
		return fail(err)
	}
	if err := work.Mkdir(workName, 0o700); err != nil && err != unix.EEXIST {
		return fail(err)
	}
	var err error
	if s.staging, err = work.OpenDir(workName); err != nil {
		return fail(err)
	}
	if s.afterVolatile, err = checkIncompat(s.staging, &c); err != nil {
		return fail(err)
	}
	if err := s.claim(s.staging); err != nil {
		return fail(err)
	}
	s.work = copyup.OpenWork(s.staging)
	if err := s.work.Sweep(); err != nil {
		return fail(err)
	}
	wanted := whiteout.Wanted{Names: s.names, Markers: c.Markers, Xattrs: c.Features.XattrWhiteouts}
	nameMax, err := longestName(upper)
	if err != nil {
		return &Error{roleUpper, c.Upper, err}
	}
	if s.whiteouts, err = whiteout.NewMaker(s.work, nameMax, wanted); err != nil {
		return fail(err)
	}
	s.xattrs = s.whiteouts.Forms.Default.Xattrs
	s.copier = &copyup.Copier{
		Work: s.work, Sync: c.Sync, Slow: c.Slow, Origin: s.origin, Protattr: s.protattr,
		CopiesXattr: func(name string) bool { return !s.names.Private(name) },
	}
	return nil
}

// longestName returns the largest length of a name in a directory.
func longestName(d *sys.Dir) (int, error) {
	var st unix.Statfs_t
	if err := d.Ref().Statfs(&st); err != nil {
		return 0, err
	}
	if st.Namelen <= 0 {
		return NameMax, nil
	}
	return int(min(st.Namelen, NameMax)), nil
}

// claim changes owner and mode of a directory in the work directory, so that only the daemon can
// write there. Another process could replace a staged object, which then would get owner and mode
// by its name. claim clears a setgid bit, because staged objects would inherit the group.
func (s *Stack) claim(dir *sys.Dir) error {
	var st sys.Stat
	if err := dir.Ref().Stat(&st); err != nil {
		return err
	}
	if st.Uid != s.uid {
		if err := dir.Ref().Chown(s.uid, s.gid); err != nil {
			return err
		}
	}
	return dir.Ref().Chmod(0o700)
}

// checkKernel returns an error if a mount of the kernel's overlayfs uses one of the directories.
// The two do not see each other's locks.
func checkKernel(c Config, upper, work *sys.Dir) error {
	point, i, err := sys.KernelOverlay(upper, work)
	if point != "" {
		err = fmt.Errorf("is in use by the kernel's overlayfs on %q (EBUSY)", point)
	}
	switch {
	case err == nil:
		return nil
	case i == 0:
		return &Error{roleUpper, c.Upper, err}
	}
	return &Error{roleWork, c.Work, err}
}

// known are the entries that overlay file systems make in a work directory.
var known = map[string]bool{workName: true, indexName: true, "incompat": true}

func checkForeign(work *sys.Dir) error {
	return work.List(func(e sys.Dirent) error {
		if !known[e.Name] {
			return errForeign
		}
		return nil
	})
}

func errnoOf(err error) error {
	var errno unix.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}
