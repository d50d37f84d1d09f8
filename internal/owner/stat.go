package owner

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// The text of an override_stat attribute is "uid:gid:mode[:type]": ids in decimal, permission bits
// in octal, and as type one of kinds, for devices followed by "-major-minor" in decimal. It is
// written by containers/storage (pkg/idtools, ContainersOverrideXattr), by fuse-overlayfs without
// the type, and by libkrun.
var kinds = []struct {
	name string
	mode uint32
}{
	{"file", unix.S_IFREG}, {"dir", unix.S_IFDIR}, {"symlink", unix.S_IFLNK}, {"pipe", unix.S_IFIFO},
	{"socket", unix.S_IFSOCK}, {"block", unix.S_IFBLK}, {"char", unix.S_IFCHR},
}

func isDevice(kind uint32) bool { return kind == unix.S_IFBLK || kind == unix.S_IFCHR }

// format writes owner, mode, type and device number of st.
func format(st *sys.Stat) []byte {
	text := fmt.Sprintf("%d:%d:0%o", st.Uid, st.Gid, st.Mode&0o7777)
	for _, k := range kinds {
		if k.mode != st.Mode&unix.S_IFMT {
			continue
		}
		text += ":" + k.name
		if isDevice(k.mode) {
			text += fmt.Sprintf("-%d-%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
		}
	}
	return []byte(text)
}

// parse writes what the attribute holds to st, which has the attributes of the inode. The type
// counts for a regular file alone, which may stand for an object of another type. EIO: the
// attribute is invalid, so the permissions are not known.
func parse(text []byte, st *sys.Stat) error {
	fields := strings.Split(strings.TrimRight(string(text), "\x00"), ":")
	if len(fields) != 3 && len(fields) != 4 {
		return unix.EIO
	}
	uid, err1 := strconv.ParseUint(fields[0], 10, 32)
	gid, err2 := strconv.ParseUint(fields[1], 10, 32)
	mode, err3 := strconv.ParseUint(fields[2], 8, 32)
	if err1 != nil || err2 != nil || err3 != nil {
		return unix.EIO
	}
	kind, rdev := st.Mode&unix.S_IFMT, st.Rdev
	if len(fields) == 4 && kind == unix.S_IFREG {
		var ok bool
		if kind, rdev, ok = parseKind(fields[3]); !ok {
			return unix.EIO
		}
	}
	if kind != st.Mode&unix.S_IFMT {
		st.Size, st.Blocks = 0, 0
	}
	st.Uid, st.Gid, st.Mode, st.Rdev = uint32(uid), uint32(gid), kind|uint32(mode)&0o7777, rdev
	return nil
}

// parseKind parses the type of an object whose inode is a regular file.
func parseKind(text string) (kind uint32, rdev uint64, ok bool) {
	name, numbers, numbered := strings.Cut(text, "-")
	for _, k := range kinds {
		if k.name == name {
			kind = k.mode
		}
	}
	if kind == 0 || kind == unix.S_IFDIR || kind == unix.S_IFLNK || numbered != isDevice(kind) {
		return 0, 0, false
	}
	if !numbered {
		return kind, 0, true
	}
	first, second, _ := strings.Cut(numbers, "-")
	major, err1 := strconv.ParseUint(first, 10, 32)
	minor, err2 := strconv.ParseUint(second, 10, 32)
	if err1 != nil || err2 != nil {
		return 0, 0, false
	}
	return kind, unix.Mkdev(uint32(major), uint32(minor)), true
}
