package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A mount ends with the last process that can reach it, and its daemon with the mount.

// daemonsWith lists the daemons that have an argument.
func daemonsWith(arg string) (pids []int) {
	for _, pid := range processesOf(binPath) {
		if strings.Contains(strings.Join(cmdline(pid), " "), arg) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// wantNoDaemon waits for the end of all daemons of an overlay.
func (o *overlay) wantNoDaemon(what string) {
	o.t.Helper()
	if !eventually(5*time.Second, func() bool { return len(daemonsWith(o.upper)) == 0 }) {
		o.t.Errorf("%s: the daemons %v are left", what, daemonsWith(o.upper))
		for _, pid := range daemonsWith(o.upper) {
			kill(pid, syscall.SIGKILL)
		}
	}
}

// inside runs a script in a mount namespace of its own, with the overlay mounted.
func (o *overlay) inside(foreground bool, script string) (string, error) {
	program, args := o.command()
	line := program + " " + strings.Join(args, " ")
	if foreground {
		line = fmt.Sprintf("%s -f %s & until mountpoint -q %s; do sleep 0.01; done", program, strings.Join(args, " "), o.mnt)
	}
	return runCommand("unshare", "-m", "sh", "-euc", line+"\n"+script)
}

// With the namespace in which it was made a mount ends, as does its daemon, also one in the foreground; and the next mount of the
// upper comes up at once.
func TestMountEndsWithItsNamespace(t *testing.T) {
	needDaemon(t)
	eachMode(t, rootModes, func(t *testing.T, e *env) {
		for _, foreground := range []bool{false, true} {
			o := newEnv(t, e.mode).overlay(t, "file f \"x\"\nfile d/g \"y\"")
			for i := range 3 {
				start := time.Now()
				out, err := o.inside(foreground, fmt.Sprintf("echo %d >>%s/f; cat %s/d/g", i, o.mnt, o.mnt))
				if err != nil || out != "y" {
					t.Fatalf("foreground %v, run %d: %v %q", foreground, i, err, out)
				}
				if took := time.Since(start); took > 2*time.Second {
					t.Errorf("foreground %v, run %d waited %v", foreground, i, took)
				}
			}
			o.wantNoDaemon(fmt.Sprintf("foreground %v", foreground))
			wantText(t, o.upper+"/f", "x0\n1\n2\n")
			if log := readText(t, o.log); strings.Contains(log, "stays in the mount namespace") {
				t.Errorf("the daemon had no namespace of its own:\n%s", log)
			}
		}
	})
}

// The same where the process that mounted is killed, and where one has the mount as its root.
func TestMountEndsWithAKilledEngine(t *testing.T) {
	needDaemon(t)
	eachMode(t, rootModes, func(t *testing.T, e *env) {
		o := e.overlay(t, "file f \"x\"\ndir sub")
		program, args := o.command()
		engine := exec.Command("unshare", "-m", "--propagation", "private", "sh", "-euc", program+" "+strings.Join(args, " ")+"; echo up; exec sleep 1000")
		out, err := engine.StdoutPipe()
		check(t, err)
		check(t, engine.Start())
		line := make([]byte, 3)
		_, err = out.Read(line)
		check(t, err)
		if n := len(daemonsWith(o.upper)); n != 1 {
			t.Errorf("%d daemons, want 1", n)
		}
		check(t, engine.Process.Kill())
		_ = engine.Wait()
		o.wantNoDaemon("the engine was killed")
		o.mount()
		wantText(t, o.path("f"), "x")
		o.unmount()
	})
}

// What is mounted on the layers' file system is not held by a daemon that has ended with its namespace, nor by one that runs: its
// own namespace is empty.
func TestDaemonHoldsNoMounts(t *testing.T) {
	needDaemon(t)
	eachMode(t, rootModes, func(t *testing.T, e *env) {
		disk, other := e.dir+"/disk", e.dir+"/other"
		mkdir(t, disk, other)
		check(t, unix.Mount("tmpfs", disk, "tmpfs", 0, ""))
		check(t, unix.Mount("tmpfs", other, "tmpfs", 0, ""))
		otherDev := deviceOf(t, other)
		o := e.overlay(t, "file f \"x\"")
		o.upper, o.work = disk+"/upper", disk+"/work"
		mkdir(t, o.upper, o.work)
		o.mount()
		check(t, unix.Unmount(other, 0))
		table := readText(t, fmt.Sprintf("/proc/%d/mountinfo", o.pid))
		for _, line := range strings.Split(strings.TrimSpace(table), "\n") {
			if f := strings.Fields(line); f[4] != "/" && !strings.HasPrefix(f[4], "/proc") {
				t.Errorf("in the daemon's namespace: %s", line)
			}
		}
		if strings.Contains(table, otherDev) {
			t.Error("the daemon still has the other file system")
		}
		check(t, unix.Unmount(disk, unix.MNT_DETACH))
		o.unmount()
	})
}

func deviceOf(t *testing.T, path string) string {
	t.Helper()
	var st unix.Stat_t
	check(t, unix.Stat(path, &st))
	return fmt.Sprintf(" %d:%d ", unix.Major(st.Dev), unix.Minor(st.Dev))
}

// keeper is a process in a mount namespace that is a copy of this one.
func keeper(t *testing.T, script string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("unshare", "-m", "--propagation", "private", "sh", "-euc", script+"; echo up; exec sleep 1000")
	out, err := cmd.StdoutPipe()
	check(t, err)
	check(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	line := make([]byte, 3)
	if _, err := out.Read(line); err != nil {
		t.Fatalf("%s: %v", script, err)
	}
	return cmd
}

// A mount that was unmounted where it was made, and lives on as a copy in another namespace, hands
// its upper over to the next mount. Earlier writes through it are in the upper. Later changes
// through it are ESTALE. Reads go on.
func TestCopyHandsItsUpperOver(t *testing.T) {
	needDaemon(t)
	eachIO(t, rootModes, func(t *testing.T, e *env) {
		o := e.mounted(t, "file f \"lower\"\nfile kept \"kept\"\nfile d/g \"g\"")
		old, oldLog := o.pid, o.log
		write(t, o.path("f"), "before")
		k := keeper(t, "true")
		theirs := func(rel string) string { return fmt.Sprintf("/proc/%d/root%s", k.Process.Pid, o.path(rel)) }
		// The last page of a file is dirty through a mapping, which nothing has written back.
		f := open(t, theirs("kept"), os.O_RDWR)
		var page []byte
		if !e.has(passthrough) {
			var err error
			page, err = unix.Mmap(int(f.Fd()), 0, 4, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			check(t, err)
			copy(page, "KEPT")
		}
		check(t, f.Close())
		check(t, o.tryUnmount())
		o.watchdog.Stop()
		time.Sleep(50 * time.Millisecond)
		if !alive(old) {
			t.Fatal("the daemon left while another namespace has the mount")
		}

		o.log += "2"
		start := time.Now()
		program, args := o.command()
		if out, err := runCommand(program, args...); err != nil {
			t.Fatalf("mounting again: %v\n%s\nthe old log:\n%s", err, out, readText(t, oldLog))
		}
		o.pid = slices.DeleteFunc(daemonsOf(o.mnt), func(pid int) bool { return pid == old })[0]
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("the next mount waited %v", took)
		}
		if !e.has(passthrough) {
			wantText(t, o.path("kept"), "KEPT")
		}
		wantText(t, o.path("f"), "before")
		for what, err := range map[string]error{
			"create": os.WriteFile(theirs("new"), nil, 0o644), "remove": os.Remove(theirs("f")), "chmod": os.Chmod(theirs("d/g"), 0o600),
			"mkdir": os.Mkdir(theirs("d/new"), 0o755), "rename": os.Rename(theirs("f"), theirs("e")), "truncate": os.Truncate(theirs("f"), 0),
			"xattr": unix.Setxattr(theirs("f"), "user.x", nil, 0), "link": os.Link(theirs("f"), theirs("l")),
			"symlink": os.Symlink("x", theirs("s")),
		} {
			if !strings.Contains(fmt.Sprint(err), "stale") {
				t.Errorf("%s through the copy: %v, want ESTALE", what, err)
			}
		}
		wantText(t, theirs("f"), "before")
		wantText(t, theirs("d/g"), "g")
		wantNames(t, theirs("d"), "g")
		write(t, o.path("f"), "after")
		if log := readText(t, oldLog); !strings.Contains(log, "another mount has got the upperdir") {
			t.Errorf("the log of the old mount:\n%s", log)
		}
		wantEmpty(t, filepath.Join(o.work, "work"))
		o.unmount()
		if page != nil {
			check(t, unix.Munmap(page))
		}
		_ = k.Process.Kill()
		_ = k.Wait()
		if !waitGone(old, 5*time.Second) {
			t.Error("the daemon outlives the last copy")
		}
		wantText(t, o.upper+"/f", "after")
	})
}

// A mount that is in sight in the namespace where it was made keeps its upper, for a new mount in
// any namespace.
func TestMountInSightKeepsItsUpper(t *testing.T) {
	needDaemon(t)
	eachMode(t, rootModes, func(t *testing.T, e *env) {
		o := e.overlay(t, "file f \"x\"")
		k := keeper(t, binPath+" -o "+o.options()+" "+o.mnt)
		out, err := runCommand(binPath, "-o", o.options(), o.mnt)
		pid := daemonsWith(o.upper)
		if exitCode(err) != 1 || len(pid) != 1 || !strings.Contains(out, "in use") || !strings.Contains(out, "process "+strconv.Itoa(pid[0])) {
			t.Errorf("daemons %v: %v %q", pid, err, out)
		}
		write(t, fmt.Sprintf("/proc/%d/root%s", k.Process.Pid, o.path("f")), "still writable")
		wantText(t, o.upper+"/f", "still writable")
		_ = k.Process.Kill()
		_ = k.Wait()
		o.wantNoDaemon("its namespace has ended")
	})
}

// A signal unmounts in the namespace where the mount was made, wherever it has been moved to there.
func TestSignalFindsTheMount(t *testing.T) {
	needDaemon(t)
	eachMode(t, rootModes, func(t *testing.T, e *env) {
		o := e.overlay(t, "file f \"x\"")
		moved := e.dir + "/moved"
		mkdir(t, moved)
		k := keeper(t, binPath+" -o "+o.options()+" "+o.mnt+"; mount -n --move "+o.mnt+" "+moved)
		pids := daemonsWith(o.upper)
		if len(pids) != 1 {
			t.Fatalf("daemons: %v", pids)
		}
		seen := func() bool {
			return strings.Contains(readText(t, fmt.Sprintf("/proc/%d/mountinfo", k.Process.Pid)), " "+moved+" ")
		}
		if !seen() {
			t.Fatal("the mount is not where it was moved to")
		}
		check(t, syscall.Kill(pids[0], syscall.SIGTERM))
		o.wantNoDaemon("after SIGTERM")
		if seen() {
			t.Error("the mount is still there")
		}
	})
}
