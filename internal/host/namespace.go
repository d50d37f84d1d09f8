package host

import (
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Namespace returns the inode number of a namespace of this process, by its name in /proc/self/ns; 0 if /proc does not have it.
func Namespace(kind string) uint64 {
	var st unix.Stat_t
	if unix.Stat("/proc/self/ns/"+kind, &st) != nil {
		return 0
	}
	return st.Ino
}

// MountNamespace is a mount namespace with a root and a working directory in it: those of the
// process that requested the mount, if the daemon has a namespace of its own. nil is this process's
// own.
type MountNamespace struct{ ns, root, cwd int }

// CurrentNamespace opens the namespace of this process.
func CurrentNamespace() (n *MountNamespace, err error) {
	n = &MountNamespace{-1, -1, -1}
	defer func() {
		if err != nil {
			n.Close()
			n = nil
		}
	}()
	if n.ns, err = unix.Open("/proc/self/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		return n, err
	}
	if n.root, err = unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return n, err
	}
	n.cwd, err = unix.Open(".", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	return n, err
}

// Descriptors are the three that a namespace is passed on by: itself, the root, the working directory.
func (n *MountNamespace) Descriptors() []uintptr {
	return []uintptr{uintptr(n.ns), uintptr(n.root), uintptr(n.cwd)}
}

// InheritNamespace is the namespace that was passed on by these descriptors.
func InheritNamespace(fds [3]int) *MountNamespace {
	for _, fd := range fds {
		unix.CloseOnExec(fd)
	}
	return &MountNamespace{fds[0], fds[1], fds[2]}
}

// NamespaceDescriptors is how many descriptors a [MountNamespace] has open.
const NamespaceDescriptors = 3

// Close closes the descriptors of the namespace. It then lasts as long as other processes use it.
func (n *MountNamespace) Close() {
	if n == nil {
		return
	}
	for _, fd := range []int{n.ns, n.root, n.cwd} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}

// Do calls f in the namespace, with its root and its working directory.
func (n *MountNamespace) Do(f func() error) error {
	if n == nil {
		return f()
	}
	return onOwnThread(func() error {
		if err := n.enter(); err != nil {
			return err
		}
		return f()
	})
}

// enter moves the calling thread into the namespace. It must end there. The system call is setns(2), whose root is that of the
// namespace; without root and working directory the thread stays at that.
func (n *MountNamespace) enter() error {
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	if err := unix.Setns(n.ns, unix.CLONE_NEWNS); err != nil {
		return os.NewSyscallError("setns", err)
	}
	if n.root >= 0 {
		if err := chrootTo(n.root); err != nil {
			return err
		}
	}
	if n.cwd >= 0 {
		return os.NewSyscallError("fchdir", unix.Fchdir(n.cwd))
	}
	return nil
}

// chrootTo makes an opened directory root and working directory of all threads that have these in common with the caller.
func chrootTo(fd int) error {
	if err := unix.Fchdir(fd); err != nil {
		return os.NewSyscallError("fchdir", err)
	}
	return os.NewSyscallError("chroot", unix.Chroot("."))
}

// ID returns the inode number of the namespace; 0 if /proc does not have it.
func (n *MountNamespace) ID() uint64 {
	if n == nil {
		return Namespace("mnt")
	}
	var st unix.Stat_t
	if unix.Fstat(n.ns, &st) != nil {
		return 0
	}
	return st.Ino
}

// Mounts is the mount table of the namespace, below its root.
func (n *MountNamespace) Mounts() (table []MountEntry, err error) {
	err = n.Do(func() error {
		table, err = MountTable()
		return err
	})
	return table, err
}

// onOwnThread calls f on a thread that ends afterwards, whatever f has changed of it. The main thread does not end: what runs there
// has another one do it.
func onOwnThread(f func() error) (err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked
		if unix.Gettid() == unix.Getpid() {
			err = onOwnThread(f)
			runtime.UnlockOSThread()
			return
		}
		err = f()
	}()
	<-done
	return err
}

// LeaveMounts takes this process out of all mounts. The process has a mount namespace of its own,
// which is a copy of another. Afterwards that namespace has only an empty root with /proc, and the
// paths in keep. This process then keeps other mounts alive by its descriptors alone. An error
// leaves the process where it was, with all mounts that were copied.
func LeaveMounts(keep ...string) error {
	own, err := unix.Open("/proc/self/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(own) }()
	trees := map[string]int{}
	defer func() {
		for _, fd := range trees {
			_ = unix.Close(fd)
		}
	}()
	for _, path := range append([]string{"/proc"}, keep...) {
		if trees[path], err = cloneTree(path); err != nil {
			return err
		}
	}
	root, err := memoryRoot()
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(root) }()
	// At the root of the namespace, which need not be that of the process.
	err = onOwnThread(func() error {
		if err := (&MountNamespace{own, -1, -1}).enter(); err != nil {
			return err
		}
		return replaceRoot(root, trees)
	})
	if err != nil {
		return err
	}
	return chrootTo(root) // also where the process had another root
}

