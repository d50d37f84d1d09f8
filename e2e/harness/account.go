package harness

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"
)

func AtLeast(version string, major, minor int) bool {
	parts := strings.Split(version, ".")
	a, b := atoi(parts[0]), atoi(parts[1])
	return a > major || a == major && b >= minor
}

func atoi(s string) (n int) {
	for _, c := range s {
		n = n*10 + int(c-'0')
	}
	return n
}

// account is the unprivileged user of the modes userns and fusermount.
type account struct {
	Name     string
	UID, GID int
}

var PlainUser = &account{Name: "fuse-overlay-e2e"}

// prepare creates the user and its subordinate ids when missing.
func (a *account) prepare() error {
	u, err := user.Lookup(a.Name)
	if err != nil {
		if out, err := exec.Command("useradd", "-m", "-s", "/bin/bash", a.Name).CombinedOutput(); err != nil {
			return fmt.Errorf("useradd %s: %w: %s", a.Name, err, out)
		}
		if u, err = user.Lookup(a.Name); err != nil {
			return err
		}
	}
	if a.UID, err = strconv.Atoi(u.Uid); err != nil {
		return err
	}
	if a.GID, err = strconv.Atoi(u.Gid); err != nil {
		return err
	}
	for _, file := range []string{"/etc/subuid", "/etc/subgid"} {
		text, err := os.ReadFile(file)
		if err != nil && !os.IsNotExist(err) {
			return err
		}
		if strings.Contains("\n"+string(text), "\n"+a.Name+":") {
			continue
		}
		f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(f, "%s:700000:65536\n", a.Name)
		if e := f.Close(); err == nil {
			err = e
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// As runs fn with the file system identity of another user: no capability over files, no supplementary group.
// The identity is that of one thread; fn must not start goroutines that touch files.
func As(t *testing.T, uid, gid int, fn func()) {
	t.Helper()
	AsGroups(t, uid, gid, nil, fn)
}

func AsGroups(t *testing.T, uid, gid int, groups []uint32, fn func()) {
	t.Helper()
	old, err := syscall.Getgroups()
	Check(t, err)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	Check(t, identity(uid, gid, groups))
	defer func() {
		back := make([]uint32, len(old))
		for i, g := range old {
			back[i] = uint32(g)
		}
		if err := identity(os.Geteuid(), os.Getegid(), back); err != nil {
			panic(err) // a thread with a wrong identity must not go on
		}
	}()
	fn()
}

// identity sets the ids of the calling thread only (the calls of package syscall set those of all threads).
func identity(uid, gid int, groups []uint32) error {
	var p unsafe.Pointer
	if len(groups) > 0 {
		p = unsafe.Pointer(&groups[0])
	}
	if _, _, e := syscall.RawSyscall(syscall.SYS_SETGROUPS, uintptr(len(groups)), uintptr(p), 0); e != 0 {
		return fmt.Errorf("setgroups: %w", e)
	}
	// The calls answer with the old id; asked a second time they tell whether the first one worked.
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
