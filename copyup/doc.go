// Package copyup copies an object of a lower layer whole into the upper.
//
// It does so in three steps:
//
//	stage     [Copier.Stage] makes a complete copy in the work directory: data, then metadata in
//	          the order of the table in metadata.go. A regular file gets no name there (O_TMPFILE)
//	          if the file system is trusted with that
//	publish   [Staged.Publish] brings the copy to its place, by one rename or one link
//	sweep     [Work.Sweep] removes at the next mount what a killed daemon left
//
// Until it is published, nothing of the copy is visible, and then nothing is missing. So a kill or
// a full disk at any point leaves the state before or the state after. A step that fails removes
// what is staged.
//
// Power cuts. With [Copier].Sync a power cut never leaves a name with less than the whole object
// behind it. If the file system is known to keep changes in order (trustIn in durable.go, with the
// reasons), a copy-up waits only until the data has been written: it needs neither a commit of the
// journal nor a flush of the disk's cache. On any other file system a regular file or a directory
// is synced by fsync before it is published. Symbolic links and special files consist of their
// creation. The kernel's overlayfs syncs regular files only, and on every file system
// (fs/overlayfs/copy_up.c). The publication is not synced: a power cut may undo the whole copy-up
// until the file or the parent directory is synced.
//
// The package holds no locks: callers copy an object up one at a time. It does not know what a name
// means, when an object must be copied up, or what else is under the name.
package copyup
