// Package inodecache holds the identity of objects, and open handles.
//
//	[Table]    maps node ids to nodes, counts the kernel's lookups of each, and finds the node of
//	           an object that has several names
//	[Numbers]  gives every object of the stack its inode number
//	[Claims]   gives a number to one of several objects that would have it
//	[LRU]      keeps recently used handles open, within a bound
//
// Lock order: Table.linkMu, then the mutex of one shard. The other mutexes are leaves. Under a
// mutex the package takes no lock of another package, closes no handle and makes no system call.
//
// The package makes no system calls. It does not know what a node or a handle is.
package inodecache
