// Package fs is the node tree of one overlay and the file operations of FUSE on it.
//
// [Open] opens the layers, [Overlay.Mount] mounts the overlay and serves the kernel. A [Node] is
// one object of the merged tree that the kernel may refer to. Each group of operations has a file,
// each operation that takes several steps a type: lookup, listing, copyUp, write, rename, removal,
// linking. They reach objects of layers through access, which knows nothing of requests. The
// package decides what the kernel may cache. fs/stack decides what a name means and how it is
// changed.
//
// Lock order, outermost first. This is the one list of the locks of the daemon, with what each of
// them guards. Each has the rank of its place (internal/lock), and a test in internal/archtest
// compares the list with the code.
//
//	Mount.handing            one hand-over of the upper at a time; by TryLock only
//	prefetcher.mu            the file that is read ahead of its READ; by TryLock only
//	Node.upMu                the copy-up of an object, and what must not run beside it
//	dirState.loadMu          the loading of a directory
//	access.movesMu           the place of directories in the upper; the right to lock two of them
//	dirState.mu              the children, the name table and the parts of a directory
//	rareState.links          the link counts of a shared object
//	openCounts.mu            the open files that the kernel reports
//	Node.mu                  where an object lies: parent, name, layer
//	changingRanges.storing   the stores of what the page cache writes back
//	inodecache.Table.linkMu  the nodes of objects with several names
//	closer.closing           the closing of a batch of removed objects
//
// These are leaves: no other lock is taken under them, and no system call on a lower is made.
//
//	damageLog.mu             when each reason was logged last
//	journal.Journal.mu       what outlives this process
//	closer.mu                the removed objects that wait to be closed
//	changingRanges.mu        the files that are written past the page cache
//	listers.mu               the threads that list directories
//	pins.mu                  the files that are open in the mount
//	inodecache.Claims.mu     which node has which inode number
//	inodecache.LRU.mu        open files and directories that are not in use
//	inodecache.Numbers.mu    inode numbers
//	inodecache.shard.mu      a part of the node table
//	readers.Pool.mu          the threads that read requests
//	fuse-overlay.syslogConn.mu  the connection to the log
//
// A goroutine holds at most one lock of a rank. Only of dirState.mu it may hold more: that of a
// directory and that of one below it, or, with movesMu, those of any two ([access.lockForMove]).
//
// A lower may be a file system whose server does not answer. Only Node.upMu and dirState.loadMu are
// held over calls on lowers, because a request that waits for them needs the same object.
// prefetcher.mu is too, and no request waits for it. The others, but the leaves, are held over
// calls on the upper. Nothing is held while a notification is sent to the kernel, which may send a
// request before it returns.
//
// The package makes no system call on a layer by itself.
package fs
