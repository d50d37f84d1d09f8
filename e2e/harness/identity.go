package harness

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
	"testing"
	"unsafe"
)

// As runs fn with the file system identity of another user: no capability over files, no
// supplementary group. The identity is that of one thread, so fn must not start goroutines that
// touch files.
func As(t *testing.T, uid, gid int, fn func()) {
	t.Helper()
	AsGroups(t, uid, gid, nil, fn)
}

// AsGroups is As with supplementary groups.
func AsGroups(t *testing.T, uid, gid int, groups []uint32, fn func()) {
	t.Helper()
	old, err := syscall.Getgroups()
	Check(t, err)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	Check(t, setIdentity(uid, gid, groups))
	defer func() {
		back := make([]uint32, len(old))
		for i, g := range old {
			back[i] = uint32(g)
		}
		if err := setIdentity(os.Geteuid(), os.Getegid(), back); err != nil {
			panic(err) // a thread with a wrong identity must not go on
		}
	}()
	fn()
}

// setIdentity sets the file system ids of the calling thread. The calls of package syscall would
// set those of all threads.
func setIdentity(uid, gid int, groups []uint32) error {
	var p unsafe.Pointer
	if len(groups) > 0 {
		p = unsafe.Pointer(&groups[0])
	}
	if _, _, e := syscall.RawSyscall(syscall.SYS_SETGROUPS, uintptr(len(groups)), uintptr(p), 0); e != 0 {
		return fmt.Errorf("setgroups: %w", e)
	}
	// Each call returns the previous id and no error. A second call shows whether the first one had an
	// effect.
	for _, id := range []struct {
		call uintptr
		id   int
	}{{syscall.SYS_SETFSGID, gid}, {syscall.SYS_SETFSUID, uid}} {
		_, _, _ = syscall.RawSyscall(id.call, uintptr(id.id), 0, 0)
		if now, _, _ := syscall.RawSyscall(id.call, ^uintptr(0), 0, 0); int32(now) != int32(id.id) {
			return fmt.Errorf("setfsid(%d): is %d", id.id, int32(now))
		}
	}
	return nil
}
