package copyup

import (
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/host"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// trust is what the staging area's file system is relied on for. It is decided once, by [trustIn], and nowhere else.
type trust struct {
	// ordered: who waits for the write-back of a file's data and then publishes the file has them in this order after a
	// power cut as well, and all changes of metadata in the order in which they were made.
	ordered bool
	// nameless: a file that never had a name may be synced and published by a link.
	nameless bool
}

// trustIn says how far a file system is trusted to keep a copy-up whole over a power cut. Where it is trusted with the
// order, a copy-up need not wait until a journal has been committed and the device's cache flushed, as fsync does: it may
// be lost, but its name never shows without the whole of it. The claim has three parts.
//
//  1. When the write-back of a page is over, its data has reached the device, and the change that makes it part of the file
//     is in a transaction: blocks that were unwritten are converted, the size is logged. ext4 ends the write-back of a page
//     after that (ext4_end_bio defers to ext4_end_io_end, which converts and then calls ext4_finish_bio, fs/ext4/page-io.c;
//     the size is logged when the write is submitted, mpage_map_and_submit_extent, fs/ext4/inode.c), and so does xfs
//     (xfs_end_ioend converts or calls xfs_setfilesize, then iomap_finish_ioends, fs/xfs/xfs_aops.c).
//  2. Transactions survive as a prefix. The rename or link that publishes comes later, so it is in the same or a later
//     transaction, and what survives it has all before it. Owner, mode, times and attributes are such changes themselves,
//     and so is a clone of another file's data (xfs writes that back first: generic_remap_file_range_prep).
//  3. A transaction counts only when its commit is on stable storage, which is written with a flush of the device's cache
//     ahead: data that had reached the device is stable then (jbd2_journal_commit_transaction, fs/jbd2/commit.c;
//     xlog_write_iclog, fs/xfs/xfs_log.c). So data and journal must be on one device, and ext4 must wait with its commit
//     record (no journal_async_commit, which data=ordered excludes). Without barriers nothing of this holds, nor does it
//     for fsync.
//
// Everything else is not trusted with the order and gets fsync: ext2, ext4 without a journal, with an external one, with
// fast commits (a second log, of its own rules); xfs with a log or real-time device of its own; memory in place of blocks
// (dax); btrfs, whose log tree holds what was synced and not what was before it; file systems nobody has looked at; and
// any where the host does not show what it is.
//
// A nameless file saves making and removing a name, and on ext4 without a journal the writing of two more blocks
// (ext4_sync_parent), as in ovl_copy_up_tmpfile. There a power cut may leave the new name before the file's link count is
// written, which e2fsck, needed after each power cut there, mends by removing the name: the old state. It is not for all:
// btrfs does not even log what has no name (btrfs_log_inode_parent), so syncing it would mean little.
func trustIn(fs sys.FileSystem) trust {
	has := func(options ...string) bool {
		return slices.ContainsFunc(fs.Options, func(o string) bool {
			return slices.ContainsFunc(options, func(prefix string) bool { return strings.HasPrefix(o, prefix) })
		})
	}
	switch fs.Type {
	case "ext3", "ext4":
		// fc_debug_force is how fast commits show.
		return trust{ordered: fs.OwnJournal && has("data=ordered") && !has("fc_", "fast_commit", "dax"), nameless: true}
	case "xfs":
		return trust{ordered: !has("logdev=", "rtdev=", "dax"), nameless: true}
	}
	return trust{}
}

// learn finds out what the file system of the staging area is trusted with and what an object made in it begins with. What
// cannot be found out is not used.
func (w *Work) learn() {
	fs, err := w.dir.FileSystem()
	if err != nil {
		return
	}
	in := trustIn(fs)
	if !in.nameless {
		return
	}
	const every = 0o777
	probe, err := w.dir.CreateTmpfile(every)
	if err != nil {
		return
	}
	defer probe.Close()
	w.trust = in
	// Until Linux 5.2 sync_file_range could pass over pages; and a seccomp filter may not know it.
	w.trust.ordered = in.ordered && host.LinuxAtLeast(5, 2) && probe.WriteBack() == nil
	var dir, made sys.Stat
	if w.dir.Ref().Stat(&dir) != nil || probe.Ref().Stat(&made) != nil {
		return
	}
	// A umask or a default ACL shows here; set-group-id is handed down to directories only.
	w.uid, w.gid = made.Uid, made.Gid
	w.known = made.Mode&0o7777 == every && dir.Mode&unix.S_ISGID == 0
}

// Ordered reports whether the file system is trusted with the order of changes.
func (w *Work) Ordered() bool { return w.trust.ordered }

// syncs says whether a copy is made durable by fsync.
func (c *Copier) syncs() bool { return c.Sync && !c.Work.trust.ordered }

// makeDurable sees to it that a power cut after the publication finds the copy whole. Precondition: nothing is changed
// between this and the publication.
func (c *Copier) makeDurable(s *Staged) error {
	switch {
	case s.file != nil:
		return c.settle(s.file, s.hasData)
	case c.syncs() && s.dir != nil:
		c.slow()
		return s.dir.Sync()
	}
	return nil
}

// settle sees to it that a power cut after a later change finds the file with all that has been done to it.
func (c *Copier) settle(f *sys.File, hasData bool) error {
	switch {
	case c.syncs():
		c.slow()
		return f.Sync()
	case c.Sync && hasData:
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
