package sys

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// KernelOverlay is where the kernel's overlayfs is mounted with one of these directories as its upper or work directory, as far as
// this mount namespace and the paths in its table show it; i is which of them. Empty: nothing is known of such a mount. The
// kernel's own lock on them (I_OVL_INUSE) cannot be asked for.
func KernelOverlay(dirs ...*Dir) (point string, i int, err error) {
	table, err := readHost("/proc/self/mountinfo")
	if err == unix.ENOENT { // no /proc
		return "", 0, nil
	}
	if err != nil {
		return "", 0, err
	}
	var mounts []overlayMount
	for line := range strings.Lines(table) {
		if m, ok := parseOverlay(line); ok && m.isThere() {
			mounts = append(mounts, m)
		}
	}
	if len(mounts) == 0 {
		return "", 0, nil
	}
	for i, d := range dirs {
		var st Stat
		if err := d.Ref().Stat(&st); err != nil {
			return "", 0, err
		}
		for _, m := range mounts {
			if m.uses(&st) {
				return m.point, i, nil
			}
		}
	}
	return "", 0, nil
}

// overlayMount is a line of the table: the paths are those that whoever mounted it has typed, in a namespace and a root directory
// that need not be ours.
type overlayMount struct {
	dev                string // major:minor
	point, upper, work string
}

// parseOverlay reads a line of a mountinfo file (proc_pid_mountinfo(5)); ok is false for what is no overlay with an upper.
func parseOverlay(line string) (m overlayMount, ok bool) {
	mount, super, _ := strings.Cut(line, " - ")
	fields, rest := strings.Fields(mount), strings.Fields(super)
	if len(fields) < 5 || len(rest) < 3 || rest[0] != "overlay" {
		return m, false
	}
	m.dev, m.point = fields[2], unescapeOctal(fields[4])
	for option := range strings.SplitSeq(rest[2], ",") {
		switch name, value, _ := strings.Cut(option, "="); name {
		case "upperdir":
			m.upper = unescapeOctal(value)
		case "workdir":
			m.work = unescapeOctal(value)
		}
	}
	return m, filepath.IsAbs(m.upper) && filepath.IsAbs(m.work)
}

// unescapeOctal undoes what the kernel does to blanks, commas and the like (seq_escape).
func unescapeOctal(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// isThere reports whether the paths lead to what the mount is made of: its root has the times of its upper.
func (m *overlayMount) isThere() bool {
	root, upper := lookAt(m.point), lookAt(m.upper)
	return root != nil && upper != nil && root.Ctime == upper.Ctime && root.Mtime == upper.Mtime &&
		fmt.Sprintf("%d:%d", root.Dev_major, root.Dev_minor) == m.dev
}

func (m *overlayMount) uses(st *Stat) bool {
	for _, path := range []string{m.upper, m.work} {
		at := lookAt(path)
		if at != nil && at.Ino == st.Ino && unix.Mkdev(at.Dev_major, at.Dev_minor) == st.Dev {
			return true
		}
	}
	return false
}

// lookAt is what the kernel knows of a path of the host without asking anybody; nil where it leads nowhere.
func lookAt(path string) *unix.Statx_t {
	var st unix.Statx_t
	if unix.Statx(unix.AT_FDCWD, path, unix.AT_STATX_DONT_SYNC|unix.AT_NO_AUTOMOUNT, unix.STATX_BASIC_STATS, &st) != nil {
		return nil
	}
	return &st
}
