package check

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/copyup"
	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/whiteout"
)

// workLayer is the name of the work directory in findings.
const workLayer = "work"

// checkWork checks the work directory.
func (c *Checker) checkWork() ([]Finding, error) {
	r := report{layer: workLayer}
	inUse, err := c.InUse()
	if err != nil {
		return nil, err
	}
	var upper, st sys.Stat
	if err := c.root(0).Ref().Stat(&upper); err != nil {
		return nil, err
	}
	if err := c.work.Ref().Stat(&st); err != nil {
		return nil, err
	}
	if st.Dev != upper.Dev {
		r.add(OtherFileSystem, ".", "", nil)
	}
	names, err := namesIn(c.work)
	if err != nil {
		r.unreadable(".", err)
	}
	for _, name := range names {
		if !stack.KnownInWork(name) {
			r.add(ForeignInWork, name, "", nil)
		}
	}
	if staging := c.openInWork(&r, stack.StagingDir, &st); staging != nil {
		defer staging.Close()
		if inUse == "" {
			c.checkStaging(&r, staging)
		}
	}
	if index := c.openInWork(&r, stack.IndexDir, &st); index != nil {
		defer index.Close()
		c.checkIndex(&r, index, inUse != "")
	}
	return r.sorted(), nil
}

// openInWork opens a directory of the work directory, which has the attributes work, and checks
// which users can write to it. nil: there is none.
func (c *Checker) openInWork(r *report, name string, work *sys.Stat) *sys.Dir {
	var st sys.Stat
	if err := c.work.At(name).Stat(&st); err != nil {
		r.unreadable(name, err)
		return nil
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		r.add(NoDirInWork, name, "", nil)
		return nil
	}
	if st.Uid != 0 && st.Uid != work.Uid {
		text := fmt.Sprintf("give it to user %d, with mode 0700", work.Uid)
		r.add(WrongOwner, name, fmt.Sprintf("user %d", st.Uid), inWork(name, text, func(d sys.Ref) error {
			if err := d.Chown(work.Uid, work.Gid); err != nil {
				return err
			}
			return d.Chmod(0o700)
		}))
	} else if st.Mode&0o022 != 0 {
		r.add(WrongMode, name, fmt.Sprintf("mode %04o", st.Mode&0o7777), inWork(name, "give it mode 0700", func(d sys.Ref) error {
			return d.Chmod(0o700)
		}))
	}
	d, err := c.work.OpenDir(name)
	if err != nil {
		r.unreadable(name, err)
		return nil
	}
	return d
}

// inWork returns a repair of an entry of the work directory.
func inWork(name, text string, mend func(sys.Ref) error) *Repair {
	return &Repair{text, func(to *Writer) error { return mend(to.work.At(name)) }}
}

// checkStaging checks what a mount that has ended has left in the directory for staged objects.
func (c *Checker) checkStaging(r *report, staging *sys.Dir) {
	reason, err := copyup.Incompat(staging)
	incompat := path.Join(stack.StagingDir, copyup.IncompatDir)
	switch {
	case err != nil:
		r.unreadable(incompat, err)
	case reason == copyup.Volatile:
		r.add(VolatileMark, incompat, "if not, remove the directory", nil)
	case reason != "":
		r.add(UnknownFeature, path.Join(incompat, reason), "", nil)
	}
	names, err := namesIn(staging)
	if err != nil {
		r.unreadable(stack.StagingDir, err)
		return
	}
	names = slices.DeleteFunc(names, func(name string) bool { return name == copyup.IncompatDir })
	sweep := &Repair{"remove all that is left in " + stack.StagingDir, sweepStaging}
	if reason != "" || err != nil {
		sweep = nil // a sweep would remove the mark
	}
	c.leftovers(r, stack.StagingDir, staging, names, sweep)
}

// sweepStaging removes what is left, as a mount does.
func sweepStaging(to *Writer) error {
	staging, err := to.work.OpenDir(stack.StagingDir)
	if err != nil {
		return err
	}
	defer staging.Close()
	return copyup.OpenWork(staging).Sweep()
}

// leftovers reports objects that a mount has not removed. The kernel's overlayfs leaves the device
// of which its whiteouts are links, and fuse-overlayfs directories that were removed, under
// numbers.
func (c *Checker) leftovers(r *report, where string, d *sys.Dir, names []string, sweep *Repair) {
	for _, name := range names {
		var st sys.Stat
		if err := d.At(name).Stat(&st); err != nil {
			r.unreadable(path.Join(where, name), err)
			continue
		}
		if whiteout.IsDevice(&st) || !temporary(name) {
			r.add(Unswept, path.Join(where, name), "", nil)
			continue
		}
		r.add(Leftover, path.Join(where, name), "", sweep)
	}
}

// temporary reports whether a name is that of a staged object.
func temporary(name string) bool { return strings.HasPrefix(name, "#") }

// namesIn returns the names in a directory, sorted.
func namesIn(d *sys.Dir) (names []string, err error) {
	err = d.List(func(e sys.Dirent) error { names = append(names, e.Name); return nil })
	slices.Sort(names)
	return names, err
}
