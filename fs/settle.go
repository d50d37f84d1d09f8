package fs

import (
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// fewParts is how many parts of directories are opened and listed sooner by one alone than with the help of another.
const fewParts = 8

// settleDirs settles directories and puts what became of each into errs, which is as long. Of a merged directory every part is opened
// and listed, so where there is more to do than it takes to call somebody, two do it. Preconditions: those of settleDir, and that
// nobody else knows the directories.
func (o *Overlay) settleDirs(dirs []*Node, errs []error) {
	parts := 0
	for _, n := range dirs {
		parts += len(n.dir.Layers())
	}
	if !o.helped || o.cfg.LayersChange || parts < fewParts || len(dirs) == 1 && o.leaveUnlisted(dirs[0]) {
		for k, n := range dirs {
			errs[k] = o.settleOne(n, nil)
		}
		return
	}
	s := settling{o: o, dirs: dirs, errs: errs}
	s.share(parts)
	var helper sync.WaitGroup
	helper.Go(func() { s.work(0) })
	s.work(1)
	helper.Wait()
	for _, buf := range s.entries {
		clear(*buf)
		direntBuffers.Put(buf)
	}
}

// leaveUnlisted reports whether there is nothing for two to do, because a directory is not to be listed yet. Preconditions: those of
// settleDirs.
func (o *Overlay) leaveUnlisted(n *Node) bool {
	d := o.open(n)
	defer d.release()
	n.dir.mu.Lock()
	defer n.dir.mu.Unlock()
	return o.stack.LeaveUnlisted(&n.dir.Dir, d)
}

// settling is the work of two who settle directories. They take part after part; who has read the last one of a directory merges them.
type settling struct {
	o    *Overlay
	dirs []*Node
	errs []error

	first []int            // by directory: its first part
	read  []stack.Contents // by part
	left  []atomic.Int32   // by directory: parts that are not read yet
	next  atomic.Int32     // the part to be taken next

	entries [2]*[]sys.Dirent // what each of the two has read
}

var direntBuffers = sync.Pool{New: func() any { return &[]sys.Dirent{} }}

// share makes parts of the work.
func (s *settling) share(parts int) {
	s.first, s.left, s.read = make([]int, len(s.dirs)), make([]atomic.Int32, len(s.dirs)), make([]stack.Contents, parts)
	at := 0
	for k, n := range s.dirs {
		s.first[k] = at
		s.left[k].Store(int32(len(n.dir.Layers())))
		at += len(n.dir.Layers())
	}
	for i := range s.entries {
		s.entries[i] = direntBuffers.Get().(*[]sys.Dirent)
		*s.entries[i] = (*s.entries[i])[:0]
	}
}

func (s *settling) work(who int) {
	for k := 0; ; {
		i := int(s.next.Add(1)) - 1
		if i >= len(s.read) {
			return
		}
		for k+1 < len(s.dirs) && s.first[k+1] <= i {
			k++
		}
		merges := s.dirs[k].dir.MayMerge()
		if merges {
			s.readPart(k, i, s.entries[who])
		}
		if s.left[k].Add(-1) > 0 {
			continue
		}
		var all []stack.Contents
		if merges {
			all = s.read[s.first[k] : s.first[k]+len(s.dirs[k].dir.Layers())]
		}
		s.errs[k] = s.o.settleOne(s.dirs[k], all)
	}
}

// readPart reads the i-th of all parts, one of the k-th directory.
func (s *settling) readPart(k, i int, buf *[]sys.Dirent) {
	defer func() {
		if v := recover(); v != nil {
			s.read[i] = stack.Unread(unix.Errno(s.o.conn.Panicked(v)))
		}
	}()
	d := s.o.open(s.dirs[k])
	defer d.release()
	s.read[i], *buf = s.o.stack.Read(&s.dirs[k].dir.Dir, i-s.first[k], d, *buf)
}
