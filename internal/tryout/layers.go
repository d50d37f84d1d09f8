package tryout

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/host"
	"github.com/fuse-overlay/fuse-overlay/internal/mounts"
	"github.com/fuse-overlay/fuse-overlay/internal/ondisk"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// Layer is an overlay over one mount of the system.
type Layer struct {
	Point       string // of the mount
	Upper, Work string

	merged string
}

// kept are directories of the kernel, of devices and of the sockets by which a command reaches
// running services. They are used as they are, with all mounts below them.
var kept = []string{"/proc", "/sys", "/dev", "/run"}

// noData are the types of file systems that show the kernel or a service and store nothing.
var noData = []string{
	"autofs", "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts", "devtmpfs", "efivarfs",
	"fusectl", "hugetlbfs", "mqueue", "nsfs", "proc", "pstore", "rpc_pipefs", "securityfs", "sysfs", "tracefs",
}

// plan returns the mounts of the new root in order. overlay is true for those that get an overlay;
// the root does, and is not in the list.
func plan() (points []host.RootMount, overlay []bool, err error) {
	table, err := host.MountTable()
	if err != nil {
		return nil, nil, fmt.Errorf("cannot read the mount table: %w; is /proc mounted?", err)
	}
	for _, dir := range kept {
		if _, err := os.Stat(dir); err == nil {
			points, overlay = append(points, host.RootMount{From: dir, To: dir}), append(overlay, false)
		}
	}
	slices.SortStableFunc(table, func(a, b host.MountEntry) int { return strings.Compare(a.Point, b.Point) })
	for _, m := range table {
		if m.Point == "/" || isKept(m.Point) || !onTop(m) {
			continue
		}
		entry := host.RootMount{From: m.Point, To: m.Point}
		info, err := os.Stat(m.Point)
		switch {
		case err != nil:
			continue // not to be seen by this user, or a FUSE server that has gone
		case slices.Contains(noData, m.Type):
			points, overlay = append(points, entry), append(overlay, false)
		case m.ReadOnly, !info.IsDir():
			entry.ReadOnly = true
			points, overlay = append(points, entry), append(overlay, false)
		default:
			points, overlay = append(points, entry), append(overlay, true)
		}
	}
	return points, overlay, nil
}

func isKept(point string) bool {
	return slices.ContainsFunc(kept, func(dir string) bool { return host.Below(point, dir) })
}

// onTop reports whether the path of a mount leads to it, and not to one that covers it.
func onTop(m host.MountEntry) bool {
	p, err := host.OpenPoint(m.Point)
	if err != nil {
		return false
	}
	defer p.Close()
	id, err := p.MountID()
	return err == nil && id == m.ID
}

