package host

import (
	"os"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Namespace returns the inode number of a namespace of this process, by its name in /proc/self/ns;
// 0 if /proc does not have it.
func Namespace(kind string) uint64 {
	var st unix.Stat_t
	if unix.Stat("/proc/self/ns/"+kind, &st) != nil {
		return 0
	}
	return st.Ino
}

// MountNamespace is a mount namespace, with a root and a working directory in it. The daemon uses
// that of the process that has started it, if it has a namespace of its own. nil is this process's
// own.
type MountNamespace struct{ ns, root, cwd int }

// CurrentNamespace opens the mount namespace, the root and the working directory of this process.
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

// Descriptors returns the descriptors of the namespace, its root and its working directory. Another
// process takes them by [InheritNamespace].
func (n *MountNamespace) Descriptors() []uintptr {
	return []uintptr{uintptr(n.ns), uintptr(n.root), uintptr(n.cwd)}
}

// InheritNamespace returns the namespace of the descriptors that [MountNamespace.Descriptors] has
// returned in another process.
func InheritNamespace(fds [3]int) *MountNamespace {
	for _, fd := range fds {
		unix.CloseOnExec(fd)
	}
	return &MountNamespace{fds[0], fds[1], fds[2]}
}

// NamespaceDescriptors is how many descriptors a [MountNamespace] holds.
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

// Do calls f on a thread in the namespace, with its root and its working directory.
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

// enter moves the calling thread into the namespace, for good: the thread has to end there.
// setns(2) sets root and working directory to the root of the namespace, where they stay if n has
// none.
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

// chrootTo makes a directory the root and the working directory of the calling thread, and of those
// that share them with it.
func chrootTo(fd int) error {
	if err := unix.Fchdir(fd); err != nil {
		return os.NewSyscallError("fchdir", err)
	}
	return os.NewSyscallError("chroot", unix.Chroot("."))
}

// ID returns the inode number of the namespace. 0: it is not known.
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

// Mounts returns the mount table of the namespace, below its root.
func (n *MountNamespace) Mounts() (table []MountEntry, err error) {
	err = n.Do(func() error {
		table, err = MountTable()
		return err
	})
	return table, err
}

// onOwnThread calls f on a thread that ends afterwards, so f may change the thread. The main thread
// cannot end; if the goroutine runs there, a goroutine on another thread calls f.
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

// LeaveMounts unmounts all mounts of this process's mount namespace, which has to be its own, but
// /proc and the paths in keep. They lie in an empty root. Afterwards only descriptors of this
// process keep other mounts alive. After an error the namespace is as before.
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
	// The root of the namespace need not be that of the process.
	err = onOwnThread(func() error {
		if err := (&MountNamespace{own, -1, -1}).enter(); err != nil {
			return err
		}
		return replaceRoot(root, trees)
	})
	if err != nil {
		return err
	}
	return chrootTo(root) // the process may have had another root
}

// MakePrivate ends the propagation of mounts between this process's mount namespace and others.
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

// cloneTree returns a detached copy of the mount at path. The mounts below it are copied only if
// the kernel does not allow to leave them out (locked mounts).
func cloneTree(path string) (int, error) {
	const flags = unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, flags)
	if err != nil {
		fd, err = unix.OpenTree(unix.AT_FDCWD, path, flags|unix.AT_RECURSIVE)
	}
	return fd, os.NewSyscallError("open_tree", err)
}

// memoryRoot returns a detached, empty tmpfs.
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

// replaceRoot makes root the root of the calling thread's mount namespace, attaches trees in it by
// their paths, and detaches all other mounts.
func replaceRoot(root int, trees map[string]int) error {
	if err := unix.MoveMount(root, "", unix.AT_FDCWD, "/", unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return os.NewSyscallError("move_mount", err)
	}
	detach := func(err error) error {
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
	// pivot_root mounts the old root over the new one, and umount2 detaches it there
	// (pivot_root(2), NOTES).
	if err := unix.PivotRoot(".", "."); err != nil {
		return detach(os.NewSyscallError("pivot_root", err))
	}
	return os.NewSyscallError("umount2", unix.Unmount(".", unix.MNT_DETACH))
}

// Forget detaches the mounts of a file system in this process's own namespace, which was made as a
// copy of n. Other processes may wait for the end of that file system.
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

// ExecApart executes the program again in this process, in a new mount namespace. The program
// inherits the descriptors in inherit. ExecApart returns only after an error.
func ExecApart(argv, environ []string, inherit ...int) error {
	return onOwnThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			return os.NewSyscallError("unshare", err)
		}
		return execSelf(argv, environ, inherit)
	})
}

// Exec executes the program again in this process, in the namespace. It returns only after an
// error.
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
