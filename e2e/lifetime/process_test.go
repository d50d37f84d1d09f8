package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The daemon lets go of all that is its caller's.
func TestDaemonLetsGoOfItsCaller(t *testing.T) {
	needDaemon(t)
	eachMode(t, allModes, func(t *testing.T, e *env) {
		o := e.overlay(t, "file f \"x\"")
		extra, err := os.CreateTemp(e.dir, "inherited")
		check(t, err)
		defer extra.Close()
		cmd := exec.Command(binPath, "-o", o.options(), o.mnt)
		cmd.Dir = e.dir
		cmd.ExtraFiles = []*os.File{extra}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		equal(t, "written", string(out), "")
		o.guard()
		pids := daemonsOf(o.mnt)
		if len(pids) != 1 {
			t.Fatalf("daemons: %v", pids)
		}
		o.pid = pids[0]
		wantDetached(t, o.pid, extra.Name())
		m, ok := mountAt(o.mnt)
		if !ok || m.kind != "fuse."+filepath.Base(binPath) {
			t.Errorf("mounted %v as %s", ok, m.kind)
		}
		var limit unix.Rlimit
		check(t, unix.Prlimit(o.pid, unix.RLIMIT_NOFILE, nil, &limit))
		equal(t, "RLIMIT_NOFILE raised", limit.Cur, limit.Max)
		if limit.Max > 4096 { // else the table of descriptors grows in the first walk, and each time that waits for all processors
			status := readText(t, fmt.Sprintf("/proc/%d/status", o.pid))
			if size := regexp.MustCompile(`FDSize:\s+(\d+)`).FindStringSubmatch(status); size == nil || len(size[1]) < 4 {
				t.Errorf("room for descriptors: %q", size)
			}
		}
		o.unmount()
	})
}

// wantDetached fails if a daemon holds what was its caller's: the standard streams, a pipe, one of the files named, the
// working directory, the session, or a parent other than who adopts orphans here.
func wantDetached(t *testing.T, pid int, files ...string) {
	t.Helper()
	fds := openFDs(pid)
	for i := range 3 {
		equal(t, fmt.Sprintf("descriptor %d", i), fds[i], "/dev/null")
	}
	for n, target := range fds {
		if strings.HasPrefix(target, "pipe:") || slices.Contains(files, target) {
			t.Errorf("descriptor %d is still %s", n, target)
		}
	}
	cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
	check(t, err)
	equal(t, "working directory", cwd, "/")
	f := statFields(pid)
	equal(t, "its own session", f[3], fmt.Sprint(pid))
	equal(t, "parent", f[1], parentOfOrphans())
}

// parentOfOrphans is who adopts processes here: init, or a subreaper above us.
var parentOfOrphans = sync.OnceValue(func() string {
	out, err := exec.Command("bash", "-c", "sleep 0.3 >/dev/null & echo $!; sleep 0.05").Output()
	if err != nil {
		return "unknown: " + err.Error()
	}
	if f := statFields(atoi(strings.TrimSpace(string(out)))); len(f) > 1 {
		return f[1]
	}
	return "1"
})

// HUP, INT and TERM unmount and end the daemon; also in the foreground, with exit 0.
func TestSignalsUnmount(t *testing.T) {
	needDaemon(t)
	eachMode(t, allModes, func(t *testing.T, e *env) {
		for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM} {
			t.Run(unix.SignalName(sig), func(t *testing.T) {
				o := newEnv(t, e.mode).mounted(t, "file f \"x\"")
				write(t, o.path("f"), "written before the signal")
				check(t, syscall.Kill(o.pid, sig))
				o.expectEnd()
				if o.isMounted() {
					t.Error("still mounted")
				}
				wantText(t, filepath.Join(o.upper, "f"), "written before the signal")

				cmd := exec.Command(binPath, "-f", "-o", o.options(), o.mnt)
				check(t, cmd.Start())
				if !eventually(5*time.Second, o.isMounted) {
					t.Fatal("not mounted in the foreground")
				}
				wantText(t, o.path("f"), "written before the signal")
				check(t, cmd.Process.Signal(sig))
				done := make(chan error, 1)
				go func() { done <- cmd.Wait() }()
				select {
				case err := <-done:
					if err != nil {
						t.Errorf("the foreground process ended with %v, want exit 0", err)
					}
				case <-time.After(10 * time.Second):
					t.Error("the foreground process goes on")
					_ = cmd.Process.Kill()
				}
				if o.isMounted() {
					t.Error("still mounted after the foreground process")
				}
			})
		}
	})
}

