package copyup

import (
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/host"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// trust is what the file system of the staging area is relied on for. [trustIn] alone decides it,
// once.
type trust struct {
	// ordered: if a copy-up waits for the write-back of a file's data and then publishes the file,
	// a power cut never leaves the name without the data. Changes of metadata survive in the order
	// in which they were made.
	ordered bool
	// tmpfile: a file that never had a name may be synced, and published by a link.
	tmpfile bool
}

// trustIn decides how far a file system is trusted to keep a copy-up whole over a power cut. If it
// is trusted with the order, a copy-up does not wait for a commit of the journal and a flush of the
// device's cache, as fsync does: a power cut may undo it, but never leaves its name without the
// whole object. The claim has three parts.
//
//  1. When the write-back of a page ends, its data has reached the device, and the change that makes
//     it part of the file is in a transaction: unwritten blocks are converted, the size is logged.
//     ext4 ends the write-back of a page after that: ext4_end_bio defers to ext4_end_io_end, which
//     converts and then calls ext4_finish_bio (fs/ext4/page-io.c); the size is logged when the
//     write is submitted (mpage_map_and_submit_extent, fs/ext4/inode.c). So does xfs: xfs_end_ioend
//     converts or calls xfs_setfilesize, then iomap_finish_ioends (fs/xfs/xfs_aops.c).
//  2. Transactions survive as a prefix. The rename or link that publishes comes later, so it is in
//     the same or a later transaction, and if it survives, all before it does. Owner, mode, times
//     and attributes are such changes themselves. So is a clone of another file's data, which xfs
//     writes back first (generic_remap_file_range_prep).
//  3. A transaction counts when its commit is on stable storage. The commit is written with a flush
//     of the device's cache ahead, so data that had reached the device is stable then
//     (jbd2_journal_commit_transaction, fs/jbd2/commit.c; xlog_write_iclog, fs/xfs/xfs_log.c). So
//     data and journal must be on one device, and ext4 must wait with its commit record (no
//     journal_async_commit, which data=ordered excludes). Without barriers none of this holds, and
//     fsync gives no guarantee either.
//
// All other file systems get fsync:
//
//   - ext2; ext4 without a journal, with an external one, or with fast commits, a second log with
//     rules of its own
//   - xfs with a separate log or real-time device
//   - any with memory in place of blocks (dax)
//   - btrfs: its log tree holds what was synced, and not what was changed before
//   - those that have not been examined, and those whose type or options the host does not show
//
// An O_TMPFILE file saves making and removing a name, as in ovl_copy_up_tmpfile, and on ext4
// without a journal the writing of two more blocks (ext4_sync_parent). There a power cut may leave
// the new name before the file's link count is written. e2fsck, which is needed after each power
// cut there, then removes the name: the state before. btrfs does not log a file without a name
// (btrfs_log_inode_parent), so it is not trusted with that.
func trustIn(fs sys.FSInfo) trust {
	has := func(options ...string) bool {
		return slices.ContainsFunc(fs.Options, func(o string) bool {
			return slices.ContainsFunc(options, func(prefix string) bool { return strings.HasPrefix(o, prefix) })
		})
	}
	switch fs.Type {
	case "ext3", "ext4":
		// fc_debug_force is how fast commits show.
		return trust{ordered: fs.OwnJournal && has("data=ordered") && !has("fc_", "fast_commit", "dax"), tmpfile: true}
	case "xfs":
		return trust{ordered: !has("logdev=", "rtdev=", "dax"), tmpfile: true}
	}
	return trust{}
}

// learn finds out how far the file system of the staging area is trusted, and with which owner and
// mode objects are made in it. After an error nothing is assumed.
func (w *Work) learn() {
	fs, err := w.dir.FSInfo()
	if err != nil {
		return
	}
	in := trustIn(fs)
	if !in.tmpfile {
		return
	}
	const every = 0o777
	probe, err := w.dir.CreateTmpfile(every)
	if err != nil {
		return
	}
	defer probe.Close()
	w.trust = in
	// Before Linux 5.2 sync_file_range could skip pages, and a seccomp filter may refuse it.
	w.trust.ordered = in.ordered && host.LinuxAtLeast(5, 2) && probe.WriteBack() == nil
	var dir, made sys.Stat
	if w.dir.Ref().Stat(&dir) != nil || probe.Ref().Stat(&made) != nil {
		return
	}
	// A umask or a default ACL would show here. Only directories inherit set-group-id.
	w.uid, w.gid = made.Uid, made.Gid
	w.known = made.Mode&0o7777 == every && dir.Mode&unix.S_ISGID == 0
}

// Ordered reports whether the file system is trusted with the order of changes.
func (w *Work) Ordered() bool { return w.trust.ordered }

// syncs reports whether a copy is synced by fsync before it is published.
func (c *Copier) syncs() bool { return c.Sync && !c.Work.trust.ordered }

// makeDurable makes a power cut after the publication find the copy whole. Precondition: the copy
// is not changed between this call and the publication.
func (c *Copier) makeDurable(s *Staged) error {
	switch {
	case s.file != nil && (s.hasData || c.syncs()):
		return c.makeDataDurable(s.file)
	case c.syncs() && s.dir != nil:
		c.slow()
		return s.dir.Sync()
	}
	return nil
}

// makeDataDurable makes a power cut after a later change find the file with the data that has been
// written to it.
func (c *Copier) makeDataDurable(f *sys.File) error {
	switch {
	case c.syncs():
		c.slow()
		return f.Sync()
	case c.Sync:
		c.slow()
		return f.WriteBack()
	}
	return nil
}

func (c *Copier) slow() {
	if c.Slow != nil {
		c.Slow()
	}
}