// mount makes the upper of a layer in a directory and mounts the overlay.
func (l *Layer) mount(program, dir string, ownersInXattrs bool) error {
	l.Upper, l.Work, l.merged = dir+"/upper", dir+"/work", dir+"/merged"
	for _, path := range []string{dir, l.Upper, l.Work, l.merged} {
		if err := os.Mkdir(path, 0o700); err != nil {
			return err
		}
	}
	if err := l.dressRoot(ownersInXattrs); err != nil {
		return fmt.Errorf("cannot give the upper of %q its owner: %w; is TMPDIR on a file system with xattrs?", l.Point, err)
	}
	options, err := host.MountFlags(l.Point)
	if err != nil {
		return err
	}
	if ownersInXattrs {
		options = append(options, "xattr_permissions=2")
	}
	escape := strings.NewReplacer(`\`, `\\`, `:`, `\:`, `,`, `\,`)
	options = append(options, "lowerdir="+escape.Replace(l.Point), "upperdir="+escape.Replace(l.Upper), "workdir="+escape.Replace(l.Work))
	out, err := exec.Command(program, "mount", "-o", strings.Join(options, ","), l.merged).CombinedOutput()
	if err != nil {
		return fmt.Errorf("cannot mount an overlay over %q: %w: %s", l.Point, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// dressRoot gives the root of the upper the owner, mode and times of the mount's: it is the root
// that the overlay shows.
func (l *Layer) dressRoot(ownersInXattrs bool) error {
	lower, _, err := sys.OpenLower(l.Point)
	if err != nil {
		return err
	}
	defer lower.Close()
	var st sys.Stat
	if err := lower.Ref().Stat(&st); err != nil {
		return err
	}
	upper, work, err := sys.OpenUpper(l.Upper, l.Work, 0)
	if err != nil {
		return err
	}
	defer work.Close()
	defer upper.Close()
	if ownersInXattrs {
		value := fmt.Sprintf("%d:%d:%04o:dir", st.Uid, st.Gid, st.Mode&0o7777)
		err = upper.Ref().SetXattr(ondisk.OverrideContainers, []byte(value), 0)
	} else {
		err = errors.Join(upper.Ref().Chown(st.Uid, st.Gid), upper.Ref().Chmod(st.Mode&0o7777))
	}
	return errors.Join(err, upper.Ref().Utimes(st.Atim, st.Mtim))
}

// unmountTime is how long to wait for the daemons to write back and end.
const unmountTime = time.Minute

// unmount unmounts the overlays, and waits until the uppers are complete.
func unmount(layers []Layer) error {
	var points []string
	for _, l := range slices.Backward(layers) {
		points = append(points, l.merged)
	}
	return mounts.Unmount(points, mounts.Options{Timeout: unmountTime})
}

// remove removes the temporary directory. It never walks through a mount.
func remove(dir string) error {
	table, err := host.MountTable()
	if err != nil {
		return err
	}
	for _, m := range table {
		if host.Below(m.Point, dir) {
			return fmt.Errorf("cannot remove %q: %q is still mounted; remove it after fuse-overlay umount", dir, m.Point)
		}
	}
	return os.RemoveAll(dir)
}

// layersIn returns the layers that lie in a temporary directory. Only where they are mounted is
// known.
func layersIn(dir string) (layers []Layer, err error) {
	table, err := host.MountTable()
	if err != nil {
		return nil, err
	}
	for _, m := range table {
		if host.Below(m.Point, dir) {
			layers = append(layers, Layer{merged: m.Point})
		}
	}
	return layers, nil
}

// Watch waits until alive is at its end, and removes what a killed process has left in dir. It does
// nothing if it reads a byte first.
func Watch(alive *os.File, dir string) error {
	var b [1]byte
	if n, _ := alive.Read(b[:]); n > 0 {
		return nil
	}
	// The kernel has killed the processes of the command, or is about to.
	var err error
	for range 100 {
		var layers []Layer
		if layers, err = layersIn(dir); err == nil {
			if err = unmount(layers); err == nil {
				return remove(dir)
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	return err
}

// names gives each layer a name for a directory, of its mount point.
func names(layers []Layer) []string {
	var all []string
	for _, l := range layers {
		name := strings.ReplaceAll(strings.Trim(l.Point, "/"), "/", "-")
		if name == "" {
			name = "root"
		}
		base := name
		for i := 2; slices.Contains(all, name); i++ {
			name = base + "-" + strconv.Itoa(i)
		}
		all = append(all, name)
	}
	return all
}

// errOtherFS is the error of a directory that a rename cannot reach.
var errOtherFS = errors.New("is on another file system than the changes; give it by --keep before the command runs")

// keep moves the uppers to a new directory.
func keep(layers []Layer, dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	for i, name := range names(layers) {
		err := os.Rename(layers[i].Upper, filepath.Join(dir, name))
		if errors.Is(err, unix.EXDEV) {
			return errors.Join(fmt.Errorf("%q %w", dir, errOtherFS), os.Remove(dir))
		}
		if err != nil {
			return err
		}
	}
	return nil
}
