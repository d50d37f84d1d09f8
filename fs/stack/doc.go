// Package stack knows what a name means in a stack of layers, and changes the upper so that it
// means something else.
//
// A [Stack] is the layers and the work directory. A [Dir] is one merged directory: the layers it
// lies in, and a table of its names once it is listed. [Stack.Resolve] looks a name up. The merge
// rule of overlay file systems is in one type, merge (ovl_lookup in fs/overlayfs/namei.c): a
// whiteout stops, a non-directory stops, an opaque directory stops, ENOENT goes on, another errno
// fails.
//
// Every change of the upper is published by one system call: the old state shows before it, the new
// one after it. The next mount removes what is left in the work directory.
//
// Nothing here holds locks: the caller serializes all use of one Dir. No function that needs a Dir
// held makes a call on a lower, except Load, which a caller runs on a copy ([Dir.Aside]).
//
// The package does not know FUSE, nodes or the caches of the kernel.
package stack
