package copyup

import (
	"cmp"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/ondisk"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// Complete copies the data of from into to, a copy that was published as a [Hole]. With [First] the
// file has at most that size afterwards, and a new mtime if that is another size. Owner, mode,
// other times and attributes stay unchanged.
//
// Complete removes the attribute metacopy last. While a file has it, readers take the data from
// another file. So they see the whole data at any time, after an error too.
//
// Preconditions: to is open for writing, and no other call changes it.
func (c *Copier) Complete(to, from *sys.File, amount Amount, metacopy string) error {
	var before, st sys.Stat
	if err := to.Ref().Stat(&before); err != nil {
		return err
	}
	if err := from.Ref().Stat(&st); err != nil {
		return err
	}
	caps, err := to.Ref().GetXattr(ondisk.Capability) // a write clears them
	if err != nil && err != unix.ENODATA && err != unix.EOPNOTSUPP {
		return err
	}
	err = c.completeData(to, from, &before, &st, amount)
	if amount.Of(before.Size) != before.Size {
		before.Mtim = unchangedTime
	}
	if errRestore := restore(to, &before, caps); err == nil { // after an error too
		err = errRestore
	}
	if err == nil {
		err = c.makeDataDurable(to)
	}
	if err != nil {
		return err
	}
	err = to.Ref().RemoveXattr(metacopy)
	if err == unix.EACCES {
		err = removeXattrOfReadOnly(to, metacopy, before.Mode&0o7777)
	}
	return err
}

// removeXattrOfReadOnly removes an attribute of a file that its owner may not write to. The daemon
// has no more rights than the owner, so it adds the permission for the call. If the daemon is
// killed in between, the owner keeps the permission.
func removeXattrOfReadOnly(to *sys.File, name string, mode uint32) error {
	if err := to.Ref().Chmod(mode | 0o200); err != nil {
		return unix.EACCES
	}
	err := to.Ref().RemoveXattr(name)
	return cmp.Or(err, to.Ref().Chmod(mode))
}

// completeData copies the data and truncates to to its final size. before and st are the attributes
// of to and from.
func (c *Copier) completeData(to, from *sys.File, before, st *sys.Stat, amount Amount) error {
	final := amount.Of(before.Size)
	if final > 0 {
		if _, err := c.fill(to, from, st, min(final, st.Size)); err != nil {
			return err
		}
	}
	var now sys.Stat
	if err := to.Ref().Stat(&now); err != nil || now.Size == final {
		return err
	}
	// Complete has not removed the attribute yet: readers of the other file stop at this size too.
	return to.Truncate(final)
}

// restore sets the mode, the capabilities and the times again: writes to the file have changed
// them. It returns the first error, and tries the other calls nevertheless.
func restore(to *sys.File, before *sys.Stat, caps []byte) (err error) {
	if before.Mode&(unix.S_ISUID|unix.S_ISGID) != 0 {
		err = to.Ref().Chmod(before.Mode & 0o7777)
	}
	if len(caps) > 0 {
		err = cmp.Or(err, to.Ref().SetXattr(ondisk.Capability, caps, 0))
	}
	return cmp.Or(err, to.Ref().Utimes(before.Atim, before.Mtim))
}
