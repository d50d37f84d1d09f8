// Package ondisk is the format in which an overlay keeps what it knows of its objects, in extended
// attributes: origin, impure, nlink, redirect, metacopy, protattr and uuid. They are those of the
// kernel's overlayfs (Documentation/filesystems/overlayfs.rst, fs/overlayfs/overlayfs.h).
//
// Every name of an extended attribute that the program knows is spelt here, once (names.go). The
// package also decides which names are private ([Names]), and under which names the private
// attributes of an inner overlay are stored.
//
// The package has no locks. It does not decide when an attribute is written or followed, and it
// does not know what whiteouts and opaque directories are: package whiteout does.
package ondisk
