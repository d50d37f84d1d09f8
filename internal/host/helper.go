package host

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// mountProgram mounts and unmounts for plain users; it is set-user-id root. mountProgramDir is
// where it lies if PATH does not contain it: mount(8) empties the environment for a plain user
// (option user of fstab).
const (
	mountProgram    = "fusermount3"
	mountProgramDir = "/bin"
)

// MountProgram returns the path of the program that mounts for plain users. The error names the
// package that is missing.
func MountProgram() (string, error) { return findMountProgram(mountProgramDir) }

func findMountProgram(otherwise string) (string, error) {
	path, err := exec.LookPath(mountProgram)
	if err == nil {
		return path, nil
	}
	if path, err := exec.LookPath(filepath.Join(otherwise, mountProgram)); err == nil {
		return path, nil
	}
	return "", fmt.Errorf("mounting as a plain user needs the program %s of the package fuse3: %w",
		mountProgram, errors.Unwrap(err))
}

// UnmountByHelper is [Unmount] for a plain user. EBUSY: it is in use.
func UnmountByHelper(point string) error { return unmountByHelper(point, mountList) }

// mountList is where fusermount3 looks for the mount. Minimal systems do not have the file.
const mountList = "/etc/mtab"

// unmountByHelper uses umount(8) where fusermount3 has no list of mounts. The one of util-linux
// reads the mount table of the kernel, and unmounts a FUSE mount for the user who has mounted it.
func unmountByHelper(point, list string) error {
	err := fusermount("-u", point)
	if err == nil || err == unix.EBUSY {
		return err
	}
	if _, missing := os.Stat(list); missing == nil {
		return err
	}
	out, failure := exec.Command("umount", point).CombinedOutput()
	switch {
	case failure == nil:
		return nil
	case strings.Contains(string(out), "busy"):
		return unix.EBUSY
	}
	return fmt.Errorf("%w; make %s a link to /proc/self/mounts", err, list)
}

// DetachByHelper is [Detach] for a plain user.
func DetachByHelper(point string) error { return fusermount("-u", "-z", point) }

func fusermount(args ...string) error {
	program, err := MountProgram()
	if err != nil {
		return err
	}
	out, err := exec.Command(program, args...).CombinedOutput()
	if err != nil && strings.Contains(strings.ToLower(string(out)), unix.EBUSY.Error()) {
		return unix.EBUSY
	}
	if err != nil {
		return fmt.Errorf("%s: %w: %s", mountProgram, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// User returns the user of this process, whose mounts the program for plain users unmounts.
func User() uint32 { return uint32(os.Getuid()) }

// MayMount reports whether this process may call mount(2): it is root, or root of a user namespace.
func MayMount() bool {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return os.Geteuid() == 0
	}
	_, after, _ := strings.Cut(string(status), "\nCapEff:")
	line, _, _ := strings.Cut(after, "\n")
	capabilities, err := strconv.ParseUint(strings.TrimSpace(line), 16, 64)
	return err == nil && capabilities&(1<<unix.CAP_SYS_ADMIN) != 0
}
