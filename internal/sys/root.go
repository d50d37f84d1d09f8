package sys

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// OpenLower opens the root of a read-only layer. Where the kernel lets us, it is reached through a private clone of its
// mount that is read-only and keeps no access times: a write is then EROFS whatever the program does, and mounts inside
// the layer are hidden, as the kernel's overlayfs hides them (clone_private_mount). cloned says whether it is.
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

// restrictedClone opens the directory top through a clone of its mount that nobody can write through.
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

// openCloned is openRoot of a clone, which the Dir keeps.
func openCloned(tree int) (*Dir, error) {
	d, err := openRoot(tree)
	if err != nil {
		_ = unix.Close(tree)
		return nil, err
	}
	d.clone = &Object{tree}
	return d, nil
}

// handOver has other keep the clone in place of d, if any.
func (d *Dir) handOver(other *Dir) {
	if d.clone != nil {
		d.clone, other.clone = nil, d.clone
	}
}

// OpenUpper opens the upper and the work directory. Both are reached through one mount, since the kernel renames within
// one mount only: a private clone of the mount at their common ancestor where that may be had. EXDEV when they are not
// on the same mount. atime is when reads of them change access times, as far as the kernel allows
// that: a user namespace may not change it for mounts that it was given. The flags of the upper's
// own mount do not matter, as in the kernel's overlayfs.
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
	// No device is ever opened through a layer. Where this is refused (before Linux 5.12) none should be anyway.
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

// openTrusted opens a directory by the path that the user gave; here, and only here, symbolic links are followed.
func openTrusted(path string) (int, error) {
	if err := fault("open", path); err != nil {
		return -1, err
	}
	return unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
}

// openRoot turns a descriptor into a Dir and finds out, by trying it, whether openat2 is there.
func openRoot(fd int) (*Dir, error) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: beneath}
	probe, err := unix.Openat2(fd, ".", &how)
	switch err {
	case nil:
		_ = unix.Close(probe)
	case unix.ENOSYS, unix.EPERM:
		noOpenat2.Store(true)
	}
	return (&Dir{Object: Object{fd}}).OpenDir("")
}

// cloneMount makes a detached copy of the mount at fd, without the mounts below it.
func cloneMount(fd int) (int, error) {
	if err := fault("open_tree", ""); err != nil {
		return -1, err
	}
	return unix.OpenTree(fd, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
}

// restrict makes a cloned mount read-only, without devices, and free of access times where that is allowed: in a user
// namespace the access time flags of a locked mount may not be changed (EPERM), the others may always be added.
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
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &st); err != nil {
		return 0, err
	}
	if st.Mask&unix.STATX_MNT_ID == 0 { // before Linux 5.8: the device is the best there is
		return unix.Mkdev(st.Dev_major, st.Dev_minor), nil
	}
	return st.Mnt_id, nil
}

func sameObject(a, b int) bool {
	var x, y Stat
	return unix.Fstat(a, &x) == nil && unix.Fstat(b, &y) == nil && x.Dev == y.Dev && x.Ino == y.Ino
}
