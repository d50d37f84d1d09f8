// Package inodecache holds the identity of objects and the handles that are open.
//
// [Table] maps node ids to nodes and counts the kernel's lookups of each. It also finds the node of
// an object that has several names. [Numbers] gives every object of the stack its inode number, and
// [Claims] gives a number to one of several objects that would have it. [LRU] keeps recently used
// handles open, within a bound.
//
// The mutex of each type is a leaf of the lock order: while one is held, no other lock is taken, no
// handle is closed and no system call is made. [Table] has two, of which Link takes one under the
// other.
//
// The package makes no system calls. It does not know what a node or a handle is.
package inodecache
