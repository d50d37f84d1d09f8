package mounts

import (
	"errors"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/host"
)

// UseMount is the use by a process in whose mount namespace a mount of the same file system is.
// Several processes may share the namespace, of which the one with the smallest number has the use.
const UseMount host.Use = "mount"

// User is a process that uses a mount.
type User struct {
	PID  int
	UID  uint32 // of its accesses to files
	Name string // chosen by the process
	Uses []host.Use
}

// Users are the processes that use the mounts of a list.
type Users struct {
	byDevice map[uint64][]User
	// Unseen is how many processes this one may not look at.
	Unseen int
}

// FindUsers finds the users of all mounts: it looks at each process but this one. Uses by the
// kernel itself, such as loop devices, are not found.
func FindUsers() (*Users, error) {
	pids, err := host.Processes()
	if err != nil {
		return nil, err
	}
	slices.Sort(pids)
	u := &Users{byDevice: map[uint64][]User{}}
	own, err := host.MountNamespaceOf(host.PID())
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{own: true} // the mount namespaces
	for _, pid := range pids {
		if pid == host.PID() {
			continue
		}
		uses, err := host.UsesOf(pid)
		var namespace string
		if err == nil {
			namespace, err = host.MountNamespaceOf(pid)
		}
		if (errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM)) && hasCommandLine(pid) {
			u.Unseen++
		}
		if err != nil { // else it has ended
			continue
		}
		if !seen[namespace] {
			seen[namespace] = true
			addMounts(uses, pid)
		}
		u.add(pid, uses)
	}
	return u, nil
}

// hasCommandLine distinguishes a process from a thread of the kernel, which uses no mount.
func hasCommandLine(pid int) bool {
	_, err := host.CommandLine(pid)
	return err == nil
}

// addMounts adds the mounts in the namespace of a process to its uses.
func addMounts(uses map[uint64][]host.Use, pid int) {
	table, err := host.MountTableOf(pid)
	if err != nil { // it has ended
		return
	}
	for _, m := range table {
		if !slices.Contains(uses[m.Dev], UseMount) {
			uses[m.Dev] = append(uses[m.Dev], UseMount)
		}
	}
}

// add notes the uses of a process.
func (u *Users) add(pid int, uses map[uint64][]host.Use) {
	uid, err := host.UserOf(uint32(pid))
	if err != nil { // it has ended
		return
	}
	name, err := host.ProcessName(pid)
	if err != nil {
		return
	}
	for dev, list := range uses {
		u.byDevice[dev] = append(u.byDevice[dev], User{PID: pid, UID: uid, Name: name, Uses: list})
	}
}

// Of returns the users of a mount in the order of their numbers. Its daemon is none.
func (u *Users) Of(m *Mount) []User {
	return slices.DeleteFunc(slices.Clone(u.byDevice[m.Entry.Dev]), func(user User) bool { return user.PID == m.Daemon.PID })
}
