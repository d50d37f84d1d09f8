package fs

import "github.com/fuse-overlay/fuse-overlay/internal/lock"

// listers remembers, for threads that list directories, whether processes then look entries up.
// READDIRPLUS returns attributes only to threads whose entries are: find by name and type uses
// none, ls -l and grep -r use all. The attributes of an entry cost a system call here and an inode
// in the kernel.
//
// A thread is judged by samples: READDIRPLUS returns one file of each directory without its
// attributes. A LOOKUP of that file, by any process, shows that the thread uses attributes. A
// thread whose samples were not looked up gets names alone, until one is.
type listers struct {
	mu     lock.Mutex[lock.Leaf] // guards the rest
	known  [16]lister
	oldest int
}

type lister struct {
	thread         uint32
	samples        int
	usesAttributes bool
}

// enoughSamples is how many samples without a LOOKUP show that a thread uses no attributes.
const enoughSamples = 4

// detail is how many of a directory's files a reply contains with their attributes.
type detail int

const (
	allAttributes detail = iota
	allButSample
	noAttributes
)

// maxUnknown is up to which place a listing contains attributes for a thread that is not known yet.
// An unused one costs about as much as a used one saves.
const maxUnknown = 1024

// detailFor returns the detail for a thread that lists a directory with files in it, from a place
// on. Thread 0 is one that the daemon cannot see, or several.
func (l *listers) detailFor(thread uint32, from uint64) detail {
	if thread == 0 {
		return allAttributes
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.find(thread)
	if k == nil {
		k = &l.known[l.oldest]
		*k = lister{thread: thread}
		l.oldest = (l.oldest + 1) % len(l.known)
	}
	switch {
	case k.usesAttributes:
		return allAttributes
	case k.samples >= enoughSamples, from > maxUnknown:
		return noAttributes
	case from > 0:
		return allAttributes
	}
	k.samples++
	return allButSample
}

// noteLookup notes that an entry was looked up which the thread got without attributes.
func (l *listers) noteLookup(thread uint32) {
	if thread == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if k := l.find(thread); k != nil {
		k.usesAttributes = true
	}
}

func (l *listers) find(thread uint32) *lister {
	for i := range l.known {
		if l.known[i].thread == thread {
			return &l.known[i]
		}
	}
	return nil
}
