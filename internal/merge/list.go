package merge

import (
	"bytes"
	"encoding/gob"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// list is all that is done after the commit. All paths lie below the root of their layer.
type list struct {
	// Upper and Lower are the layers, by which a second call knows them again.
	Upper, Lower layer
	// Renames: objects of the upper are renamed.
	Renames bool
	// Staging is the directory of the lower in which the staging directory is, with the times that it
	// had; not with Renames.
	Staging string
	Times   times
	// Gathers, then Steps, then Late, then Dirs are done, each in its order.
	Gathers []gather
	Steps   []step
	Late    []late
	Dirs    []dress
	// UpperMode and UpperTimes are those of the root of the upper, which keeps them.
	UpperMode  uint32
	UpperTimes times
}

// layer identifies the root of a layer. It has no device number, which another start of the machine
// may change.
type layer struct {
	Ino  uint64
	UUID sys.UUID // of the file system; zero: not known
}

func layerOf(root *sys.Dir) (layer, error) {
	var st sys.Stat
	if err := root.Ref().Stat(&st); err != nil {
		return layer{}, err
	}
	uuid, err := root.FSUUID()
	return layer{st.Ino, uuid}, err
}

// is reports whether two descriptions can be of one layer.
func (l layer) is(other layer) bool {
	return l.Ino == other.Ino && (l.UUID == other.UUID || l.UUID == sys.UUID{} || other.UUID == sys.UUID{})
}

// object identifies an object of a layer; zero: none. As layer, it has no device number.
type object struct{ Ino uint64 }

func objectOf(st *sys.Stat) object { return object{st.Ino} }

type times struct{ Atime, Mtime unix.Timespec }

// gather moves an object of the lower to the staging directory, because it gets another place or
// other attributes.
type gather struct {
	From string
	Is   object
	To   string // its name in the staging directory
}

// step is the change of one name in the lower.
type step struct {
	Path string
	// From is what gets the name; its zero value: nothing does.
	From source
	// Dress are attributes that the object gets before; nil: it has them.
	Dress *attributes
	// Marks are for a directory, because of further lowers.
	Marks marks
	// Old is what the lower has under the name and loses, if From is zero.
	Old object
	// Whiteout: a further lower has the name.
	Whiteout bool
}

// marks are attributes of the overlay that a directory of the lower needs because of further
// lowers.
type marks struct {
	Opaque   bool
	Redirect string // empty: none
}

// source is an object that gets a name in the lower: one of the staging directory, or one of the
// upper.
type source struct {
	Staged string // its name in the staging directory
	Upper  string // its path in the upper, with Is
	Is     object
}

// late are inode flags that forbid changes, of a file that is in its place.
type late struct {
	Path  string
	Flags uint32
}

// dress gives a directory of the lower its attributes, after all changes in it.
type dress struct {
	Path       string
	Attributes attributes
}

// attributes are the attributes of an object in the merged tree.
type attributes struct {
	Mode     uint32 // with the type
	UID, GID uint32
	Rdev     uint64
	Times    times
	Xattrs   map[string]string // as the mount shows them
	Flags    uint32            // of the inode
}

// header begins a list on disk, with the version of its form.
const header = "fuse-overlay merge 1\n"

var errOtherVersion = errors.New("another version of this program has begun a merge: complete it with that one")

func (l *list) encode() ([]byte, error) {
	b := bytes.NewBufferString(header)
	err := gob.NewEncoder(b).Encode(l)
	return b.Bytes(), err
}

func decode(text []byte) (*list, error) {
	body, ok := bytes.CutPrefix(text, []byte(header))
	if !ok {
		return nil, errOtherVersion
	}
	l := &list{}
	if err := gob.NewDecoder(bytes.NewReader(body)).Decode(l); err != nil {
		return nil, fmt.Errorf("cannot read the list of a merge that was begun: %w", err)
	}
	return l, nil
}
