package copyup

import (
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/host"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// trust is what a copy-up relies on the staging area's file system for. Only [trustIn] decides it.
type trust struct {
	// ordered: a copy-up waits for the writeback of a file's data and then publishes the file. After
	// that a power cut never leaves the name without the data. Of all changes of metadata, a power
	// cut undoes the last ones first.
	ordered bool
	// tmpfile: fsync works on an O_TMPFILE file without a name, and a link publishes it.
	tmpfile bool
}

// trustIn decides how far a file system is trusted to keep a copy-up whole over a power cut. If it
// is trusted with the order, a copy-up waits neither for a commit of the journal nor for a flush of
// the device's cache. fsync waits for both. A power cut may undo such a copy-up, but never leaves
// its name without the whole object. The claim has three parts.
//
//  1. When the writeback of a page ends, its data has reached the device. The change that makes it
//     part of the file is in a transaction by then: the file system has converted unwritten blocks
//     and logged the size. In ext4, ext4_end_bio defers to ext4_end_io_end, which converts the
//     blocks and then ends the writeback by ext4_finish_bio (fs/ext4/page-io.c). ext4 logs the size
//     when it submits the write (mpage_map_and_submit_extent, fs/ext4/inode.c). In xfs,
//     xfs_end_ioend converts the blocks or calls xfs_setfilesize, and then ends the writeback by
//     iomap_finish_ioends (fs/xfs/xfs_aops.c).
//  2. Transactions survive as a prefix. The rename or link that publishes comes later, so it is in
//     the same or a later transaction. If it survives, all changes before it survive. Owner, mode,
//     times and attributes are such changes themselves. So is a clone of another file's data, which
//     xfs writes back first (generic_remap_file_range_prep).
//  3. A transaction counts when its commit is on stable storage. The file system flushes the
//     device's cache before it writes the commit, so data that had reached the device is stable
//     then (jbd2_journal_commit_transaction, fs/jbd2/commit.c; xlog_write_iclog,
//     fs/xfs/xfs_log.c). So data and journal must be on one device. ext4 must not write its commit
//     record early (journal_async_commit, which data=ordered excludes). Without barriers none of
//     this holds, and fsync gives no guarantee either.
//
// All other file systems get fsync:
//
//   - ext2; ext4 without a journal, with an external one, or with fast commits: these are a second
//     log with rules of its own
//   - xfs with a separate log or real-time device
//   - any with memory in place of blocks (dax)
//   - btrfs: its log tree contains the synced changes, but not the changes before them
//   - those that the maintainers have not examined, and those whose type or options the host does
//     not show
//
// O_TMPFILE saves the calls that make and remove a name, as in ovl_copy_up_tmpfile. On ext4 without
// a journal it also saves two blocks that fsync writes (ext4_sync_parent). There a power cut may
// leave the new name on disk before the file's link count. Such a file system needs e2fsck after
// each power cut; e2fsck then removes the name, which is the state before. btrfs does not log a
// file without a name (btrfs_log_inode_parent), so it is not trusted with O_TMPFILE.
func trustIn(fs sys.FSInfo) trust {
	has := func(options ...string) bool {
		return slices.ContainsFunc(fs.Options, func(o string) bool {
			return slices.ContainsFunc(options, func(prefix string) bool { return strings.HasPrefix(o, prefix) })
		})
	}
	switch fs.Type {
	case "ext3", "ext4":
		// The options of a mount show fast commits as fc_debug_force.
		return trust{ordered: fs.OwnJournal && has("data=ordered") && !has("fc_", "fast_commit", "dax"), tmpfile: true}
	case "xfs":
		return trust{ordered: !has("logdev=", "rtdev=", "dax"), tmpfile: true}
	}
	return trust{}
}

// probe sets trust, and the owner and mode of objects made in the staging area. After an error the
// file system is not trusted and they are not known.
func (w *Work) probe() {
	fs, err := w.dir.FSInfo()
	if err != nil {
		return
	}
	in := trustIn(fs)
	if !in.tmpfile {
		return
	}
	const allBits = 0o777
	f, err := w.dir.CreateTmpfile(allBits)
	if err != nil {
		return
	}
	defer f.Close()
	w.trust = in
	// Before Linux 5.2 sync_file_range could skip pages. A seccomp filter may refuse the call.
	w.trust.ordered = in.ordered && host.LinuxAtLeast(5, 2) && f.WriteBack() == nil
	var dir, made sys.Stat
	if w.dir.Ref().Stat(&dir) != nil || f.Ref().Stat(&made) != nil {
		return
	}
	// A umask or a default ACL changes the mode of made. Only directories inherit set-group-id.
	w.uid, w.gid = made.Uid, made.Gid
	w.known = made.Mode&0o7777 == allBits && dir.Mode&unix.S_ISGID == 0
}

// Ordered reports whether the file system is trusted with the order of changes.
func (w *Work) Ordered() bool { return w.trust.ordered }

// syncs reports whether a copy-up calls fsync before it publishes the copy.
func (c *Copier) syncs() bool { return c.Sync && !c.Work.trust.ordered }

// makeDurable syncs the copy: a power cut after the publication then leaves it whole. Precondition:
// no call changes the copy between this call and the publication.
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

// makeDataDurable syncs the data of f. If a change that comes later survives a power cut, the data
// survives too.
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
