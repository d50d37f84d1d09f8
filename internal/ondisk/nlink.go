package ondisk

import (
	"encoding/hex"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// With index=on a lower's object with several links is copied up to an entry of the index. The name
// of the entry is the object's handle, and the names of the object in the upper are links of it.
// The attribute overlay.nlink of the entry holds the link count of the object, which includes names
// that only lowers have (ovl_set_nlink_upper, ovl_get_nlink).

// maxName is NAME_MAX.
const maxName = 255

// IndexName returns the name of the index entry of the object with this handle; empty if the handle
// does not fit in a name.
func (h Handle) IndexName() string {
	name := hex.EncodeToString(h.Encode())
	if len(name) > maxName {
		return ""
	}
	return name
}

// ParseIndexName returns the handle in the name of an index entry. ok is false for any other name.
func ParseIndexName(name string) (h Handle, ok bool) {
	value, err := hex.DecodeString(name)
	if err != nil {
		return Handle{}, false
	}
	return ParseHandle(value)
}

// LinkCount is the link count of an object, relative to that of an inode.
type LinkCount struct {
	// OfLower: the inode is that of the object in its lower; otherwise that of the copy in the
	// index.
	OfLower bool
	// Diff is how many links the object has more than the inode; it may be negative.
	Diff int
}

// Encode returns the value of the attribute.
func (l LinkCount) Encode() []byte {
	value := []byte{'U'}
	if l.OfLower {
		value[0] = 'L'
	}
	if l.Diff >= 0 {
		value = append(value, '+')
	}
	return strconv.AppendInt(value, int64(l.Diff), 10)
}

// maxLinkCount is the longest value that the kernel reads, in bytes: one less than its buffer.
const maxLinkCount = 12

// ParseLinkCount reads the value of the attribute. ok is false for an invalid value.
func ParseLinkCount(value []byte) (l LinkCount, ok bool) {
	if len(value) < 3 || len(value) > maxLinkCount ||
		value[0] != 'U' && value[0] != 'L' || value[1] != '+' && value[1] != '-' {
		return LinkCount{}, false
	}
	diff, err := strconv.ParseInt(string(value[1:]), 10, 32)
	return LinkCount{OfLower: value[0] == 'L', Diff: int(diff)}, err == nil
}

// LinkCount returns the link count of an object whose copy is r. ok is false if the copy has no
// valid attribute.
func (ns Namespace) LinkCount(r sys.Ref) (l LinkCount, ok bool, err error) {
	value, err := r.GetXattr(ns.Name(Nlink))
	if err == unix.ENODATA {
		return LinkCount{}, false, nil
	}
	if err == nil {
		l, ok = ParseLinkCount(value)
	}
	return l, ok, err
}

// SetLinkCount writes the link count of an object whose copy is r.
func (ns Namespace) SetLinkCount(r sys.Ref, l LinkCount) error {
	return r.SetXattr(ns.Name(Nlink), l.Encode(), 0)
}
