package whiteout

import (
	"encoding/hex"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// With index=on a lower's object with several links is copied up to an entry of the index, whose name is its handle, and the
// names that it gets in the upper are links of that. The attribute overlay.nlink of the copy says how many links the
// object has in all, those of names that only lowers have included (ovl_set_nlink_upper, ovl_get_nlink).

const (
	linksMark = "nlink"
	upperMark = "upper"
)

// IndexName is the name of the index entry of a lower's object with this handle; empty where there can be none.
func (h Handle) IndexName() string {
	name := hex.EncodeToString(h.Encode())
	if len(name) > 255 {
		return ""
	}
	return name
}

// ParseIndexName reads the name of an index entry.
func ParseIndexName(name string) (h Handle, ok bool) {
	value, err := hex.DecodeString(name)
	if err != nil {
		return Handle{}, false
	}
	return ParseHandle(value)
}

// Links says how many links an object has: so many more than the copy in the upper, or than the object of the lower.
type Links struct {
	OfLower bool
	Diff    int
}

// Encode gives the value of the attribute.
func (l Links) Encode() []byte {
	value := []byte{'U'}
	if l.OfLower {
		value[0] = 'L'
	}
	if l.Diff >= 0 {
		value = append(value, '+')
	}
	return strconv.AppendInt(value, int64(l.Diff), 10)
}

// maxLinks is the longest value that the kernel reads, one byte less than it has room for.
const maxLinks = 12

// ParseLinks reads the value of the attribute.
func ParseLinks(value []byte) (l Links, ok bool) {
	if len(value) < 3 || len(value) > maxLinks || value[0] != 'U' && value[0] != 'L' || value[1] != '+' && value[1] != '-' {
		return Links{}, false
	}
	diff, err := strconv.ParseInt(string(value[1:]), 10, 32)
	return Links{OfLower: value[0] == 'L', Diff: int(diff)}, err == nil
}

// LinksXattr is the attribute that says how many links an object has. Precondition: OpaqueXattr is not empty.
func (f Format) LinksXattr() string { return f.Xattr(linksMark) }

// Links reads how many links an object has; ok is false where its copy does not say.
func (f Format) Links(r sys.Ref) (l Links, ok bool, err error) {
	value, err := r.GetXattr(f.LinksXattr())
	if err == unix.ENODATA {
		return Links{}, false, nil
	}
	if err == nil {
		l, ok = ParseLinks(value)
	}
	return l, ok, err
}

// SetLinks says how many links an object has.
func (f Format) SetLinks(r sys.Ref, l Links) error { return r.SetXattr(f.LinksXattr(), l.Encode(), 0) }

// Belongs reports whether the directory r says that it belongs to the one with this handle: the root of an upper to the root
// of its first lower, the index to the root of its upper. It is ESTALE that it belongs to another, and ENODATA that it
// does not say.
func (f Format) Belongs(r sys.Ref, to Handle) error {
	switch value, err := r.GetXattr(f.belongsXattr(to)); {
	case err != nil:
		return err
	case string(value) == string(to.Encode()):
		return nil
	default:
		if _, ok := ParseHandle(value); !ok {
			return unix.ENODATA
		}
		return unix.ESTALE
	}
}

// SetBelongs says that.
func (f Format) SetBelongs(r sys.Ref, to Handle) error {
	return r.SetXattr(f.belongsXattr(to), to.Encode(), 0)
}

func (f Format) belongsXattr(to Handle) string {
	if to.Upper {
		return f.Xattr(upperMark)
	}
	return f.Xattr(originMark)
}
