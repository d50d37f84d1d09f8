package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/host"
)

// firstSubID is the uid and gid that a user namespace shows as 0. It maps idCount ids.
const (
	firstSubID = 200_000
	idCount    = 65_536
)

// loopMajor is the major number of loop devices.
const loopMajor = 7

// asPID1 runs a command under a shell, which reaps the orphans of the suite.
var asPID1 = []string{"/bin/sh", "-c", `"$@"; exit "$?"`, "sh"}

// makePrivate ends the propagation of mounts from and to other namespaces.
func makePrivate() error { return syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, "") }

// dropInherited unmounts, in a new namespace, what belongs to others. A copy of a FUSE mount keeps
// its daemon alive, a copy of a loop mount its loop device busy.
func dropInherited() error {
	table, err := host.MountTable()
	if err != nil {
		return err
	}
	var errs []error
	for _, m := range slices.Backward(table) {
		if strings.HasPrefix(m.Type, "fuse.") || unix.Major(m.Dev) == loopMajor {
			errs = append(errs, host.Detach(m.Point))
		}
	}
	return errors.Join(errs...)
}

// start runs a session in namespaces of its own, and returns its results. All its processes end
// with it. Its output goes to log.
func (s *session) start(ctx context.Context, log *os.File) (results []result, err error) {
	description, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer read.Close()
	argv := append(slices.Clone(asPID1), filepath.Join(filepath.Dir(s.Program), runner))
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = s.Dir, log, log, []*os.File{write}
	cmd.Env = append(os.Environ(), envSession+"="+string(description), "HOME="+s.Dir, "TMPDIR="+s.Dir, "LC_ALL=C.UTF-8")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC | syscall.CLONE_NEWNET,
		Pdeathsig:  syscall.SIGKILL,
	}
	if s.mode().userns {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: firstSubID, Size: idCount}}
		cmd.SysProcAttr.UidMappings, cmd.SysProcAttr.GidMappings = ids, ids
		cmd.SysProcAttr.GidMappingsEnableSetgroups = true
		cmd.SysProcAttr.Credential = &syscall.Credential{}
	}
	if err := cmd.Start(); err != nil {
		write.Close()
		return nil, err
	}
	write.Close()
	var text bytes.Buffer
	_, readErr := text.ReadFrom(read)
	if err := cmd.Wait(); err != nil {
		return nil, fmt.Errorf("%s in mode %s: %w, see %s", s.Suite, s.Mode, errors.Join(err, context.Cause(ctx)), log.Name())
	}
	if err := errors.Join(readErr, json.Unmarshal(text.Bytes(), &results)); err != nil {
		return nil, fmt.Errorf("%s in mode %s: %w", s.Suite, s.Mode, err)
	}
	return results, nil
}

// imageSize is the size of the sparse file that holds the file system of a session.
const imageSize = "12G"

// withFileSystem calls fn with a folder on a new ext4, whose owner is the user of the mode. It is
// gone afterwards.
func withFileSystem(dir string, m mode, fn func(dir string) error) (err error) {
	image, point := filepath.Join(dir, "image"), filepath.Join(dir, "fs")
	defer func() { err = errors.Join(err, os.Remove(image)) }()
	for _, argv := range [][]string{
		{"truncate", "-s", imageSize, image},
		{"mkfs.ext4", "-q", "-F", image},
		{"mkdir", "-p", point},
		{"mount", "-o", "loop", image, point},
	} {
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", strings.Join(argv, " "), err, out)
		}
	}
	defer func() { err = errors.Join(err, syscall.Unmount(point, 0)) }()
	work := filepath.Join(point, "session")
	if err := os.Mkdir(work, 0o755); err != nil {
		return err
	}
	if err := os.Chown(work, m.owner(), m.owner()); err != nil {
		return err
	}
	return fn(work)
}
