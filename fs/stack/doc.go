// Package stack answers what a name means in a stack of layers, and changes the upper so that it means something else.
//
// A [Stack] is the layers and the work directory. A [Dir] is one merged directory: the layers it lies in, and once it has
// been listed, or has more than one part, a table of its names. [Stack.Resolve] holds the merge rule of overlay file systems
// (ovl_lookup in the kernel): a whiteout stops, a non-directory stops, an opaque directory stops, absence goes on, any other
// error fails.
//
// Every change of the upper is published by one system call: before it the old state shows, after it the new one, and what
// is left in the work directory is swept by the next mount.
//
// The package holds no locks: the caller serializes all use of one Dir. It does not know FUSE, nodes or the kernel's caches.
package stack
