// Package owner translates owner, mode and type of objects between a layer and the mount, for
// layers whose inodes differ from what the mount shows. There are two cases:
//
//	[IDs]       the mount maps or squashes ids (options uidmapping, gidmapping and squash_to_*)
//	[Override]  the daemon may not set owner, mode, type and device number of an inode. It stores
//	            them in an extended attribute (override_stat, option xattr_permissions)
//
// A [Scheme] is the translation of one layer, and a [Ref] is an object with it. Only two functions
// translate ids: [IDs.show] and [IDs.store].
//
// The package has no locks. It does not know layers, names or requests.
package owner
