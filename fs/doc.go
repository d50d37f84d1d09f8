// Package fs serves one overlay to the kernel: it knows who asked and what the kernel gets to cache.
//
// [Open] opens the layers, [Overlay.Mount] attaches them. The node tree is here: a [Node] is one object of the merged tree
// that the kernel may refer to. What a name means, and how it is changed, is asked of fs/stack.
//
// Lock order, outermost first:
//
//	Node.upMu            one at a time; the copy-up of this object, and what must not meet one
//	    Overlay.renameMu R: whoever uses a path; W: a rename, and what makes a name a link of a copy in the index
//	        Node dir.mu  parent before child; the directory's children, index and parts
//	            Node.mu  where the object lies: parent, name, layer
//	                inodecache: leaves, no system call and no log under them
//
// Data is copied up under upMu alone, so no operation elsewhere waits for it. Notifications to the kernel are sent with
// nothing held.
//
// The package makes no system call on a layer by itself.
package fs
