package fs

import (
	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/internal/host"
)

// The kernel copies the entries that it returns from a listing. A listing whose offset is that of
// the last entry in the copy adds to it. The empty reply at the end makes the copy complete. From
// then on the kernel continues every listing from it whose offset is in it. A complete copy lasts
// until a listing begins after a change of the directory. Two kinds of copies must not be used:
//
//   - Names came or went after the first listing began that added to the copy. The copy may lack
//     a name that came back, or have one that is gone, for a listing that began in the meantime.
//   - The copy ends with a page. If the kernel does not find an offset in such a copy, it takes
//     this for the end of the listing (fuse_readdir_cached).
//
// The daemon drops the pages of such a copy before the reply that completes it. The kernel notices
// the loss at the next use, and requests the listing anew.

// keepsListings reports whether the kernel makes copies of listings.
func (o *Overlay) keepsListings() bool { return !o.cfg.LayersChange && !o.policy.StrictAtime }

// beginLocked returns the end of a listing that begins now. The kernel may complete a copy only
// now, whose last reply was sent before: this listing could have other offsets. Preconditions:
// n.dir.mu is held, n is listed.
func (l *listing) beginLocked() (end uint64) {
	dir := l.n.dir
	l.dropCopy, dir.copyFillsPage = dir.copyFillsPage, false
	return dir.Begin()
}

// endLocked decides about the copy that the kernel completes with this reply. Preconditions:
// n.dir.mu is held, n is listed.
func (l *listing) endLocked(end uint64) {
	if !l.o.keepsListings() {
		return
	}
	dir := l.n.dir
	switch unchanged := dir.End(end); {
	case !unchanged:
		l.dropCopy = true
	case fillsPage(&dir.Dir, end):
		l.dropCopy = dir.EndsDiffer()
		dir.copyFillsPage = !l.dropCopy
	}
}

// fillsPage reports whether the copy of a listing with that end ends with a page. Precondition: the
// directory is listed.
func fillsPage(d *stack.Dir, end uint64) bool {
	var size copySize
	size.add(len("."))
	size.add(len(".."))
	d.List(placeDotDot, end, func(e *stack.Listed) bool {
		size.add(len(e.Name))
		return true
	})
	return size%copySize(host.PageSize()) == 0
}

// copySize is the size of the kernel's copy of a listing, in bytes. No entry lies in two pages
// (fuse_add_dirent_to_cache).
type copySize int

// add adds an entry whose name has that length.
func (c *copySize) add(name int) {
	page, size := copySize(host.PageSize()), copySize(direntSize+(name+7)&^7)
	if rest := *c % page; rest+size > page {
		*c += page - rest
	}
	*c += size
}
