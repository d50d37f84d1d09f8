package sys

import (
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/host"
)

// KernelOverlay returns where the kernel's overlayfs is mounted with one of the directories as its
// upper or work directory, and i, which of them it is. Empty: this mount namespace, and the paths
// in its mount table, show no such mount. The kernel's own lock on the directories (I_OVL_INUSE) is
// not visible to processes.
func KernelOverlay(dirs ...*Dir) (point string, i int, err error) {
	table, err := readHost("/proc/self/mountinfo")
	if err == unix.ENOENT { // no /proc
		return "", 0, nil
	}
	if err != nil {
		return "", 0, err
	}
	var mounts []overlayMount
	for _, e := range host.ParseMountTable(table) {
		if m, ok := overlayOf(e); ok && m.isThere() {
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

// overlayMount is a mount of the kernel's overlayfs with an upper. The paths are those that the
// mounting process gave, in a namespace and a root directory that need not be those of this
// process.
type overlayMount struct {
	dev                uint64
	point, upper, work string
}

// overlayOf reads an entry of the mount table; ok is false for what is no overlay with an upper.
func overlayOf(e host.MountEntry) (m overlayMount, ok bool) {
	if e.Type != "overlay" {
		return m, false
	}
	m.dev, m.point = e.Dev, e.Point
	for option := range strings.SplitSeq(e.Options, ",") {
		switch name, value, _ := strings.Cut(option, "="); name {
		case "upperdir":
			m.upper = host.UnescapeOctal(value)
		case "workdir":
			m.work = host.UnescapeOctal(value)
		}
	}
	return m, filepath.IsAbs(m.upper) && filepath.IsAbs(m.work)
}

// isThere reports whether the paths lead to the parts of the mount: its root has the times of its
// upper.
func (m *overlayMount) isThere() bool {
	root, upper := lookAt(m.point), lookAt(m.upper)
	return root != nil && upper != nil && root.Ctime == upper.Ctime && root.Mtime == upper.Mtime &&
		unix.Mkdev(root.Dev_major, root.Dev_minor) == m.dev
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

// lookAt returns the attributes that the kernel has cached of a path, without a request to the
// server of a file system. nil: there is nothing.
func lookAt(path string) *unix.Statx_t {
	var st unix.Statx_t
	if unix.Statx(unix.AT_FDCWD, path, unix.AT_STATX_DONT_SYNC|unix.AT_NO_AUTOMOUNT, unix.STATX_BASIC_STATS, &st) != nil {
		return nil
	}
	return &st
}
