// Package changes tests fuse-overlay diff: what it reports of an upper is what has been done
// through the mount, and its layers, applied to the tree of the lowers, give the tree that the
// mount has shown.
package changes