// With -d every request is logged, and answered as always: large ones too, which another way leads to.
func TestDebugServesTheSame(t *testing.T) {
	needDaemon(t)
	eachMode(t, onlyRoot, func(t *testing.T, e *env) { debugging(t, e.overlay(t, "dir d")) })
}

func debugging(t *testing.T, o *overlay) {
	o.opts = append(o.opts, "io=cached") // with passthrough nobody asks for data
	large := strings.Repeat("not all the same ", 100_000)
	write(t, filepath.Join(o.lowers[0], "d/large"), large)
	cmd := exec.Command(binPath, "-d", "-o", o.options(), o.mnt)
	check(t, cmd.Start())
	o.pid = cmd.Process.Pid
	go func() { _ = cmd.Wait() }()
	o.guard()
	if !eventually(5*time.Second, o.isMounted) {
		t.Fatal("not mounted")
	}
	wantText(t, o.path("d/large"), large)
	write(t, o.path("d/copy"), large)
	wantText(t, filepath.Join(o.upper, "d/copy"), large)
	wantNames(t, o.path("d"), "copy", "large")
	o.unmount()
	log := readText(t, o.log)
	for _, request := range []string{"LOOKUP", "READ ", "WRITE", "READDIRPLUS"} {
		if !strings.Contains(log, request) {
			t.Errorf("no %s in the log", request)
		}
	}
	if n := strings.Count(log, ": READ "); n > 20 {
		t.Errorf("%d READs of %d bytes: the kernel asks page by page where more is refused", n, len(large))
	}
}

// A signal while somebody works in the mount: it goes away from the tree, what was written is in the upper.
func TestSignalOnBusyMount(t *testing.T) {
	needDaemon(t)
	eachMode(t, allModes, func(t *testing.T, e *env) {
		o := e.mounted(t, "file f \"x\"")
		f := open(t, o.path("f"), os.O_WRONLY)
		_, err := f.WriteString("busy")
		check(t, err)
		check(t, syscall.Kill(o.pid, syscall.SIGTERM))
		if !eventually(10*time.Second, func() bool { return !o.isMounted() }) {
			t.Error("still mounted")
		}
		_ = f.Close()
		o.expectEnd()
		wantText(t, filepath.Join(o.upper, "f"), "busy")
	})
}

// The daemon ends when the mount is gone, whoever took it away; with a lazy unmount when the last user is.
func TestDaemonEndsWithTheMount(t *testing.T) {
	needDaemon(t)
	eachMode(t, allModes, func(t *testing.T, e *env) {
		o := e.mounted(t, "file f \"x\"")
		f := open(t, o.path("f"), os.O_RDWR)
		check(t, o.detach())
		time.Sleep(100 * time.Millisecond)
		if !alive(o.pid) {
			t.Fatal("the daemon left while a file was open")
		}
		_, err := f.WriteString("written after the lazy unmount")
		check(t, err)
		check(t, f.Close())
		o.expectEnd()
		wantText(t, filepath.Join(o.upper, "f"), "written after the lazy unmount")
	})
}

// Layers may lie under the mount point.
func TestLayersUnderTheMountPoint(t *testing.T) {
	needDaemon(t)
	eachMode(t, allModes, func(t *testing.T, e *env) {
		root := filepath.Join(e.dir, "R")
		o := e.overlay(t)
		o.lowers, o.upper, o.work, o.mnt = []string{root + "/lower"}, root+"/upper", root+"/work", root
		mkdir(t, root+"/lower", o.upper, o.work)
		write(t, root+"/lower/f", "lower")
		o.mount()
		wantTree(t, "merged", root, "file f \"lower\"")
		appendTo(t, root+"/f", "+")
		write(t, root+"/new", "new")
		o.unmount()
		wantTree(t, "the upper", o.upper, "file f \"lower+\"\nfile new \"new\"")
	})
}

// The whole system as the lower, with the layers inside of it.
func TestRootAsLower(t *testing.T) {
	eachMode(t, onlyRoot, func(t *testing.T, e *env) {
		o := e.overlay(t)
		o.lowers = []string{"/"}
		victim := e.dir + "/victim"
		write(t, victim, "of the system")
		o.mount()
		wantText(t, o.path("etc/passwd"), readText(t, "/etc/passwd"))
		out, err := runCommand("chroot", o.mnt, "/bin/bash", "-euc", fmt.Sprintf(
			"cat %[1]s; echo changed >%[1]s; rm %[1]s; test ! -e %[1]s; echo new >/etc/e2e-new; cat /etc/e2e-new", victim))
		if err != nil || out != "of the systemnew\n" {
			t.Errorf("chroot: %v %q", err, out)
		}
		wantAbsent(t, "/etc/e2e-new")
		wantText(t, victim, "of the system")
		if _, err := os.Stat(o.path("proc/self")); err == nil {
			t.Error("mounts inside of the lower are not part of it, but /proc is there")
		}
		o.unmount()
		wantTree(t, "the upper", o.upper, "file etc/e2e-new \"new\\n\"\nwhite "+strings.TrimPrefix(victim, "/"))
	})
}

