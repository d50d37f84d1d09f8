package stack

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/copyup"
	"github.com/fuse-overlay/fuse-overlay/internal/host"
	"github.com/fuse-overlay/fuse-overlay/internal/ondisk"
	"github.com/fuse-overlay/fuse-overlay/internal/owner"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/whiteout"
)

// Config says which directories make up a stack.
type Config struct {
	Lowers      []string // topmost first
	DataOnly    []string // below them, without names
	Upper, Work string   // both or neither; with ReadOnly, Work is not used
	// ReadOnly has the upper read only, as the topmost layer: it need not be free, and stays so for a mount that writes.
	ReadOnly bool
	// Namespace is where the mount is to be made; nil: in the mount namespace of this process.
	Namespace *host.MountNamespace
	// BesideOther is ReadOnly where another mount of this program holds the upper.
	BesideOther bool
	// Markers writes whiteouts as .wh. files even where devices can be made.
	Markers bool
	// Sync makes every copy-up durable before it shows.
	Sync bool
	// Slow is called before what may take long in a copy-up ([copyup.Copier]); nil: nobody wants to know.
	Slow func()
	// AfterVolatile goes on with what a volatile mount has used; otherwise that is refused.
	AfterVolatile bool
	// ACL keeps POSIX ACLs: default ACLs are handed down to new objects. Not where an attribute says the mode.
	ACL bool
	// Redirects says what renaming a directory with lower parts does, and whether redirects in layers are followed.
	Redirects Redirects
	// Features are the parts of the format on disk that can be chosen.
	Features Features
	// ListAtOnce lists every merged directory before the first lookup in it ([Stack.LeaveUnlisted]).
	ListAtOnce bool
	// AccessTimes is when reads of objects of the upper change their access times.
	AccessTimes sys.AccessTimes
	// IDs are how ids of layers are shown; nil: as they are.
	IDs *owner.IDs
	// Permissions is where the upper keeps owner, mode and type; nil: as its root says, and by itself in the inode.
	Permissions *owner.Override
}

// Roles of a directory in an [Error].
const (
	roleLower = "lowerdir"
	roleData  = "data-only lowerdir"
	roleUpper = "upperdir"
	roleWork  = "workdir"
)

// Error says which directory cannot be used and why.
type Error struct {
	Role, Path string
	Err        error
}

func (e *Error) Error() string { return fmt.Sprintf("%s %q: %v", e.Role, e.Path, e.Err) }

// Unwrap gives the reason.
func (e *Error) Unwrap() error { return e.Err }

// Reasons without an errno of their own.
var (
	errOtherFS    = errors.New("is not on the same mount as the upperdir")
	errForeign    = errors.New("is not empty and not the work directory of an overlay")
	errTooMany    = errors.New("too many layers")
	errNoLower    = errors.New("no lowerdir given")
	errUpperWork  = errors.New("upperdir and workdir belong together: give both or neither")
	errOwnersForm = errors.New("is mounted as its inodes are: the attribute of its root that keeps owner and mode is one that its owner may set, " +
		"and counts with xattr_permissions=2 only")
	errOtherForm = errors.New("keeps owner and mode in another attribute than the one of xattr_permissions")
)

// maxLayers is the most lowers that a layer number holds.
const maxLayers = 1<<16 - 2

// workName is the staging directory inside the work directory, named as the kernel's overlayfs names it
// (OVL_WORKDIR_NAME), so that either can sweep what the other left.
const workName = "work"

// isHostRoot is a variable for tests.
var isHostRoot = host.IsHostRoot

