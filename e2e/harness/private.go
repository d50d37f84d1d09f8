package harness

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// modePrivate is root in namespaces of its own, for clients that run daemons and use fixed paths: nothing they start,
// mount, or write to /run and /etc is seen outside, and all of it ends with the test's process, however that ends.
const modePrivate Mode = "private"

var PrivateModes = []Mode{modePrivate}

// privateArgs enter modePrivate. The first process of the namespace is a shell: it reaps orphans, which the tests do not.
var privateArgs = []string{"unshare", "--mount", "--pid", "--net", "--ipc", "--fork", "--kill-child", "--mount-proc", "--",
	"sh", "-c", `"$@"; exit "$?"`, "sh"}

// privatePath begins with the folder that mount(8) and its helpers search first, whatever PATH their caller has.
const privatePath = "/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"

const cgroupRoot = "/sys/fs/cgroup"

// enterPrivate prepares the namespaces for clients: the program under test is what the name fuse-overlayfs leads to.
func enterPrivate() error {
	dir := filepath.Join(RunDir, string(modePrivate), "ns")
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
	if err := errors.Join(dropInherited(), hideOthers()); err != nil {
		return err
	}
	// Everything that is mounted for cgroups, and a fresh cgroup2, which runtimes handle in one way on every machine.
	for {
		err := syscall.Unmount(cgroupRoot, syscall.MNT_DETACH)
		if errors.Is(err, syscall.EINVAL) {
			break
		}
		if err != nil {
			return fmt.Errorf("unmounting %s: %w", cgroupRoot, err)
		}
	}
	for _, m := range []struct {
		source, target, kind string
		flags                uintptr
		data                 string
	}{
		{bin, "/usr/local/sbin", "", syscall.MS_BIND, ""},
		{"tmpfs", "/run", "tmpfs", 0, "mode=755"},
		{"overlay", "/etc", "overlay", 0, "lowerdir=/etc,upperdir=" + upper + ",workdir=" + work},
		{"cgroup2", cgroupRoot, "cgroup2", 0, ""},
	} {
		if err := syscall.Mount(m.source, m.target, m.kind, m.flags, m.data); err != nil {
			return fmt.Errorf("mounting on %s: %w", m.target, err)
		}
	}
	return nil
}

// installName makes the program under test callable by the name that clients know. Clients have no place for an option of
// the run: then the name is a script that adds it.
func installName(path string) error {
	io := os.Getenv(EnvIO)
	if io == "" {
		return os.Symlink(Program, path)
	}
	script := fmt.Sprintf("#!/bin/bash\nexec -a fuse-overlayfs %s \"$@\" -o io=%s\n", Program, io)
	return os.WriteFile(path, []byte(script), 0o755)
}

// dropInherited lets go of the FUSE mounts that the new namespace has a copy of: unmounted outside, they would keep their
// daemons alive, and their uppers taken, until our end.
func dropInherited() error {
	var errs []error
	for _, m := range slices.Backward(MountTable()) {
		if strings.HasPrefix(m.Kind, "fuse.") {
			errs = append(errs, syscall.Unmount(m.Point, syscall.MNT_DETACH))
		}
	}
	return errors.Join(errs...)
}

// hideOthers makes every other program called fuse-overlayfs fail, so that none can pass a test in place of ours.
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

// CgroupName is the cgroup below which the containers of this run are.
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
		// A dying process is in its cgroup until it is reaped.
		if !Eventually(5*time.Second, func() bool { err = syscall.Rmdir(d); return !errors.Is(err, syscall.EBUSY) }) || err != nil {
			return fmt.Errorf("removing %s: %w", d, err)
		}
	}
	return err
}

// NothingLeft has the end of a test in modePrivate look for what its client has left, and end it. Called first, it runs
// after all other cleanups.
func NothingLeft(t *testing.T) {
	t.Helper()
	before := processTable()
	t.Cleanup(func() {
		left := map[int]string{}
		Eventually(5*time.Second, func() bool {
			left = processTable()
			for pid := range before {
				delete(left, pid)
			}
			return len(left) == 0
		})
		for pid, what := range left {
			t.Errorf("left: process %d: %.100s", pid, what)
			Kill(pid, syscall.SIGKILL)
		}
		for _, m := range MountTable() {
			if strings.HasPrefix(m.Point, RunDir+"/") {
				t.Errorf("left: mount %s (%s)", m.Point, m.Kind)
				_ = syscall.Unmount(m.Point, syscall.MNT_DETACH)
			}
		}
		if err := removeCgroup(cgroupRoot + CgroupName()); err != nil {
			t.Errorf("left: %v", err)
		}
	})
}

// processTable lists the living processes of the namespace with their command lines.
func processTable() map[int]string {
	table := map[int]string{}
	entries, _ := os.ReadDir("/proc")
	for _, entry := range entries {
		if pid, err := strconv.Atoi(entry.Name()); err == nil && Alive(pid) {
			table[pid] = strings.Join(Cmdline(pid), " ")
		}
	}
	return table
}

const serviceLimit = 20 * time.Second // for the start and for the end of a daemon

// StartService starts a client's daemon in the foreground, waits until it answers, and ends it with the test.
func StartService(t *testing.T, e *Env, ready func() error, program string, args ...string) {
	t.Helper()
	logPath := filepath.Join(e.Dir, filepath.Base(program)+".log")
	log, err := os.Create(logPath)
	Check(t, err)
	defer log.Close()
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr, cmd.Dir = log, log, "/"
	Check(t, cmd.Start())
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	t.Cleanup(func() {
		Kill(cmd.Process.Pid, syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(serviceLimit):
			t.Errorf("%s has not ended %v after SIGTERM", program, serviceLimit)
			Kill(cmd.Process.Pid, syscall.SIGKILL)
			<-ended
		}
		if t.Failed() {
			text, _ := os.ReadFile(logPath)
			t.Logf("the log of %s:\n%s", program, Tail(string(text), 6000))
		}
	})
	var answer error
	Eventually(serviceLimit, func() bool {
		answer = ready()
		select {
		case <-ended:
			return true
		default:
			return answer == nil
		}
	})
	if answer != nil {
		t.Fatalf("%s does not answer: %v", program, answer)
	}
}

func Tail(s string, n int) string {
	if len(s) > n {
		return "..." + s[len(s)-n:]
	}
	return s
}
