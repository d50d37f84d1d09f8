package sys

import "golang.org/x/sys/unix"

// InheritedDir is an open [Dir] as the next process of a mount inherits it.
type InheritedDir struct {
	// FD is the descriptor, Clone that of the cloned mount. Below 0: none.
	FD, Clone                   int
	Quiet, SearchOnly, OneMount bool
}

// Inheritable returns what the next process needs for [InheritDir].
func (d *Dir) Inheritable() InheritedDir {
	i := InheritedDir{FD: d.fd, Clone: -1, Quiet: d.quiet, SearchOnly: d.searchOnly, OneMount: d.oneMount}
	if d.clone != nil {
		i.Clone = d.clone.fd
	}
	return i
}

// InheritDir takes over a directory that a process before this one has opened. The locks of its
// open file stay.
func InheritDir(i InheritedDir) *Dir {
	tryOpenat2(i.FD)
	d := &Dir{Object: Object{i.FD}, quiet: i.Quiet, searchOnly: i.SearchOnly, oneMount: i.OneMount}
	unix.CloseOnExec(i.FD)
	if i.Clone >= 0 {
		unix.CloseOnExec(i.Clone)
		d.clone = &Object{i.Clone}
	}
	return d
}

// FD returns the descriptor, for a process that inherits it.
func (o *Object) FD() int { return o.fd }

// InheritObject takes over an object that a process before this one has opened.
func InheritObject(fd int) *Object {
	unix.CloseOnExec(fd)
	return &Object{fd}
}