// MakePrivate keeps mounts and unmounts of other namespaces out of that of this process.
func MakePrivate() error {
	own, err := unix.Open("/proc/self/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(own) }()
	return (&MountNamespace{own, -1, -1}).Do(func() error {
		return os.NewSyscallError("mount", unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	})
}

// cloneTree is a copy of the mount at path that is nowhere attached, with the mounts below it where these may not be left out.
func cloneTree(path string) (int, error) {
	const flags = unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, flags)
	if err != nil {
		fd, err = unix.OpenTree(unix.AT_FDCWD, path, flags|unix.AT_RECURSIVE)
	}
	return fd, os.NewSyscallError("open_tree", err)
}

// memoryRoot is an empty file system that is nowhere attached.
func memoryRoot() (int, error) {
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, os.NewSyscallError("fsopen", err)
	}
	defer func() { _ = unix.Close(fs) }()
	for key, value := range map[string]string{"source": "fuse-overlay", "mode": "0555", "size": "1m"} {
		if err := unix.FsconfigSetString(fs, key, value); err != nil {
			return -1, os.NewSyscallError("fsconfig", err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, os.NewSyscallError("fsconfig", err)
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	return fd, os.NewSyscallError("fsmount", err)
}

// replaceRoot attaches root over the root of the calling thread and makes it the root of the namespace, with trees in it, and
// detaches all else.
func replaceRoot(root int, trees map[string]int) error {
	if err := unix.MoveMount(root, "", unix.AT_FDCWD, "/", unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return os.NewSyscallError("move_mount", err)
	}
	detach := func(err error) error { // from where it was attached
		_ = unix.Unmount(".", unix.MNT_DETACH)
		return err
	}
	if err := unix.Fchdir(root); err != nil {
		return os.NewSyscallError("fchdir", err)
	}
	for path, tree := range trees {
		at := filepath.Join(".", path)
		if err := os.MkdirAll(at, 0o755); err != nil {
			return detach(err)
		}
		if err := unix.MoveMount(tree, "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return detach(os.NewSyscallError("move_mount", err))
		}
	}
	// The old root comes to lie over the new one, from where it is detached (pivot_root(2), NOTES).
	if err := unix.PivotRoot(".", "."); err != nil {
		return detach(os.NewSyscallError("pivot_root", err))
	}
	return os.NewSyscallError("umount2", unix.Unmount(".", unix.MNT_DETACH))
}

// Forget detaches the copies of a file system's mounts that this process has in its own namespace, made as a copy of n: others
// may wait for the end of that file system.
func (n *MountNamespace) Forget(dev uint64) {
	if n == nil {
		return
	}
	table, err := MountTable()
	if err != nil {
		return
	}
	for _, m := range table {
		if m.Dev == dev {
			_ = unix.Unmount(m.Point, unix.MNT_DETACH)
		}
	}
}

// ExecApart runs the program anew in this process, in a mount namespace of its own, with descriptors that the new one inherits.
// It returns after an error only.
func ExecApart(argv, environ []string, inherit ...int) error {
	return onOwnThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			return os.NewSyscallError("unshare", err)
		}
		return execSelf(argv, environ, inherit)
	})
}

// Exec runs the program anew in this process, in the namespace. It returns after an error only.
func (n *MountNamespace) Exec(argv, environ []string, inherit ...int) error {
	return n.Do(func() error { return execSelf(argv, environ, inherit) })
}

func execSelf(argv, environ []string, inherit []int) error {
	for _, fd := range inherit {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
			return os.NewSyscallError("fcntl", err)
		}
	}
	return os.NewSyscallError("execve", syscall.Exec("/proc/self/exe", argv, environ))
}

// Place is where a mount was made.
type Place struct {
	// Namespace is the inode number of the mount namespace.
	Namespace uint64
	// Mount is the entry of its table.
	Mount MountEntry
}

// PlaceOf is the topmost mount at point, in the namespace.
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

// Visit calls f in the namespace of the place, at its root, with all mounts there. A process that lives there leads to it: found is
// false where no process does that this one may look at, so that none can reach the mount by a path.
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

// open finds a process of the namespace and opens it, without a root of its own; nil: there is none.
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
		if n.ID() == p.Namespace { // the process may have been another one meanwhile
			return n, nil
		}
		n.Close()
	}
	return nil, nil //nolint:nilnil // no error: there is none
}

// InSight reports whether the namespace still shows the file system somewhere.
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

// Point is where the mount is, in a list of its namespace; empty: nowhere.
func (p Place) Point(mounts []MountEntry) string {
	for _, m := range mounts {
		if m.Dev == p.Mount.Dev && m.ID == p.Mount.ID && m.Type == p.Mount.Type {
			return m.Point
		}
	}
	return ""
}