func readText(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	check(t, err)
	return string(text)
}

// A FUSE device that somebody else has opened and mounted.
func TestMountPointIsADescriptor(t *testing.T) {
	needDaemon(t)
	eachMode(t, rootModes, func(t *testing.T, e *env) {
		o := e.overlay(t, "file f \"x\"")
		dev, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
		check(t, err)
		defer dev.Close()
		data := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions", dev.Fd())
		check(t, unix.Mount("src", o.mnt, "fuse.given", 0, data))
		o.guard()
		cmd := exec.Command(binPath, "-o", o.options(), "/dev/fd/3")
		cmd.ExtraFiles = []*os.File{dev}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		check(t, dev.Close())
		if pids := daemonsOf("/dev/fd/3"); len(pids) == 1 {
			o.pid = pids[0]
		} else {
			t.Errorf("daemons: %v", pids)
		}
		wantText(t, o.path("f"), "x")
		appendTo(t, o.path("f"), "+")
		o.unmount()
		wantText(t, filepath.Join(o.upper, "f"), "x+")
	})
}

// The dead mount that a killed daemon leaves at the mount point gives way to the next mount.
func TestDeadMountGivesWay(t *testing.T) {
	needDaemon(t)
	eachMode(t, allModes, func(t *testing.T, e *env) {
		o := e.mounted(t, "file f \"x\"")
		write(t, o.path("new"), "n")
		for range 2 {
			kill(o.pid, syscall.SIGKILL)
			o.expectEnd()
			o.mount()
			n := 0
			for _, m := range mountTable() {
				if m.point == o.mnt {
					n++
				}
			}
			equal(t, "mounts at the mount point", n, 1)
			wantText(t, o.path("f"), "x")
			wantText(t, o.path("new"), "n")
		}
		if n := strings.Count(readText(t, o.log), "a dead mount of type fuse."); n != 2 {
			t.Errorf("%d lines of dead mounts in the log, want 2", n)
		}
		o.unmount()
		wantNames(t, o.mnt)
	})
}

// A dead mount stays where it is not this program's, or not at the very mount point.
func TestDeadMountOfOthersStays(t *testing.T) {
	needDaemon(t)
	eachMode(t, allModes, func(t *testing.T, e *env) {
		o := e.overlay(t, "dir d")
		o.opts = append(o.opts, "subtype=other")
		o.mount()
		kill(o.pid, syscall.SIGKILL)
		o.expectEnd()
		for _, point := range []string{o.mnt, o.mnt + "/d"} {
			out, err := runCommand(binPath, "-o", o.lowerdir(), point)
			if exitCode(err) != 1 || !strings.Contains(out, point) {
				t.Errorf("mounting at %s: exit %d, %q", point, exitCode(err), out)
			}
		}
		if !o.isMounted() {
			t.Error("the dead mount is gone")
		}
	})
}

// A mount of the same upper waits for the daemon of the last one, which umount leaves to end by itself: containerd's shim
// unmounts and mounts again when it has lost the exit code of its mount helper.
func TestMountWaitsForTheLastDaemon(t *testing.T) {
	needDaemon(t)
	eachMode(t, allModes, func(t *testing.T, e *env) {
		o := e.mounted(t, "file f \"x\"")
		write(t, o.path("new"), "n")
		last := o.pid
		kill(last, syscall.SIGSTOP)
		check(t, o.tryUnmount())
		again := time.AfterFunc(200*time.Millisecond, func() { kill(last, syscall.SIGCONT) })
		program, args := o.command()
		out, err := runCommand(program, args...)
		if again.Stop() {
			t.Error("the mount did not wait")
		}
		kill(last, syscall.SIGCONT)
		if !waitGone(last, 10*time.Second) {
			t.Errorf("the daemon %d is still there", last)
		}
		if err != nil {
			t.Fatalf("mounting again: %v\n%s", err, out)
		}
		o.pid = daemonsOf(o.mnt)[0]
		wantText(t, o.path("new"), "n")
		o.unmount()
	})
}
