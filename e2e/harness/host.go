package harness

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
	"syscall"
)

// controlPoint is the mount point of the FUSE control file system.
const controlPoint = "/sys/fs/fuse/connections"

// mountedControl reports that prepareHost has mounted controlPoint.
var mountedControl bool

// prepareHost makes what a fresh machine may lack: the plain user with its subordinate ids, a
// /dev/fuse that all users can open, and the FUSE control file system, by which a mount that hangs
// is aborted.
func prepareHost() error {
	if err := os.Chmod("/dev/fuse", 0o666); err != nil {
		return err
	}
	if _, ok := MountAt(controlPoint); !ok {
		if err := syscall.Mount("fusectl", controlPoint, "fusectl", 0, ""); err != nil {
			return fmt.Errorf("mounting fusectl: %w", err)
		}
		mountedControl = true
	}
	// Ubuntu and old Debian kernels refuse user namespaces to plain users.
	for name, value := range map[string]string{"apparmor_restrict_unprivileged_userns": "0",
		"unprivileged_userns_clone": "1"} {
		if err := os.WriteFile("/proc/sys/kernel/"+name, []byte(value), 0); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return PlainUser.prepare()
}

// releaseHost unmounts what prepareHost has mounted, and returns an error if it stays.
func releaseHost() error {
	if !mountedControl {
		return nil
	}
	if err := syscall.Unmount(controlPoint, 0); err != nil {
		return fmt.Errorf("mount %s: %w", controlPoint, err)
	}
	if m, ok := MountAt(controlPoint); ok {
		return fmt.Errorf("mount %s (%s)", controlPoint, m.Kind)
	}
	return nil
}

// Account is a user of the machine.
type Account struct {
	Name     string
	UID, GID int
}

// PlainUser is the unprivileged user of ModeUserns and ModeFusermount. Main creates it if it is
// missing.
var PlainUser = &Account{Name: "fuse-overlay-e2e"}

// prepare creates the user and its subordinate ids if they are missing.
func (a *Account) prepare() error {
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
	return errors.Join(a.addSubordinates("/etc/subuid"), a.addSubordinates("/etc/subgid"))
}

// addSubordinates gives the user subordinate ids in a file that has none for it.
func (a *Account) addSubordinates(file string) error {
	text, err := os.ReadFile(file)
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	if strings.Contains("\n"+string(text), "\n"+a.Name+":") {
		return nil
	}
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "%s:700000:65536\n", a.Name)
	return errors.Join(err, f.Close())
}
