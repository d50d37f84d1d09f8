// Package fs serves one overlay to the kernel: it knows who asked and what the kernel gets to cache.
//
// [Open] opens the layers, [Overlay.Mount] attaches them. The node tree is here: a [Node] is one object of the merged tree
// that the kernel may refer to. What a name means, and how it is changed, is asked of fs/stack.
//
// Lock order, outermost first:
//
//	Node.upMu                    one at a time; the copy-up of this object, and what must not meet one
//	    dirState.loadMu          one at a time; held while the directory is loaded
//	        Overlay.movesMu      a directory gets another place in the upper, or two directories are locked
//	            dirState.mu      parent before child; the directory's children, index and parts
//	                rareState.links  the link counts of a shared object
//	                    Node.mu  where the object lies: parent, name, layer
//	                        inodecache: leaves, no system call and no log under them
//
// A lower may not answer: upMu and loadMu alone are held over calls on lowers, all but the leaves over calls on the upper
// (ARCHITECTURE.md, section 6). Notifications to the kernel are sent with nothing held.
//
// The package makes no system call on a layer by itself.
package fs
