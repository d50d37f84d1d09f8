package ondisk

import (
	"encoding/hex"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// With index=on a lower's object with several links is copied up to an entry of the index, whose name is its handle, and the
// names that it gets in the upper are links of that. The attribute overlay.nlink of the copy says how many links the
// object has in all, those of names that only lowers have included (ovl_set_nlink_upper, ovl_get_nlink).

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

// LinkCount says how many links an object has: so many more than the copy in the upper, or than the object of the lower.
type LinkCount struct {
	OfLower bool
	Diff    int
}

// Encode gives the value of the attribute.
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

// maxLinkCount is the longest value that the kernel reads, one byte less than it has room for.
const maxLinkCount = 12

// ParseLinkCount reads the value of the attribute.
func ParseLinkCount(value []byte) (l LinkCount, ok bool) {
	if len(value) < 3 || len(value) > maxLinkCount || value[0] != 'U' && value[0] != 'L' || value[1] != '+' && value[1] != '-' {
		return LinkCount{}, false
	}
	diff, err := strconv.ParseInt(string(value[1:]), 10, 32)
	return LinkCount{OfLower: value[0] == 'L', Diff: int(diff)}, err == nil
}

// LinkCount reads how many links an object has; ok is false where its copy does not say.
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

// SetLinkCount says how many links an object has.
func (ns Namespace) SetLinkCount(r sys.Ref, l LinkCount) error {
	return r.SetXattr(ns.Name(Nlink), l.Encode(), 0)
}

// VerifyHandle reports whether the directory r says that it belongs to the one with this handle: the root of an upper to the root
// of its first lower, the index to the root of its upper. It is ESTALE that it belongs to another, and ENODATA that it
// does not say.
func (ns Namespace) VerifyHandle(r sys.Ref, to Handle) error {
	switch value, err := r.GetXattr(ns.handleXattr(to)); {
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

// SetHandle says that.
func (ns Namespace) SetHandle(r sys.Ref, to Handle) error {
	return r.SetXattr(ns.handleXattr(to), to.Encode(), 0)
}

func (ns Namespace) handleXattr(to Handle) string {
	if to.Upper {
		return ns.Name(Upper)
	}
	return ns.Name(Origin)
}
