// Package whiteout reads and writes whiteouts and opaque directories.
//
// A whiteout hides a name that a lower layer still has. An opaque directory hides all that lower
// layers have under its name. Both have several forms on disk:
//
//	kernel overlayfs      character device 0/0; empty file with overlay.whiteout;
//	                      directory with overlay.opaque (Documentation/filesystems/overlayfs.rst)
//	AUFS, OCI images      markers: files whose names begin with ".wh."
//	fuse-overlayfs        directory with user.fuseoverlayfs.opaque
//
// The package reads every form in every layer. In the upper it writes one [Format], which it finds
// by trying. A [Maker] makes whiteouts there, and makes, removes and moves objects where whiteouts
// are in the way or are left behind. At no moment does a name show the object of a lower that it
// hid before or is to hide.
//
// The package holds no locks. It does not know how directories are merged, when a name must be
// hidden, or what is in an object.
package whiteout
