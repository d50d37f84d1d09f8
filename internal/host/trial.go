package host

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// RunInUserNamespace runs this program again, as root of a user namespace and in a mount namespace
// of its own, with one more variable in its environment. It returns what the process writes to
// stdout.
func RunInUserNamespace(variable string, limit time.Duration) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Env = append(os.Environ(), variable)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
	}
	out, err := cmd.Output()
	var failed *exec.ExitError
	if errors.As(err, &failed) && len(failed.Stderr) > 0 {
		return nil, errors.New(strings.TrimSpace(string(failed.Stderr)))
	}
	var path *os.PathError
	if errors.As(err, &path) {
		return nil, path.Err
	}
	return out, err
}

// InTemporaryFolder calls f with a new folder, which it removes afterwards.
func InTemporaryFolder(f func(dir string) error) error {
	dir, err := os.MkdirTemp("", "fuse-overlay-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	return f(dir)
}

// MakeWhiteout makes a character device 0/0 in a folder. EPERM: the kernel refuses it to this
// process.
func MakeWhiteout(dir string) error {
	return unix.Mknod(filepath.Join(dir, "whiteout"), unix.S_IFCHR, 0)
}
