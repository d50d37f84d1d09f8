package copyup

import (
	"cmp"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// Complete gives a copy that was published as a [Hole] the data of the file from. size is that of [Data]: the file has exactly
// so many bytes afterwards, unless it had less; [Whole] is all. Owner, mode, times and attributes stay what they were. The
// attribute marker, which says that the data is elsewhere, goes last: until then the file is what it was to everybody who
// knows it, and after an error too.
//
// Preconditions: to is open for writing; nobody else changes it.
func (c *Copier) Complete(to, from *sys.File, size int64, marker string) error {
	var before, st sys.Stat
	if err := to.Ref().Stat(&before); err != nil {
		return err
	}
	if err := from.Ref().Stat(&st); err != nil {
		return err
	}
	caps, err := to.Ref().GetXattr(capability) // which writing clears
	if err != nil && err != unix.ENODATA && err != unix.EOPNOTSUPP {
		return err
	}
	err = c.fillIn(to, from, &before, &st, size)
	if back := restore(to, &before, caps); err == nil { // after an error too
		err = back
	}
	if err == nil {
		err = c.settle(to, true)
	}
	if err != nil {
		return err
	}
	err = to.Ref().RemoveXattr(marker)
	if err == unix.EACCES {
		err = removeStubborn(to, marker, before.Mode&0o7777)
	}
	return err
}

// removeStubborn removes an attribute of a file that its owner may not write to, where the daemon has no more rights than he. A kill
// between the calls leaves the owner the right to write.
func removeStubborn(to *sys.File, name string, mode uint32) error {
	if err := to.Ref().Chmod(mode | 0o200); err != nil {
		return unix.EACCES
	}
	err := to.Ref().RemoveXattr(name)
	return cmp.Or(err, to.Ref().Chmod(mode))
}

// fillIn copies the data and cuts the file to its size. before and st are the attributes of the two files.
func (c *Copier) fillIn(to, from *sys.File, before, st *sys.Stat, size int64) error {
	final := before.Size
	if size >= 0 {
		final = min(final, size)
	}
	if final > 0 {
		if _, err := c.fill(to, from, st, min(final, st.Size)); err != nil {
			return err
		}
	}
	var now sys.Stat
	if err := to.Ref().Stat(&now); err != nil || now.Size == final {
		return err
	}
	return to.Truncate(final) // before the marker goes: whoever reads the data from elsewhere until then reads as much
}

// restore gives a file back what writing to it has changed, as much of it as it can.
func restore(to *sys.File, before *sys.Stat, caps []byte) (err error) {
	if before.Mode&(unix.S_ISUID|unix.S_ISGID) != 0 {
		err = to.Ref().Chmod(before.Mode & 0o7777)
	}
	if len(caps) > 0 {
		err = cmp.Or(err, to.Ref().SetXattr(capability, caps, 0))
	}
	return cmp.Or(err, to.Ref().Utimes(before.Atim, before.Mtim))
}
