package changes

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/quote"
)

// everywhere walks through all directories.
type everywhere struct{}

func (everywhere) Enter(*Dir) (bool, error) { return true, nil }

// Lines is a [Visitor] that writes one line for each change: the kind, a space and the path, then
// after a tab each the old path of a Renamed or the first name of a Linked object, and the aspects.
// Paths are quoted as git does it.
type Lines struct {
	everywhere
	W io.Writer
}

// Change writes a line.
func (l *Lines) Change(c *Change) error {
	if c.Kind == Unchanged {
		return nil
	}
	line := string(c.Kind) + " " + quote.Path(c.Path)
	if c.From != "" {
		line += "\t" + quote.Path(c.From)
	}
	if c.Aspects != 0 {
		line += "\t" + c.Aspects.String()
	}
	_, err := io.WriteString(l.W, line+"\n")
	return err
}

// Names is a [Visitor] that writes the path of each change in a line of its own.
type Names struct {
	everywhere
	W io.Writer
}

// Change writes a line.
func (n *Names) Change(c *Change) error {
	if c.Kind == Unchanged {
		return nil
	}
	_, err := io.WriteString(n.W, quote.Path(c.Path)+"\n")
	return err
}

// JSON is a [Visitor] that writes one JSON object a line for each change. The fields are those of
// the type record.
type JSON struct {
	everywhere
	W io.Writer
}

// record is a line of [JSON].
type record struct {
	Kind    string   `json:"kind"`
	Path    string   `json:"path"`
	From    string   `json:"from,omitempty"`
	Changed []string `json:"changed,omitempty"`
	Type    string   `json:"type,omitempty"` // of the object as it is now, or was if it is deleted
	Size    *int64   `json:"size,omitempty"` // in bytes, of a regular file
	// PathBytes and FromBytes are the paths in base64 if they are not UTF-8.
	PathBytes string `json:"path_bytes,omitempty"`
	FromBytes string `json:"from_bytes,omitempty"`
}

var typeNames = map[uint32]string{
	unix.S_IFREG: "file", unix.S_IFDIR: "directory", unix.S_IFLNK: "symlink", unix.S_IFIFO: "fifo",
	unix.S_IFSOCK: "socket", unix.S_IFCHR: "character device", unix.S_IFBLK: "block device",
}

// Change writes a line.
func (j *JSON) Change(c *Change) error {
	if c.Kind == Unchanged {
		return nil
	}
	r := record{
		Kind: string(c.Kind), Path: c.Path, From: c.From, Changed: c.Aspects.Names(),
		PathBytes: bytesOf(c.Path), FromBytes: bytesOf(c.From),
	}
	object := c.Now
	if c.Kind == Deleted {
		object = c.Was
	}
	if object != nil {
		r.Type = typeNames[object.Type()]
	}
	if object.IsRegular() {
		r.Size = &object.Size
	}
	line, err := json.Marshal(&r)
	if err == nil {
		_, err = j.W.Write(append(line, '\n'))
	}
	return err
}

func bytesOf(path string) string {
	if utf8.ValidString(path) {
		return ""
	}
	return base64.StdEncoding.EncodeToString([]byte(path))
}

// Summary is a [Visitor] that counts changes.
type Summary struct {
	everywhere
	counts map[Kind]int
	bytes  map[Kind]int64
}

// Change counts a change.
func (s *Summary) Change(c *Change) error {
	if s.counts == nil {
		s.counts, s.bytes = map[Kind]int{}, map[Kind]int64{}
	}
	s.counts[c.Kind]++
	if c.Now.IsRegular() && (c.Kind == Added || c.Aspects&(Content|Type) != 0) {
		s.bytes[c.Kind] += c.Now.Size
	}
	return nil
}

// Write writes a line for each kind: how many objects there are, and for those with new data the
// bytes of their data. Holes count.
func (s *Summary) Write(w io.Writer) error {
	for _, row := range []struct {
		kind Kind
		name string
		data bool
	}{
		{Added, "added", true}, {Modified, "modified", true}, {Deleted, "deleted", false},
		{Renamed, "renamed", false}, {Linked, "linked", false},
	} {
		line := fmt.Sprintf("%-8s %8d", row.name, s.counts[row.kind])
		if row.data {
			line += fmt.Sprintf(" %14d bytes", s.bytes[row.kind])
		}
		if _, err := io.WriteString(w, line+"\n"); err != nil {
			return err
		}
	}
	return nil
}
