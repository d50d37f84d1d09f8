package host

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Place is where a mount was made.
type Place struct {
	// Namespace is the inode number of the mount namespace.
	Namespace uint64
	// Mount is the entry of its table.
	Mount MountEntry
}

// PlaceOf returns the topmost mount at point in the namespace. ENOENT: nothing is mounted there.
func (n *MountNamespace) PlaceOf(point string) (p Place, err error) {
	table, err := n.Mounts()
	if err != nil {
		return p, err
	}
	for _, m := range table {
		if m.Point == point {
			p = Place{n.ID(), m}
		}
	}
	if p.Mount.Dev == 0 {
		return p, unix.ENOENT
	}
	return p, nil
}

// Visit calls f in the namespace of the place, at its root, with its mount table. It enters the
// namespace by way of a process in it. found is false if this process may see no such process; then
// no process reaches the mount by a path.
func (p Place) Visit(f func(mounts []MountEntry) error) (found bool, err error) {
	if p.Namespace == Namespace("mnt") {
		return true, visit(f)
	}
	n, err := p.open()
	if n == nil {
		return false, err
	}
	defer n.Close()
	return true, n.Do(func() error { return visit(f) })
}

func visit(f func(mounts []MountEntry) error) error {
	table, err := MountTable()
	if err != nil {
		return err
	}
	return f(table)
}

// open opens the namespace by way of a process in it, without its root and working directory. nil:
// there is no such process.
func (p Place) open() (*MountNamespace, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err != nil {
			continue
		}
		path := "/proc/" + e.Name() + "/ns/mnt"
		var st unix.Stat_t
		if unix.Stat(path, &st) != nil || st.Ino != p.Namespace {
			continue
		}
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			continue
		}
		n := &MountNamespace{fd, -1, -1}
		if n.ID() == p.Namespace { // meanwhile the number may belong to another process
			return n, nil
		}
		n.Close()
	}
	return nil, nil //nolint:nilnil // no process, no error
}

// InSight reports whether the namespace still has a mount of the file system.
func (p Place) InSight() (bool, error) {
	shown := false
	_, err := p.Visit(func(mounts []MountEntry) error {
		for _, m := range mounts {
			shown = shown || m.Dev == p.Mount.Dev && m.Type == p.Mount.Type
		}
		return nil
	})
	return shown, err
}

// Point returns where the mount is in a mount table of its namespace. Empty: it is not there.
func (p Place) Point(mounts []MountEntry) string {
	for _, m := range mounts {
		if m.Dev == p.Mount.Dev && m.ID == p.Mount.ID && m.Type == p.Mount.Type {
			return m.Point
		}
	}
	return ""
}
