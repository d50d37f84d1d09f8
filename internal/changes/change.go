package changes

import (
	"strings"

	"github.com/fuse-overlay/fuse-overlay/internal/view"
)

// Kind is what happened to an object.
type Kind byte

// The kinds of changes. Their values are the letters of the output.
const (
	// Added: the lowers have nothing under the path.
	Added Kind = 'A'
	// Modified: the lowers have another object under the path, or one that differs.
	Modified Kind = 'M'
	// Deleted: the lowers have an object under the path, and the merged tree has none. A directory
	// stands for all that is below it.
	Deleted Kind = 'D'
	// Renamed: the object is one that the lowers have under another path, by a redirect.
	Renamed Kind = 'R'
	// Linked: the path is a further name of a file of the upper, and was none in the lowers.
	Linked Kind = 'H'
	// Unchanged: a file that equals that of the lowers, but lies in the upper. It is no change. It is
	// reported if it has several names, because these may be links of it, or with
	// [Comparison].Unchanged.
	Unchanged Kind = ' '
)

// Aspects are what differs between an object and the one that it is compared with.
type Aspects uint8

// The aspects, in the order of the output.
const (
	// Type: the object is of another type. Nothing else is compared then.
	Type Aspects = 1 << iota
	// Content is the data of a file, the target of a symbolic link, the number of a device.
	Content
	// Mode is the permission bits with suid, sgid and the sticky bit.
	Mode
	// Owner is the user or the group.
	Owner
	// Times is the time of the last modification.
	Times
	// Xattrs are the extended attributes that the mount shows, with POSIX ACLs.
	Xattrs
)

var aspectNames = [...]string{"type", "content", "mode", "owner", "times", "xattrs"}

// Names returns the names of the aspects.
func (a Aspects) Names() []string {
	var names []string
	for i, name := range aspectNames {
		if a&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return names
}

// String returns the names with commas between them.
func (a Aspects) String() string { return strings.Join(a.Names(), ",") }

// Change is one difference between the trees.
type Change struct {
	Kind Kind
	Path string // relative to the root; "." is the root
	// From is the path in the lowers of a Renamed object, or the first name of a Linked one.
	From string
	// WasPath is the path of Was in the lowers, or where it would be.
	WasPath string
	// Aspects are those of a Modified or Renamed object. They are 0 if there are no lowers to
	// compare with.
	Aspects Aspects
	// Now is the object in the merged tree; nil: Deleted, or the data lies in a lower that is not
	// known. Was is the object of the lowers that it was compared with; nil: none. Both are valid
	// during the call of [Visitor].
	Now, Was *view.Node
}

// Dir is a directory of the upper that is about to be walked through.
type Dir struct {
	Path string
	Now  *view.Node
	// Was is the directory of the lowers with which it merges or is compared; nil: none. WasPath is
	// its path there, or where it would be.
	Was     *view.Node
	WasPath string
	// Selected: the whole directory is to be reported, not only some paths below it.
	Selected bool
	// Replaces: a directory of the lowers has the same path, or may have if there are no lowers, and
	// nothing of it shows here.
	Replaces bool
	// Renamed: the directory shows what the lowers have under another path.
	Renamed bool
	// Unmarkable: a name is gone that is too long for a marker (".wh.NAME").
	Unmarkable bool
}

// Visitor receives what a walk finds, in the order of the tree: a directory before what is in it,
// and the names of a directory by their bytes. An error ends the walk.
type Visitor interface {
	// Change is called for each change.
	Change(*Change) error
	// Enter is called for each directory of the upper, after its own change. It returns whether to
	// walk through the directory.
	Enter(*Dir) (bool, error)
}
