package fs

import (
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/internal/owner"
)

// A container engine that compares the trees of two mounts requests security.capability of each
// object, podman also the list of its xattrs. The kernel keeps neither answer. If no object of the
// layers below a writable upper has an xattr that the mount shows, the daemon answers for objects
// in these layers without a system call.
//
// After ENOSYS the kernel sends no request of that kind any more, for any object of the mount:
// fuse_getxattr and fuse_listxattr of fs/fuse/xattr.c return EOPNOTSUPP, and fuse_get_acl finds no
// ACL. So ENOSYS is right only if no object can get an xattr, and if the caller accepts EOPNOTSUPP.

const (
	// searchRequests is how many objects were found without a capability before the layers are
	// searched.
	searchRequests = 256
	// searchLists is how many of these also had an empty list, if the caller is one that requests
	// lists. Otherwise LISTXATTR goes on: tar and getfattr report EOPNOTSUPP as an error.
	searchLists = searchRequests / 2
	// maxSearched is how many objects are searched. Each may bring an inode into memory.
	maxSearched = 1 << 18
	// maxSearchTime is how long a search may take.
	maxSearchTime = 10 * time.Second
	// searchTurn is how many objects are searched before the search rests, for as long as they
	// took. So it takes at most half of a processor from requests.
	searchTurn = 64
	// searchEnd is how long Close waits for a search. Only a call on a layer that does not answer
	// takes longer.
	searchEnd = time.Second
)

// The errors that end a search.
var (
	errHasXattr    = errors.New("an object has an extended attribute")
	errNoList      = errors.New("a file system lists no extended attributes")
	errManyObjects = errors.New("the layers have too many objects")
	errSlowSearch  = errors.New("the search takes too long")
	errUnmounted   = errors.New("unmounted")
)

// quietXattrs finds out whether the layers have xattrs, and whether the kernel is to stop
// requesting them. Any goroutine may call its methods.
type quietXattrs struct {
	possible bool // immutable: the layers do not change behind the mount
	engine   bool // immutable: nor through it, and an engine that accepts EOPNOTSUPP has mounted them

	noCapability atomic.Uint32 // GETXATTR of security.capability without one
	emptyLists   atomic.Uint32 // empty LISTXATTR of the object of the last such GETXATTR
	last         atomic.Uint64 // the ID of that object's node

	searching atomic.Bool   // the one search has begun
	ended     chan struct{} // closed when it has ended
	closed    atomic.Bool

	none     atomic.Bool // no object but those of a writable upper has an xattr
	noValues atomic.Bool // GETXATTR is ENOSYS
	noLists  atomic.Bool // LISTXATTR is ENOSYS
}

func newQuietXattrs(cfg *Config, s *stack.Stack) quietXattrs {
	// If a lower has the upper in it, changes of the upper change the lower.
	possible := !cfg.LayersChange && !cfg.NoXattrs && !s.Overlap() && !cfg.Disabled.has(QuietXattrs)
	return quietXattrs{possible: possible, engine: possible && cfg.ReadByEngine && !s.Writable(), ended: make(chan struct{})}
}

// noteNoCapability notes a GETXATTR of security.capability of an object that has none. It returns
// true once, if the layers are to be searched.
func (q *quietXattrs) noteNoCapability(id uint64) (search bool) {
	if !q.possible {
		return false
	}
	q.last.Store(id)
	return q.noCapability.Add(1) >= searchRequests && (q.engine || q.requestsLists()) && q.searching.CompareAndSwap(false, true)
}

// noteEmptyList notes an empty LISTXATTR.
func (q *quietXattrs) noteEmptyList(id uint64) {
	if q.possible && q.last.Load() == id {
		q.emptyLists.Add(1)
	}
}

// requestsLists reports whether the caller requests lists as well.
func (q *quietXattrs) requestsLists() bool { return q.emptyLists.Load() >= searchLists }

// close ends a search under way.
func (q *quietXattrs) close() {
	q.closed.Store(true)
	if !q.searching.Load() {
		return
	}
	select {
	case <-q.ended:
	case <-time.After(searchEnd):
	}
}

// searchXattrs searches the layers for an xattr that the mount shows. It runs on a goroutine of its
// own and takes no lock.
func (o *Overlay) searchXattrs() {
	q := &o.quiet
	defer close(q.ended)
	defer func() {
		if v := recover(); v != nil {
			o.conn.Panicked(v)
		}
	}()
	start := time.Now()
	search := xattrSearch{o: o, end: start.Add(maxSearchTime), turn: start}
	if err := o.stack.EachFixedObject(search.visit); err != nil {
		o.log.Debug("extended attributes are read from the layers", zap.Error(err))
		return
	}
	q.none.Store(true)
	requested := "values and lists"
	if q.engine {
		requested = "none"
		if lists := q.requestsLists() && !o.selinux; lists {
			q.noLists.Store(true)
		} else {
			requested = "lists"
		}
		q.noValues.Store(true)
	}
	o.log.Info("no object of the layers has an extended attribute", zap.String("requested", requested),
		zap.Int("objects", search.objects), zap.Duration("search", time.Since(start)))
}

// hasNone reports whether it is known that n has no xattr of this name. Of labels of SELinux
// nothing is known.
func (q *quietXattrs) hasNone(n *Node, attr string) bool {
	return q.none.Load() && attr != selinuxXattr && inEveryList(attr) && !n.inUpper()
}

// xattrSearch is one search.
type xattrSearch struct {
	o       *Overlay
	objects int
	turn    time.Time // when the last rest ended
	end     time.Time
}

// visit returns nil if the search is to go on after this object.
func (s *xattrSearch) visit(r owner.Ref) error {
	if s.o.quiet.closed.Load() {
		return errUnmounted
	}
	if s.objects++; s.objects > maxSearched {
		return errManyObjects
	}
	if s.objects%searchTurn == 0 {
		if err := s.rest(); err != nil {
			return err
		}
	}
	names, err := r.ListXattr()
	if err != nil {
		return err
	}
	return s.o.wantNoXattr(names)
}

// wantNoXattr returns an error if a GETXATTR of an object with this list may have a value. Labels
// of SELinux do not count: SELinux itself answers requests for them (xattr_getsecurity of
// fs/xattr.c).
func (o *Overlay) wantNoXattr(names []string) error {
	if names == nil {
		return errNoList
	}
	if slices.ContainsFunc(names, func(name string) bool {
		shown, ok := o.shownXattr(name)
		return ok && shown != selinuxXattr
	}) {
		return errHasXattr
	}
	return nil
}

func (s *xattrSearch) rest() error {
	now := time.Now()
	if now.After(s.end) {
		return errSlowSearch
	}
	time.Sleep(now.Sub(s.turn))
	s.turn = time.Now()
	return nil
}
