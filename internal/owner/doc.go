// Package owner answers whose an object is, and what, where the inode of its layer does not say so itself: ids that are kept
// under other numbers than the mount shows ([IDs], options uidmapping, gidmapping and squash_to_*), and owner, mode, type
// and device number kept in an extended attribute, because the daemon may not set the real ones (override_stat, option
// xattr_permissions).
//
// Ids cross between the two worlds in two functions, [IDs.show] and [IDs.store]. A [Ref] is an object seen through them.
//
// The package has no locks. It does not know layers, names or requests.
package owner
