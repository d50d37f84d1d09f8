// Package owner translates owner, mode and type of objects between a layer and the mount, where the
// inode does not hold them as the mount shows them. Ids can be mapped or squashed ([IDs]: options
// uidmapping, gidmapping and squash_to_*). A daemon that may not set owner, mode, type and device
// number keeps them in an extended attribute ([Override]: override_stat, option xattr_permissions).
//
// A [Scheme] is the translation of one layer, and a [Ref] is an object seen through it. Ids are
// translated in two functions, [IDs.show] and [IDs.store].
//
// The package has no locks. It does not know layers, names or requests.
package owner
