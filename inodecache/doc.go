// Package inodecache answers two questions: which object is this, and what is already open?
//
// [Table] maps node ids to nodes and counts the kernel's references, and finds the one node of an object that has several
// names. [Numbers] gives every object of the stack its st_ino. [LRU] keeps recently used handles open within a bound.
//
// Each type has a mutex of its own, a leaf of the program's lock order: nothing else is locked, no handle is closed and no
// system call is made while it is held. The package does not know what a node or a handle is.
package inodecache
