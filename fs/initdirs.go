package fs

import (
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// minShared is the number of parts of directories from which on two threads open and list them
// sooner than one alone.
const minShared = 8

// initDirs calls initDir for several directories and puts the results into errs, which is as long.
// Every part of a merged directory is opened and listed. If there are at least minShared, two
// threads do that. Preconditions: those of initDirInode.
func (o *Overlay) initDirs(dirs []*Node, errs []error) {
	parts := 0
	for _, n := range dirs {
		parts += len(n.dir.Layers())
	}
	if !o.helped || o.cfg.LayersChange || parts < minShared || len(dirs) == 1 && o.leavesUnlisted(dirs[0]) {
		for k, n := range dirs {
			errs[k] = o.initDir(n, nil)
		}
		return
	}
	s := sharedInit{o: o, dirs: dirs, errs: errs}
	s.split(parts)
	var helper sync.WaitGroup
	helper.Go(func() { s.work(0) })
	s.work(1)
	helper.Wait()
	for _, buf := range s.entries {
		clear(*buf)
		direntBuffers.Put(buf)
	}
}

// leavesUnlisted reports whether a directory is not to be listed yet, so that there is nothing to
// share. Preconditions: those of initDirInode.
func (o *Overlay) leavesUnlisted(n *Node) bool {
	d := o.openDir(n)
	defer d.release()
	return o.stack.LeaveUnlisted(&n.dir.Dir, d) // without n.dir.mu, as initDirInode
}

// sharedInit is the initialisation of directories by two threads. Each takes part after part. The
// one that has read the last part of a directory merges the parts.
type sharedInit struct {
	o    *Overlay
	dirs []*Node
	errs []error

	first  []int            // by directory: its first part
	read   []stack.Contents // by part
	unread []atomic.Int32   // by directory: parts that are not read yet
	next   atomic.Int32     // the part to be taken next

	entries [2]*[]sys.Dirent // what each of the two threads has read
}

var direntBuffers = sync.Pool{New: func() any { return &[]sys.Dirent{} }}

// split makes parts of the work.
func (s *sharedInit) split(parts int) {
	s.first, s.unread, s.read = make([]int, len(s.dirs)), make([]atomic.Int32, len(s.dirs)), make([]stack.Contents, parts)
	at := 0
	for k, n := range s.dirs {
		s.first[k] = at
		s.unread[k].Store(int32(len(n.dir.Layers())))
		at += len(n.dir.Layers())
	}
	for i := range s.entries {
		s.entries[i] = direntBuffers.Get().(*[]sys.Dirent)
		*s.entries[i] = (*s.entries[i])[:0]
	}
}

func (s *sharedInit) work(thread int) {
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
			s.readPart(k, i, s.entries[thread])
		}
		if s.unread[k].Add(-1) > 0 {
			continue
		}
		var all []stack.Contents
		if merges {
			all = s.read[s.first[k] : s.first[k]+len(s.dirs[k].dir.Layers())]
		}
		s.errs[k] = s.o.initDir(s.dirs[k], all)
	}
}

// readPart reads the i-th of all parts, one of the k-th directory.
func (s *sharedInit) readPart(k, i int, buf *[]sys.Dirent) {
	defer func() {
		if v := recover(); v != nil {
			s.read[i] = stack.Unread(unix.Errno(s.o.conn.Panicked(v)))
		}
	}()
	d := s.o.openDir(s.dirs[k])
	defer d.release()
	s.read[i], *buf = s.o.stack.Read(&s.dirs[k].dir.Dir, i-s.first[k], d, *buf)
}
