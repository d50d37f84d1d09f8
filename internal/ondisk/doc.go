// Package ondisk is the format of what an overlay keeps on disk beside whiteouts: the extended attributes of the overlay
// itself, their names, their values and the names under which the attributes of an inner overlay are stored.
//
// Origin, impure, nlink, redirect, metacopy, protattr and uuid are those of the kernel's overlayfs
// (Documentation/filesystems/overlayfs.rst, fs/overlayfs/overlayfs.h). Every name of an extended attribute that the
// program knows is spelt in this package, once (names.go).
//
// The package has no locks. It does not know what is made of these attributes: when one is written, what a whiteout or an
// opaque directory is, or where a redirect leads.
package ondisk