// Open opens the layers, takes the upper for this process alone and sweeps the work directory.
func Open(c Config) (*Stack, error) {
	switch {
	case len(c.Lowers) == 0:
		return nil, errNoLower
	case len(c.Lowers) > maxLayers:
		return nil, &Error{roleLower, c.Lowers[maxLayers], errTooMany}
	case (c.Upper == "") != (c.Work == "") && !c.ReadOnly:
		return nil, errUpperWork
	}
	s := &Stack{
		layers: make([]layer, 1+len(c.Lowers)), acl: c.ACL, uid: uint32(os.Geteuid()), gid: uint32(os.Getegid()),
		metacopy: c.Features.MetaCopy, verity: c.Features.Verity, digest: (*sys.File).Verity,
		names:     ondisk.Names{UserOnly: c.Features.UserXattr},
		redirects: c.Redirects, hostRoot: isHostRoot(), listAtOnce: c.ListAtOnce,
	}
	s.overflow, _ = host.OverflowIDs()
	ok := false
	defer func() {
		if !ok {
			s.Close()
			s.unmakeWork(c)
		}
	}()
	var err error
	if s.overlap, err = checkOverlap(c); err != nil {
		return nil, err
	}
	lowers, failed, err := sys.OpenLowers(c.Lowers)
	if err != nil {
		return nil, &Error{roleLower, c.Lowers[failed], err}
	}
	for i, root := range lowers { // all, so that Close gives them back
		s.layers[i+1].root = root
	}
	if s.dataOnly, failed, err = sys.OpenLowers(c.DataOnly); err != nil {
		return nil, &Error{roleData, c.DataOnly[failed], err}
	}
	for i := range lowers {
		if err := s.setDevice(i + 1); err != nil {
			return nil, &Error{roleLower, c.Lowers[i], err}
		}
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
		return s.blame(c, err)
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

// unmakeWork takes away what openUpper has made for a mount that has come to nothing. What is not empty stays.
func (s *Stack) unmakeWork(c Config) {
	if s.createdWork {
		_ = os.Remove(filepath.Join(c.Work, workName))
		_ = os.Remove(c.Work)
	}
}

// blame finds out which of the two directories cannot be opened.
func (s *Stack) blame(c Config, err error) error {
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
	if err := checkKernel(c, upper, work); err != nil {
		return err
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
	if s.afterVolatile, err = checkIncompat(s.staging, c.Work, c.AfterVolatile); err != nil {
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
	if s.format, err = whiteout.Probe(s.staging, wanted); err != nil {
		return fail(err)
	}
	if s.long, err = whiteout.ProbeLong(s.staging, s.format); err != nil {
		return fail(err)
	}
	if s.nameMax, err = longestName(upper); err != nil {
		return &Error{roleUpper, c.Upper, err}
	}
	s.copier = &copyup.Copier{Work: s.work, Sync: c.Sync, Slow: c.Slow, Origin: s.origin, KeepXattr: func(name string) bool {
		return !s.names.Private(name)
	}, Protect: s.protectionMark}
	return nil
}

// longestName is how long a name may be in a directory.
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

// claim makes a directory that was found in the work directory the daemon's own and closes it to others: a process that may
// write there could put another object in the place of a staged one, which then gets owner and mode by its name. It clears a
// setgid bit, which would hand the group down to what is staged.
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

// checkKernel refuses what the kernel's overlayfs is known to use. It does not know of this mount either.
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

// checkOverlap refuses layers that lie inside each other where a change of one would change another under the mount. An
// upper inside a lower is allowed (the lower may be /): the user has requested that change of a
// lower. overlap: what a directory of one layer shows can also show in another directory.
func checkOverlap(c Config) (overlap bool, err error) {
	var paths []string
	for _, l := range slices.Concat(c.Lowers, c.DataOnly) {
		paths = append(paths, realPath(l))
	}
	lowers := slices.Clone(paths[:len(c.Lowers)])
	switch {
	case c.Upper == "":
		return anyInside(lowers), nil
	case c.ReadOnly:
		return anyInside(append(lowers, realPath(c.Upper))), nil
	}
	upper, work := realPath(c.Upper), realPath(c.Work)
	switch {
	case work == upper:
		return false, &Error{roleWork, c.Work, errors.New("is the upperdir: give another directory beside it")}
	case inside(work, upper):
		return false, &Error{roleWork, c.Work, fmt.Errorf("lies inside the upperdir %q: give a directory beside it", c.Upper)}
	case inside(upper, work):
		return false, &Error{roleWork, c.Work, fmt.Errorf("holds the upperdir %q: give a directory beside it", c.Upper)}
	}
	for i, l := range slices.Concat(c.Lowers, c.DataOnly) {
		if inside(paths[i], upper) {
			return false, &Error{roleLower, l, fmt.Errorf("lies inside the upperdir %q", c.Upper)}
		}
		if inside(paths[i], work) {
			return false, &Error{roleLower, l, fmt.Errorf("lies inside the workdir %q", c.Work)}
		}
	}
	return anyInside(append(lowers, upper)), nil
}

// anyInside reports whether one of several directories is another, or lies inside of it. It changes their order.
func anyInside(dirs []string) bool {
	for i, dir := range dirs {
		dirs[i] = strings.TrimSuffix(dir, "/") + "/"
	}
	slices.Sort(dirs) // what lies inside of a directory follows it
	for i := 1; i < len(dirs); i++ {
		if strings.HasPrefix(dirs[i], dirs[i-1]) {
			return true
		}
	}
	return false
}

// realPath resolves symbolic links as far as the path exists.
func realPath(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	dir, name := filepath.Split(path)
	if dir == path {
		return path
	}
	return filepath.Join(realPath(filepath.Clean(dir)), name)
}

func inside(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

func errnoOf(err error) error {
	var errno unix.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}
