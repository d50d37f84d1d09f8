package lifetime

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

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// wantNoDaemon waits for the end of all daemons of an overlay.
func wantNoDaemon(o *harness.Overlay, what string) {
	o.T.Helper()
	if !harness.Eventually(5*time.Second, func() bool { return len(harness.DaemonsWith(o.Upper)) == 0 }) {
		o.T.Errorf("%s: the daemons %v are left", what, harness.DaemonsWith(o.Upper))
		for _, pid := range harness.DaemonsWith(o.Upper) {
			harness.Kill(pid, syscall.SIGKILL)
		}
	}
}

// mountLine is the shell command that mounts an overlay in the background.
func mountLine(o *harness.Overlay) string {
	program, args := o.Command()
	return program + " " + strings.Join(args, " ")
}

// foregroundLine is mountLine for a daemon in the foreground.
func foregroundLine(o *harness.Overlay) string {
	program, args := o.Command()
	return fmt.Sprintf("%s -f %s & until mountpoint -q %s; do sleep 0.01; done", program, strings.Join(args, " "), o.Point)
}

// runInside runs a line that mounts and then a script, in a mount namespace of their own.
func runInside(line, script string) (string, error) {
	return harness.Run("unshare", "-m", "sh", "-euc", line+"\n"+script)
}

// A mount and its daemon end with the namespace in which they were made, also in the foreground.
// The next mount of the upper does not wait.
func TestMountEndsWithItsNamespace(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.RootModes, func(t *testing.T, e *harness.Env) {
		for where, line := range map[string]func(*harness.Overlay) string{"background": mountLine,
			"foreground": foregroundLine} {
			o := harness.NewEnv(t, e.Mode).Overlay(t, "file f \"x\"\nfile d/g \"y\"")
			for i := range 3 {
				start := time.Now()
				out, err := runInside(line(o), fmt.Sprintf("echo %d >>%s/f; cat %s/d/g", i, o.Point, o.Point))
				if err != nil || out != "y" {
					t.Fatalf("in the %s, run %d: %v %q", where, i, err, out)
				}
				if took := time.Since(start); took > 2*time.Second {
					t.Errorf("in the %s, run %d waited %v", where, i, took)
				}
			}
			wantNoDaemon(o, "in the "+where)
			harness.WantText(t, o.Upper+"/f", "x0\n1\n2\n")
			if log := harness.ReadText(t, o.Log); strings.Contains(log, "stays in the mount namespace") {
				t.Errorf("the daemon had no namespace of its own:\n%s", log)
			}
		}
	})
}

// The same holds if the process that has mounted is killed, and if a process has the mount as its
// root.
func TestMountEndsWithAKilledEngine(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.RootModes, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "file f \"x\"\ndir sub")
		program, args := o.Command()
		engine := exec.Command("unshare", "-m", "--propagation", "private", "sh", "-euc", program+" "+
			strings.Join(args, " ")+"; echo up; exec sleep 1000")
		out, err := engine.StdoutPipe()
		harness.Check(t, err)
		harness.Check(t, engine.Start())
		line := make([]byte, 3)
		_, err = out.Read(line)
		harness.Check(t, err)
		if n := len(harness.DaemonsWith(o.Upper)); n != 1 {
			t.Errorf("%d daemons, want 1", n)
		}
		harness.Check(t, engine.Process.Kill())
		_ = engine.Wait()
		wantNoDaemon(o, "the engine was killed")
		o.Mount()
		harness.WantText(t, o.Path("f"), "x")
		o.Unmount()
	})
}

// A daemon holds no mounts on the file system of the layers: its own mount namespace is empty.
func TestDaemonHoldsNoMounts(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.RootModes, func(t *testing.T, e *harness.Env) {
		disk, other := e.Dir+"/disk", e.Dir+"/other"
		harness.Mkdir(t, disk, other)
		harness.Check(t, unix.Mount("tmpfs", disk, "tmpfs", 0, ""))
		harness.Check(t, unix.Mount("tmpfs", other, "tmpfs", 0, ""))
		otherDev := deviceOf(t, other)
		o := e.Overlay(t, "file f \"x\"")
		o.Upper, o.Work = disk+"/upper", disk+"/work"
		harness.Mkdir(t, o.Upper, o.Work)
		o.Mount()
		harness.Check(t, unix.Unmount(other, 0))
		table := harness.ReadText(t, fmt.Sprintf("/proc/%d/mountinfo", o.PID))
		for _, line := range strings.Split(strings.TrimSpace(table), "\n") {
			if f := strings.Fields(line); f[4] != "/" && !strings.HasPrefix(f[4], "/proc") {
				t.Errorf("in the daemon's namespace: %s", line)
			}
		}
		if strings.Contains(table, otherDev) {
			t.Error("the daemon still has the other file system")
		}
		harness.Check(t, unix.Unmount(disk, unix.MNT_DETACH))
		o.Unmount()
	})
}

func deviceOf(t *testing.T, path string) string {
	t.Helper()
	var st unix.Stat_t
	harness.Check(t, unix.Stat(path, &st))
	return fmt.Sprintf(" %d:%d ", unix.Major(st.Dev), unix.Minor(st.Dev))
}

