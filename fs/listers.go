package fs

import "github.com/fuse-overlay/fuse-overlay/internal/lock"

// listers remembers of threads that list directories whether anybody then looks at the entries, to answer READDIRPLUS with
// no more than is wanted: find by name and type does not, ls -l and grep -r do. To tell the attributes of an entry
// costs a system call here and an inode in the kernel.
//
// A thread is judged by samples: one file of each directory is told without its attributes, and is asked for by a LOOKUP
// if they are wanted. Once is enough, whoever asks; a thread whose samples nobody has asked for is told names alone, until
// somebody does.
type listers struct {
	mu     lock.Mutex[lock.Leaf] // guards the rest
	known  [16]lister
	oldest int
}

type lister struct {
	thread  uint32
	samples int
	looks   bool
}

// enoughSamples is how many samples nobody asks for make a lister one of names.
const enoughSamples = 4

// telling is how much of a directory's files a lister is told.
type telling int

const (
	tellAll telling = iota
	tellButOne
	tellNames
)

// manyEntries is how far a listing comes with attributes for a thread that nothing is known of: each costs who does not want it about as
// much as it saves who does.
const manyEntries = 1024

// lists says what to tell a thread that lists a directory with files in it, from a place on. Thread 0 is one that the daemon
// cannot see, or several.
func (l *listers) lists(thread uint32, from uint64) telling {
	if thread == 0 {
		return tellAll
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
	case k.looks:
		return tellAll
	case k.samples >= enoughSamples, from > manyEntries:
		return tellNames
	case from > 0:
		return tellAll
	}
	k.samples++
	return tellButOne
}

// looked notes that somebody has asked for what the thread was not told.
func (l *listers) looked(thread uint32) {
	if thread == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if k := l.find(thread); k != nil {
		k.looks = true
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
