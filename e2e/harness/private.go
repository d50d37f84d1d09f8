package harness

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// ModePrivate is root in namespaces of its own, for clients that run daemons and use fixed paths.
// What they start, what they mount and what they write to /run and /etc is not visible outside, and
// ends with the process of the test.
const ModePrivate Mode = "private"

// PrivateModes is the list of modes for such clients.
var PrivateModes = []Mode{ModePrivate}

// privateArgs enter ModePrivate. The first process of the PID namespace is a shell, because a test
// does not reap orphans.
var privateArgs = []string{
	"unshare", "--mount", "--pid", "--net", "--ipc", "--fork", "--kill-child", "--mount-proc", "--",
	"sh", "-c", `"$@"; exit "$?"`, "sh",
}

// privatePath begins with the folder that mount(8) and its helpers search first, whatever the PATH
// of their caller.
const privatePath = "/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"

const cgroupRoot = "/sys/fs/cgroup"

// enterPrivate prepares the namespaces for clients: the name fuse-overlayfs leads to the program
// under test.
func enterPrivate() error {
	dir := filepath.Join(RunDir, string(ModePrivate), "ns")
	bin, home, upper, work := dir+"/bin", dir+"/home", dir+"/etc", dir+"/etc-work"
	for _, d := range []string{bin, home, upper, work} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	if err := installName(bin + "/fuse-overlayfs"); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	for name, value := range map[string]string{"PATH": privatePath, "HOME": home, "TMPDIR": dir} {
		if err := os.Setenv(name, value); err != nil {
			return err
		}
	}
	if err := errors.Join(dropInherited(), keepOther(), hideOthers()); err != nil {
		return err
	}
	if err := unmountCgroups(); err != nil {
		return err
	}
	for _, m := range []struct {
		source, target, kind string
		flags                uintptr
		data                 string
	}{
		{bin, "/usr/local/sbin", "", syscall.MS_BIND, ""},
		{"tmpfs", "/run", "tmpfs", 0, "mode=755"},
		{"overlay", "/etc", "overlay", 0, "lowerdir=/etc,upperdir=" + upper + ",workdir=" + work},
		{"cgroup2", cgroupRoot, "cgroup2", 0, ""}, // runtimes handle a fresh one alike on every machine
	} {
		if err := syscall.Mount(m.source, m.target, m.kind, m.flags, m.data); err != nil {
			return fmt.Errorf("mounting on %s: %w", m.target, err)
		}
	}
	// As systemd has it. Elsewhere dockerd mounts its data folder on itself.
	if err := syscall.Mount("", "/", "", syscall.MS_SHARED|syscall.MS_REC, ""); err != nil {
		return fmt.Errorf("sharing mounts: %w", err)
	}
	return nil
}

// unmountCgroups unmounts all cgroup file systems.
func unmountCgroups() error {
	for {
		err := syscall.Unmount(cgroupRoot, syscall.MNT_DETACH)
		if errors.Is(err, syscall.EINVAL) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("unmounting %s: %w", cgroupRoot, err)
		}
	}
}

// installName makes the program under test callable by the name that clients use. If the run has an
// option for all mounts of root, the name is a script that adds it, because clients cannot. It adds
// nothing in a user namespace, whose first line of uid_map maps uid 0 to another.
func installName(path string) error {
	io := os.Getenv(EnvIO)
	if io == "" {
		return os.Symlink(Program, path)
	}
	script := fmt.Sprintf(`#!/bin/bash
read -r _ outside _ </proc/self/uid_map
[ "$outside" != 0 ] || set -- "$@" -o io=%s
exec -a fuse-overlayfs %s "$@"
`, io, Program)
	return os.WriteFile(path, []byte(script), 0o755)
}

// dropInherited unmounts the copies of FUSE mounts in the new namespace. They would keep their
// daemons alive and their uppers in use after the unmount outside.
func dropInherited() error {
	var errs []error
	for _, m := range slices.Backward(MountTable()) {
		if strings.HasPrefix(m.Kind, "fuse.") {
			errs = append(errs, syscall.Unmount(m.Point, syscall.MNT_DETACH))
		}
	}
	return errors.Join(errs...)
}

// OtherProgram is a folder in ModePrivate with the fuse-overlayfs of the distribution.
func OtherProgram() string { return filepath.Join(RunDir, string(ModePrivate), "ns", "other") }

// keepOther copies the fuse-overlayfs of the distribution to the folder OtherProgram.
func keepOther() error {
	if err := os.MkdirAll(OtherProgram(), 0o755); err != nil {
		return err
	}
	err := CopyFile("/usr/bin/fuse-overlayfs", OtherProgram()+"/fuse-overlayfs")
	if errors.Is(err, fs.ErrExist) {
		return nil // another test has
	}
	return err
}

// hideOthers makes every other program called fuse-overlayfs fail, so that none passes a test in
// place of the program.
func hideOthers() error {
	for dir := range strings.SplitSeq(privatePath, ":") {
		other := dir + "/fuse-overlayfs"
		if _, err := os.Stat(other); err != nil {
			continue
		}
		if err := syscall.Mount("/dev/null", other, "", syscall.MS_BIND, ""); err != nil {
			return fmt.Errorf("hiding %s: %w", other, err)
		}
	}
	return nil
}

// CgroupName is the cgroup of the containers of this run.
func CgroupName() string { return "/" + filepath.Base(RunDir) }

// removeCgroups removes the cgroups of this run, which outlive their processes and the namespaces.
func removeCgroups() error {
	var errs []error
	for _, m := range MountTable() {
		if m.Kind == "cgroup2" {
			errs = append(errs, removeCgroup(m.Point+CgroupName()))
		}
	}
	return errors.Join(errs...)
}

func removeCgroup(dir string) error {
	var dirs []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	slices.Reverse(dirs)
	for _, d := range dirs {
		// A process that has ended stays in its cgroup until its parent reaps it.
		free := Eventually(leakLimit, func() bool { err = syscall.Rmdir(d); return !errors.Is(err, syscall.EBUSY) })
		if !free || err != nil {
			return fmt.Errorf("removing %s: %w", d, err)
		}
	}
	return err
}