// keeper is a process in a mount namespace that is a copy of this one.
func keeper(t *testing.T, script string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("unshare", "-m", "--propagation", "private", "sh", "-euc", script+"; echo up; exec sleep 1000")
	out, err := cmd.StdoutPipe()
	harness.Check(t, err)
	harness.Check(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	line := make([]byte, 3)
	if _, err := out.Read(line); err != nil {
		t.Fatalf("%s: %v", script, err)
	}
	return cmd
}

// A mount that was unmounted where it was made, but has a copy in another namespace, hands its
// upper over to the next mount. Earlier writes through it are in the upper. Later changes through
// it are ESTALE. Reads still work.
func TestCopyHandsItsUpperOver(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachIO(t, harness.RootModes, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, "file f \"lower\"\nfile kept \"kept\"\nfile d/g \"g\"")
		old, oldLog := o.PID, o.Log
		harness.Write(t, o.Path("f"), "before")
		k := keeper(t, "true")
		theirs := func(rel string) string { return fmt.Sprintf("/proc/%d/root%s", k.Process.Pid, o.Path(rel)) }
		// The last page of a file is dirty through a mapping.
		f := harness.Open(t, theirs("kept"), os.O_RDWR)
		var page []byte
		if !e.Has(harness.Passthrough) {
			var err error
			page, err = unix.Mmap(int(f.Fd()), 0, 4, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			harness.Check(t, err)
			copy(page, "KEPT")
		}
		harness.Check(t, f.Close())
		harness.Check(t, o.TryUnmount())
		o.StopWatchdog()
		time.Sleep(50 * time.Millisecond)
		if !harness.Alive(old) {
			t.Fatal("the daemon left while another namespace has the mount")
		}

		o.Log += "2"
		start := time.Now()
		program, args := o.Command()
		if out, err := harness.Run(program, args...); err != nil {
			t.Fatalf("mounting again: %v\n%s\nthe old log:\n%s", err, out, harness.ReadText(t, oldLog))
		}
		o.PID = slices.DeleteFunc(harness.DaemonsOf(o.Point), func(pid int) bool { return pid == old })[0]
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("the next mount waited %v", took)
		}
		if !e.Has(harness.Passthrough) {
			harness.WantText(t, o.Path("kept"), "KEPT")
		}
		harness.WantText(t, o.Path("f"), "before")
		for what, err := range map[string]error{
			"create": os.WriteFile(theirs("new"), nil, 0o644), "remove": os.Remove(theirs("f")),
			"chmod": os.Chmod(theirs("d/g"), 0o600),
			"mkdir": os.Mkdir(theirs("d/new"), 0o755), "rename": os.Rename(theirs("f"), theirs("e")),
			"truncate": os.Truncate(theirs("f"), 0),
			"xattr":    unix.Setxattr(theirs("f"), "user.x", nil, 0), "link": os.Link(theirs("f"), theirs("l")),
			"symlink": os.Symlink("x", theirs("s")),
		} {
			if !strings.Contains(fmt.Sprint(err), "stale") {
				t.Errorf("%s through the copy: %v, want ESTALE", what, err)
			}
		}
		harness.WantText(t, theirs("f"), "before")
		harness.WantText(t, theirs("d/g"), "g")
		harness.WantNames(t, theirs("d"), "g")
		harness.Write(t, o.Path("f"), "after")
		if log := harness.ReadText(t, oldLog); !strings.Contains(log, "another mount has got the upperdir") {
			t.Errorf("the log of the old mount:\n%s", log)
		}
		wantEmpty(t, filepath.Join(o.Work, "work"))
		o.Unmount()
		if page != nil {
			harness.Check(t, unix.Munmap(page))
		}
		_ = k.Process.Kill()
		_ = k.Wait()
		if !harness.WaitGone(old, 5*time.Second) {
			t.Error("the daemon outlives the last copy")
		}
		harness.WantText(t, o.Upper+"/f", "after")
	})
}

// A mount that is visible in the namespace where it was made keeps its upper. A new mount in any
// namespace is refused.
func TestMountInSightKeepsItsUpper(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.RootModes, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "file f \"x\"")
		k := keeper(t, harness.Program+" -o "+o.MountOptions()+" "+o.Point)
		out, err := harness.Run(harness.Program, "-o", o.MountOptions(), o.Point)
		pid := harness.DaemonsWith(o.Upper)
		if harness.ExitCode(err) != 1 || len(pid) != 1 || !strings.Contains(out, "in use") ||
			!strings.Contains(out, "process "+strconv.Itoa(pid[0])) {
			t.Errorf("daemons %v: %v %q", pid, err, out)
		}
		harness.Write(t, fmt.Sprintf("/proc/%d/root%s", k.Process.Pid, o.Path("f")), "still writable")
		harness.WantText(t, o.Upper+"/f", "still writable")
		_ = k.Process.Kill()
		_ = k.Wait()
		wantNoDaemon(o, "its namespace has ended")
	})
}

// A signal unmounts in the namespace where the mount was made, even if the mount was moved there.
func TestSignalFindsTheMount(t *testing.T) {
	harness.Raced(t)
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.RootModes, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "file f \"x\"")
		moved := e.Dir + "/moved"
		harness.Mkdir(t, moved)
		k := keeper(t, harness.Program+" -o "+o.MountOptions()+" "+o.Point+"; mount -n --move "+o.Point+" "+moved)
		pids := harness.DaemonsWith(o.Upper)
		if len(pids) != 1 {
			t.Fatalf("daemons: %v", pids)
		}
		seen := func() bool {
			return strings.Contains(harness.ReadText(t, fmt.Sprintf("/proc/%d/mountinfo", k.Process.Pid)), " "+moved+" ")
		}
		if !seen() {
			t.Fatal("the mount is not where it was moved to")
		}
		harness.Check(t, syscall.Kill(pids[0], syscall.SIGTERM))
		wantNoDaemon(o, "after SIGTERM")
		if seen() {
			t.Error("the mount is still there")
		}
	})
}
