// Package copyup copies an object of a lower layer whole into the upper.
//
// It does so in three steps:
//
//	stage     [Copier.Stage] makes a complete copy in the work directory: data, then metadata in
//	          the order of the table in metadata.go. If the file system is trusted with O_TMPFILE,
//	          a regular file gets no name there
//	publish   [Staged.Publish] puts the copy in its place, by one rename or one link
//	sweep     [Work.Sweep] removes at the next mount what a killed daemon left
//
// Before it is published, no part of the copy is visible; afterwards no part is missing. So a kill
// or a full disk at any point leaves the state before or the state after. A step that fails removes
// the staged copy.
//
// Power cuts: with [Copier].Sync a power cut never leaves a name with less than the whole object
// behind it. trustIn (durable.go) decides whether a file system keeps changes in order, and gives
// the reasons. If it does, a copy-up only waits until the disk has the data. It needs neither a
// commit of the journal nor a flush of the disk's cache. On any other file system a copy-up calls
// fsync on a regular file or directory before it publishes the copy. Other objects have no data, so
// their creation is one change. The kernel's overlayfs syncs regular files only, on every file
// system (fs/overlayfs/copy_up.c).
//
// The package does not sync the publication. Until a process syncs the file or the parent
// directory, a power cut may undo the whole copy-up.
//
// The package holds no locks: callers copy an object up one at a time. It does not know what a name
// means, when an object must be copied up, or what else is under the name.
package copyup
