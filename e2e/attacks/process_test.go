package attacks

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// envTracer makes the test binary a process that tries to reach into another one, whose number is
// the value.
const envTracer = "FUSE_OVERLAY_E2E_TRACER"

// trace tries each way into a process, and prints the ways that work. It does not try to read the
// environment and the list of mappings, for which CAP_SYS_ADMIN of the first user namespace is
// enough (may_access_mm of the kernel).
func trace(number string) error {
	pid, err := strconv.Atoi(number)
	if err != nil {
		return err
	}
	proc := "/proc/" + number
	open := func(name string) func() error {
		return func() error {
			f, err := os.Open(filepath.Join(proc, name))
			if err == nil {
				_ = f.Close()
			}
			return err
		}
	}
	for _, way := range []struct {
		name string
		try  func() error
	}{
		{"the file of a descriptor", open("fd/0")},
		{"what a descriptor is", func() error { _, err := os.Readlink(proc + "/fd/0"); return err }},
		{"the root", open("root")},
		{"the working directory", open("cwd")},
		{"the memory", open("mem")},
		{"ptrace", func() error { return unix.PtraceSeize(pid) }},
		{"a descriptor", func() error {
			process, err := unix.PidfdOpen(pid, 0)
			if err != nil {
				return err
			}
			_, err = unix.PidfdGetfd(process, 0, 0)
			return err
		}},
		{"a copy of memory", func() error {
			local := unix.Iovec{Base: new(byte)}
			local.SetLen(1)
			_, err := unix.ProcessVMReadv(pid, []unix.Iovec{local}, []unix.RemoteIovec{{Base: 0x400000, Len: 1}}, 0)
			return err
		}},
	} {
		switch err := way.try(); {
		case err == nil, err == unix.EFAULT: // permitted, but nothing is mapped there
			fmt.Println(way.name)
		case !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EACCES):
			return fmt.Errorf("%s: %w", way.name, err)
		}
	}
	return nil
}

// waysInto runs a copy of the test binary, by a command that runs its arguments, and returns the
// ways into a process that work.
func waysInto(t *testing.T, pid int, tracer string, command ...string) string {
	t.Helper()
	cmd := exec.Command(command[0], append(slices.Clone(command[1:]), tracer)...)
	cmd.Env = append(os.Environ(), envTracer+"="+strconv.Itoa(pid))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", command, err, out)
	}
	return strings.ReplaceAll(strings.TrimSpace(string(out)), "\n", ", ")
}

// withoutTracing runs a command as uid 0 with all capabilities but CAP_SYS_PTRACE.
var withoutTracing = []string{"setpriv", "--bounding-set", "-sys_ptrace", "--inh-caps", "-sys_ptrace"}

// No process without CAP_SYS_PTRACE reaches into the daemon of uid 0, not even one of this user
// with all capabilities that the daemon has: a process of a container in the same user namespace.
func TestDaemonRefusesTracing(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.RootModes, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "file f 0600 \"x\"")
		// A daemon that has as few capabilities as the tracer.
		program, args := o.Command()
		script := filepath.Join(e.Dir, "mount")
		words := append(slices.Clone(withoutTracing), program, `"$@"`)
		harness.Write(t, script, "#!/bin/sh\nexec "+strings.Join(words, " ")+"\n")
		harness.Check(t, os.Chmod(script, 0o755))
		if out, err := harness.Run(script, args...); err != nil {
			t.Fatalf("mounting: %v\n%s", err, out)
		}
		o.Guard()
		o.PID = onlyDaemon(t, o)
		self, err := os.Executable()
		harness.Check(t, err)
		tracer := filepath.Join(e.Dir, "tracer")
		harness.Check(t, harness.CopyFile(self, tracer))
		sleeper := exec.Command(withoutTracing[0], append(slices.Clone(withoutTracing[1:]), "sleep", "1000")...)
		harness.Check(t, sleeper.Start())
		t.Cleanup(func() { _ = sleeper.Process.Kill(); _ = sleeper.Wait() })
		if ways := waysInto(t, sleeper.Process.Pid, tracer, withoutTracing...); !strings.Contains(ways, "the file of a descriptor") {
			t.Errorf("the tracer reaches into another process by %q only: the test shows nothing", ways)
		}
		harness.Equal(t, "ways into the daemon of its own user without CAP_SYS_PTRACE",
			waysInto(t, o.PID, tracer, withoutTracing...), "")
		harness.Equal(t, "ways into the daemon from a user namespace below",
			waysInto(t, o.PID, tracer, "unshare", "--user", "--map-root-user"), "")
		harness.Equal(t, "ways into the daemon of another user",
			waysInto(t, o.PID, tracer, "setpriv", "--reuid", strconv.Itoa(attacker), "--regid", strconv.Itoa(attacker), "--clear-groups"), "")
		harness.WantText(t, o.Path("f"), "x")
	})
}

// onlyDaemon is the daemon of a mount that TryMount has not made.
func onlyDaemon(t *testing.T, o *harness.Overlay) int {
	t.Helper()
	pids := harness.DaemonsOf(o.Point)
	if len(pids) != 1 {
		t.Fatalf("daemons of %s: %v, want one", o.Point, pids)
	}
	return pids[0]
}

// A program that the daemon executes inherits no descriptor of a layer, the device or the log.
func TestDescriptorsAreClosedOnExec(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachPolicy(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "file d/f \"x\"\nfile g 0600 \"y\"\nlink h g")
		o.Opts = append(o.Opts, "index=on")
		o.Mount()
		harness.WantText(t, o.Path("d/f"), "x")
		harness.AppendTo(t, o.Path("g"), "+")
		open := harness.Open(t, o.Path("h"), os.O_RDWR)
		harness.Check(t, os.Remove(o.Path("g")))
		harness.Check(t, os.Remove(o.Path("h")))
		defer open.Close()
		checked := 0
		for n, target := range harness.OpenFDs(o.PID) {
			if n < 3 && target == "/dev/null" {
				continue
			}
			info, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%d", o.PID, n))
			if errors.Is(err, os.ErrNotExist) {
				continue
			}
			harness.Check(t, err)
			_, text, _ := strings.Cut(string(info), "flags:")
			flags, err := strconv.ParseUint(strings.Fields(text)[0], 8, 64)
			harness.Check(t, err)
			if flags&syscall.O_CLOEXEC == 0 {
				t.Errorf("descriptor %d (%s) would be inherited", n, target)
			}
			checked++
		}
		if checked < 5 {
			t.Errorf("only %d descriptors were checked", checked)
		}
	})
}
