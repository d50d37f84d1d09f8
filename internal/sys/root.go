package sys

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// OpenLower opens the root of a read-only layer. If the kernel allows it, that is through a private
// clone of its mount, and cloned is true. The clone is read-only and keeps no access times, so a
// write fails with EROFS whatever the program does. Mounts inside the layer are hidden, as the
// kernel's overlayfs hides them (clone_private_mount).
func OpenLower(path string) (d *Dir, cloned bool, err error) {
	top, err := openTrusted(path)
	if err != nil {
		return nil, false, err
	}
	defer func() { _ = unix.Close(top) }()
	if d, err := restrictedClone(top); err == nil {
		return d, true, nil
	}
	d, err = openRoot(top)
	return d, false, err
}

// restrictedClone opens the directory top through a read-only clone of its mount.
func restrictedClone(top int) (*Dir, error) {
	tree, err := cloneMount(top)
	if err != nil {
		return nil, err
	}
	if err := restrict(tree); err != nil {
		_ = unix.Close(tree)
		return nil, err
	}
	return openCloned(tree)
}

// openCloned opens the root of a clone. The Dir holds the clone, see Dir.clone.
func openCloned(tree int) (*Dir, error) {
	d, err := openRoot(tree)
	if err != nil {
		_ = unix.Close(tree)
		return nil, err
	}
	d.clone = &Object{tree}
	return d, nil
}

// handOver gives the clone that d holds, if any, to other.
func (d *Dir) handOver(other *Dir) {
	if d.clone != nil {
		d.clone, other.clone = nil, d.clone
	}
}

// OpenUpper opens the upper and the work directory. Both are opened through one mount, because the
// kernel renames within one mount only. If the kernel allows it, that is a private clone of the
// mount at their common ancestor. EXDEV: they are not on the same mount. atime is when reads of
// them change access times. A user namespace may not change that for mounts that it has inherited.
// The flags of the upper's own mount have no effect, as in the kernel's overlayfs.
func OpenUpper(upper, work string, atime AccessTimes) (u, w *Dir, err error) {
	ufd, err := openTrusted(upper)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = unix.Close(ufd) }()
	wfd, err := openTrusted(work)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = unix.Close(wfd) }()
	um, err := mountID(ufd)
	if err != nil {
		return nil, nil, err
	}
	wm, err := mountID(wfd)
	if err != nil {
		return nil, nil, err
	}
	if um != wm {
		return nil, nil, unix.EXDEV
	}
	if u, w, err = openPair(ufd, wfd, um, atime); err != nil {
		if u, err = openRoot(ufd); err != nil {
			return nil, nil, err
		}
		if w, err = openRoot(wfd); err != nil {
			u.Close()
			return nil, nil, err
		}
	}
	if atime.None() {
		u.avoidAccessTimes()
	}
	return u, w, nil
}

// openPair opens both directories through one private clone.
func openPair(ufd, wfd int, mount uint64, atime AccessTimes) (u, w *Dir, err error) {
	up, err := os.Readlink(procFD + strconv.Itoa(ufd))
	if err != nil {
		return nil, nil, unix.ENOENT
	}
	wp, err := os.Readlink(procFD + strconv.Itoa(wfd))
	if err != nil {
		return nil, nil, unix.ENOENT
	}
	common := commonAncestor(up, wp)
	top, err := openTrusted(common)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = unix.Close(top) }()
	if id, err := mountID(top); err != nil || id != mount {
		return nil, nil, unix.EXDEV
	}
	tree, err := cloneMount(top)
	if err != nil {
		return nil, nil, err
	}
	// The program opens no device through a layer. Before Linux 5.12 this call fails, and only that
	// rule is left.
	_ = unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NODEV})
	times := atime.attr()
	_ = unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &times)
	root, err := openCloned(tree)
	if err != nil {
		return nil, nil, err
	}
	defer root.Close()
	if u, err = root.OpenDir(below(up, common)); err != nil {
		return nil, nil, err
	}
	if w, err = root.OpenDir(below(wp, common)); err != nil {
		u.Close()
		return nil, nil, err
	}
	if !sameObject(u.fd, ufd) || !sameObject(w.fd, wfd) { // a mount lies between, or a name changed meanwhile
		u.Close()
		w.Close()
		return nil, nil, unix.EXDEV
	}
	root.handOver(u)
	return u, w, nil
}

func commonAncestor(a, b string) string {
	for !strings.HasPrefix(b+"/", strings.TrimSuffix(a, "/")+"/") {
		a = filepath.Dir(a)
	}
	return a
}

func below(path, ancestor string) string {
	return strings.TrimPrefix(strings.TrimPrefix(path, ancestor), "/")
}

// openTrusted opens a directory by a path from the command line. No other function follows symbolic
// links.
func openTrusted(path string) (int, error) {
	if err := fault("open", path); err != nil {
		return -1, err
	}
	return unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
}

// openRoot makes a Dir of a descriptor. It tries openat2 and remembers whether the kernel has it.
func openRoot(fd int) (*Dir, error) {
	tryOpenat2(fd)
	return (&Dir{Object: Object{fd}}).OpenDir("")
}

func tryOpenat2(fd int) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: beneath}
	probe, err := unix.Openat2(fd, ".", &how)
	switch err {
	case nil:
		_ = unix.Close(probe)
	case unix.ENOSYS, unix.EPERM:
		noOpenat2.Store(true)
	}
}

// cloneMount makes a detached copy of the mount at fd, without the mounts below it.
func cloneMount(fd int) (int, error) {
	if err := fault("open_tree", ""); err != nil {
		return -1, err
	}
	return unix.OpenTree(fd, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
}

// restrict makes a cloned mount read-only, without devices and, if the kernel allows it, without
// access times. In a user namespace the access time flags of a locked mount cannot be changed
// (EPERM). The other flags can always be added.
func restrict(tree int) error {
	if err := fault("mount_setattr", ""); err != nil {
		return err
	}
	err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &unix.MountAttr{
		Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOATIME,
		Attr_clr: unix.MOUNT_ATTR__ATIME,
	})
	if err == nil {
		return nil
	}
	return unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &unix.MountAttr{
		Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NODEV,
	})
}

func mountID(fd int) (uint64, error) {
	var st unix.Statx_t
	err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &st)
	switch {
	case err != nil && err != unix.ENOSYS:
		return 0, err
	case err == nil && st.Mask&unix.STATX_MNT_ID != 0:
		return st.Mnt_id, nil
	}
	// Before Linux 5.8, or a seccomp filter: the device is the best there is.
	var plain Stat
	err = unix.Fstat(fd, &plain)
	return plain.Dev, err
}

func sameObject(a, b int) bool {
	var x, y Stat
	return unix.Fstat(a, &x) == nil && unix.Fstat(b, &y) == nil && x.Dev == y.Dev && x.Ino == y.Ino
}
