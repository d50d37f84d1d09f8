// Package lock gives each mutex a rank, which is its place in the lock order.
//
// A [Mutex] or [RWMutex] has its rank as its type parameter. In normal builds both are those of
// package sync: the rank costs no memory and no time. With the build tag lockrank, Lock and RLock
// first check the locks that the goroutine holds. They panic with the stacks of both places if one
// of them has an inner rank, or the same rank where the order does not allow two. TryLock never
// waits, so it is not checked, but what it takes counts as held.
//
// The list of all locks, with what each of them guards, is in fs/doc.go. A test in
// internal/archtest compares it with the mutexes of the code and with the order of the ranks. The
// package does not find deadlocks with anything but these mutexes.
package lock

// Ranks, outermost first. A rank is an empty type: fields of one rank have the same place in the
// order.
type (
	// Handover is the hand-over of the upper to another mount.
	Handover struct{}
	// NextFile is the file that is read ahead of its READ.
	NextFile struct{}
	// CopyUp is the copy-up of one object.
	CopyUp struct{}
	// Load is the loading of one directory.
	Load struct{}
	// Moves is the right to move directories.
	Moves struct{}
	// Dir is one directory; a goroutine that holds a directory may lock one below it.
	Dir struct{}
	// Links are the link counts of one object.
	Links struct{}
	// Opens are the opens of all files that the kernel reports.
	Opens struct{}
	// Place is where one object lies.
	Place struct{}
	// Stores are the stores of what the page cache writes back.
	Stores struct{}
	// Linked is the table of objects with several names.
	Linked struct{}
	// Closing is the closing of removed objects.
	Closing struct{}
	// Leaf is a lock under which no other is taken.
	Leaf struct{}
)
