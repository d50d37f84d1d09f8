// Package copyup brings an object of a lower layer whole into the upper.
//
// It happens in three steps. Stage makes a complete copy in the work directory, under a name of its own: the data, then
// the metadata, in the order of the table in metadata.go; a regular file needs no name there where the file system has
// nameless files. Publish puts it into its place by one rename, or one link. Until then nothing of it can be seen, and after it nothing is missing: a kill or a full disk at any point leaves the state before
// or the state after, and what was staged is removed, by the failing step itself or by the next [Work.Sweep].
//
// On power cuts. With [Copier].Sync a power cut never leaves a name with less than the whole behind it. Where the file
// system is known to keep everything in order (trustIn in durable.go says which, and why) that takes no more than to wait
// until a file's data has been written: neither a commit of the journal nor a flush of the disk's cache. On any other, a
// regular file and a directory are made durable by fsync before they are published; symbolic links and special files have
// nothing apart from their creation. The kernel's overlayfs syncs regular files only, and on every file system
// (fs/overlayfs/copy_up.c). The publication itself is not made durable: a power cut may take the whole copy-up back,
// until the file or the parent directory is synced.
//
// The package does not know what a name means, when something must be copied up, or what else lies under the name, and
// it holds no locks: the caller sees to it that an object is copied up by one at a time.
package copyup
