// Package copyup brings an object of a lower layer whole into the upper.
//
// It happens in three steps. Stage makes a complete copy in the work directory, under a name of its own: the data, then
// the metadata, in the order of the table in metadata.go. Publish puts it into its place by one rename. Until then
// nothing of it can be seen, and after it nothing is missing: a kill or a full disk at any point leaves the state before
// or the state after, and what was staged is removed, by the failing step itself or by the next [Work.Sweep].
//
// On durability. With [Copier].Sync a regular file (data and metadata) and a directory are made durable before they are
// published, as the kernel does where it trusts no order of the file system's own (fs/overlayfs/copy_up.c,
// metadata_fsync): a power cut never leaves a name with less than the whole behind it. Symbolic links and special files
// have nothing to make durable apart from their creation, which a journal keeps in order with the rename. The rename
// itself is not made durable: a power cut may take the whole copy-up back, until the file or the parent directory is
// synced.
//
// The package does not know what a name means, when something must be copied up, or what else lies under the name, and
// it holds no locks: the caller sees to it that an object is copied up by one at a time.
package copyup
