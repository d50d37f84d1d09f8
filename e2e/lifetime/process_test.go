package lifetime

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// The daemon holds nothing of its caller.
func TestDaemonLetsGoOfItsCaller(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "file f \"x\"")
		extra, err := os.CreateTemp(e.Dir, "inherited")
		harness.Check(t, err)
		defer extra.Close()
		cmd := exec.Command(harness.Program, "-o", o.MountOptions(), o.Point)
		cmd.Dir = e.Dir
		cmd.ExtraFiles = []*os.File{extra}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		harness.Equal(t, "written", string(out), "")
		o.Guard()
		pids := harness.DaemonsOf(o.Point)
		if len(pids) != 1 {
			t.Fatalf("daemons: %v", pids)
		}
		o.PID = pids[0]
		harness.WantDetached(t, o.PID, extra.Name())
		m, ok := harness.MountAt(o.Point)
		if !ok || m.Kind != "fuse."+filepath.Base(harness.Program) {
			t.Errorf("mounted %v as %s", ok, m.Kind)
		}
		var limit unix.Rlimit
		harness.Check(t, unix.Prlimit(o.PID, unix.RLIMIT_NOFILE, nil, &limit))
		harness.Equal(t, "RLIMIT_NOFILE raised", limit.Cur, limit.Max)
		// Else the table of descriptors grows in the first walk, and each time that waits for all
		// processors.
		if limit.Max > 4096 {
			status := harness.ReadText(t, fmt.Sprintf("/proc/%d/status", o.PID))
			if size := regexp.MustCompile(`FDSize:\s+(\d+)`).FindStringSubmatch(status); size == nil || len(size[1]) < 4 {
				t.Errorf("room for descriptors: %q", size)
			}
		}
		o.Unmount()
	})
}

// HUP, INT and TERM unmount and end the daemon, also in the foreground, with exit code 0.
func TestSignalsUnmount(t *testing.T) {
	harness.Raced(t)
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM} {
			t.Run(unix.SignalName(sig), func(t *testing.T) {
				o := harness.NewEnv(t, e.Mode).Mounted(t, "file f \"x\"")
				harness.Write(t, o.Path("f"), "written before the signal")
				harness.Check(t, syscall.Kill(o.PID, sig))
				o.WaitEnd()
				if o.IsMounted() {
					t.Error("still mounted")
				}
				harness.WantText(t, filepath.Join(o.Upper, "f"), "written before the signal")

				cmd := exec.Command(harness.Program, "-f", "-o", o.MountOptions(), o.Point)
				harness.Check(t, cmd.Start())
				if !harness.Eventually(5*time.Second, o.IsMounted) {
					t.Fatal("not mounted in the foreground")
				}
				harness.WantText(t, o.Path("f"), "written before the signal")
				harness.Check(t, cmd.Process.Signal(sig))
				done := make(chan error, 1)
				go func() { done <- cmd.Wait() }()
				select {
				case err := <-done:
					if err != nil {
						t.Errorf("the foreground process ended with %v, want exit 0", err)
					}
				case <-time.After(10 * time.Second):
					t.Error("the foreground process does not end")
					_ = cmd.Process.Kill()
				}
				if o.IsMounted() {
					t.Error("still mounted after the foreground process")
				}
			})
		}
	})
}

// With -d every request is logged, and the replies are the same. Large requests take another path
// in the daemon.
func TestDebugServesTheSame(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) { debugging(t, e.Overlay(t, "dir d")) })
}

func debugging(t *testing.T, o *harness.Overlay) {
	o.Opts = append(o.Opts, "io=cached") // with passthrough the kernel sends no READ
	large := strings.Repeat("not all the same ", 100_000)
	harness.Write(t, filepath.Join(o.Lowers[0], "d/large"), large)
	cmd := exec.Command(harness.Program, "-d", "-o", o.MountOptions(), o.Point)
	harness.Check(t, cmd.Start())
	o.PID = cmd.Process.Pid
	go func() { _ = cmd.Wait() }()
	o.Guard()
	if !harness.Eventually(5*time.Second, o.IsMounted) {
		t.Fatal("not mounted")
	}
	harness.WantText(t, o.Path("d/large"), large)
	harness.Write(t, o.Path("d/copy"), large)
	harness.WantText(t, filepath.Join(o.Upper, "d/copy"), large)
	harness.WantNames(t, o.Path("d"), "copy", "large")
	o.Unmount()
	log := harness.ReadText(t, o.Log)
	for _, request := range []string{"LOOKUP", "READ ", "WRITE", "READDIRPLUS"} {
		if !strings.Contains(log, request) {
			t.Errorf("no %s in the log", request)
		}
	}
	if n := strings.Count(log, ": READ "); n > 20 {
		t.Errorf("%d READs of %d bytes: the kernel reads page by page", n, len(large))
	}
}

// After a signal a mount in use leaves the tree, and the written data is in the upper.
func TestSignalOnBusyMount(t *testing.T) {
	harness.Raced(t)
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, "file f \"x\"")
		f := harness.Open(t, o.Path("f"), os.O_WRONLY)
		_, err := f.WriteString("busy")
		harness.Check(t, err)
		harness.Check(t, syscall.Kill(o.PID, syscall.SIGTERM))
		if !harness.Eventually(10*time.Second, func() bool { return !o.IsMounted() }) {
			t.Error("still mounted")
		}
		_ = f.Close()
		o.WaitEnd()
		harness.WantText(t, filepath.Join(o.Upper, "f"), "busy")
	})
}

// The daemon ends with its mount, whatever program unmounts it. After a lazy unmount it ends with
// the last user.
func TestDaemonEndsWithTheMount(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, "file f \"x\"")
		f := harness.Open(t, o.Path("f"), os.O_RDWR)
		harness.Check(t, o.Detach())
		time.Sleep(100 * time.Millisecond)
		if !harness.Alive(o.PID) {
			t.Fatal("the daemon left while a file was open")
		}
		_, err := f.WriteString("written after the lazy unmount")
		harness.Check(t, err)
		harness.Check(t, f.Close())
		o.WaitEnd()
		harness.WantText(t, filepath.Join(o.Upper, "f"), "written after the lazy unmount")
	})
}

// Layers may lie under the mount point.
func TestLayersUnderTheMountPoint(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		root := filepath.Join(e.Dir, "R")
		o := e.Overlay(t)
		o.Lowers, o.Upper, o.Work, o.Point = []string{root + "/lower"}, root+"/upper", root+"/work", root
		harness.Mkdir(t, root+"/lower", o.Upper, o.Work)
		harness.Write(t, root+"/lower/f", "lower")
		o.Mount()
		harness.WantTree(t, "merged", root, "file f \"lower\"")
		harness.AppendTo(t, root+"/f", "+")
		harness.Write(t, root+"/new", "new")
		o.Unmount()
		harness.WantTree(t, "the upper", o.Upper, "file f \"lower+\"\nfile new \"new\"")
	})
}

// The lower is the root of the system, with the upper inside.
func TestRootAsLower(t *testing.T) {
	harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t)
		o.Lowers = []string{"/"}
		victim := e.Dir + "/victim"
		harness.Write(t, victim, "of the system")
		o.Mount()
		harness.WantText(t, o.Path("etc/passwd"), harness.ReadText(t, "/etc/passwd"))
		out, err := harness.Run("chroot", o.Point, "/bin/bash", "-euc", fmt.Sprintf(
			"cat %[1]s; echo changed >%[1]s; rm %[1]s; test ! -e %[1]s; echo new >/etc/e2e-new; cat /etc/e2e-new", victim))
		if err != nil || out != "of the systemnew\n" {
			t.Errorf("chroot: %v %q", err, out)
		}
		harness.WantAbsent(t, "/etc/e2e-new")
		harness.WantText(t, victim, "of the system")
		if _, err := os.Stat(o.Path("proc/self")); err == nil {
			t.Error("mounts inside of the lower are not part of it, but /proc is there")
		}
		o.Unmount()
		harness.WantTree(t, "the upper", o.Upper, "file etc/e2e-new \"new\\n\"\nwhite "+strings.TrimPrefix(victim, "/"))
	})
}

// The caller has opened and mounted the FUSE device.
func TestMountPointIsADescriptor(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.RootModes, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "file f \"x\"")
		dev, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
		harness.Check(t, err)
		defer dev.Close()
		data := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions", dev.Fd())
		harness.Check(t, unix.Mount("src", o.Point, "fuse.given", 0, data))
		o.Guard()
		cmd := exec.Command(harness.Program, "-o", o.MountOptions(), "/dev/fd/3")
		cmd.ExtraFiles = []*os.File{dev}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		harness.Check(t, dev.Close())
		if pids := harness.DaemonsOf("/dev/fd/3"); len(pids) == 1 {
			o.PID = pids[0]
		} else {
			t.Errorf("daemons: %v", pids)
		}
		harness.WantText(t, o.Path("f"), "x")
		harness.AppendTo(t, o.Path("f"), "+")
		o.Unmount()
		harness.WantText(t, filepath.Join(o.Upper, "f"), "x+")
	})
}

// The next mount replaces the dead mount of a killed daemon at the mount point.
func TestDeadMountGivesWay(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, "file f \"x\"")
		harness.Write(t, o.Path("new"), "n")
		for range 2 {
			harness.Kill(o.PID, syscall.SIGKILL)
			o.WaitEnd()
			o.Mount()
			n := 0
			for _, m := range harness.MountTable() {
				if m.Point == o.Point {
					n++
				}
			}
			harness.Equal(t, "mounts at the mount point", n, 1)
			harness.WantText(t, o.Path("f"), "x")
			harness.WantText(t, o.Path("new"), "n")
		}
		if n := strings.Count(harness.ReadText(t, o.Log), "a dead mount of type fuse."); n != 2 {
			t.Errorf("%d lines of dead mounts in the log, want 2", n)
		}
		o.Unmount()
		harness.WantNames(t, o.Point)
	})
}

// A dead mount of another program stays, and so does one that is not at the mount point itself.
func TestDeadMountOfOthersStays(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "dir d")
		o.Opts = append(o.Opts, "subtype=other")
		o.Mount()
		harness.Kill(o.PID, syscall.SIGKILL)
		o.WaitEnd()
		for _, point := range []string{o.Point, o.Point + "/d"} {
			out, err := harness.Run(harness.Program, "-o", o.Lowerdir(), point)
			if harness.ExitCode(err) != 1 || !strings.Contains(out, point) {
				t.Errorf("mounting at %s: exit %d, %q", point, harness.ExitCode(err), out)
			}
		}
		if !o.IsMounted() {
			t.Error("the dead mount is gone")
		}
	})
}

// A mount of the same upper waits for the daemon of the last one, because umount(8) does not wait
// for it. containerd's shim unmounts and mounts again if it has lost the exit code of its mount
// helper.
func TestMountWaitsForTheLastDaemon(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, "file f \"x\"")
		harness.Write(t, o.Path("new"), "n")
		last := o.PID
		harness.Kill(last, syscall.SIGSTOP)
		harness.Check(t, o.TryUnmount())
		again := time.AfterFunc(200*time.Millisecond, func() { harness.Kill(last, syscall.SIGCONT) })
		program, args := o.Command()
		out, err := harness.Run(program, args...)
		if again.Stop() {
			t.Error("the mount did not wait")
		}
		harness.Kill(last, syscall.SIGCONT)
		if !harness.WaitGone(last, 10*time.Second) {
			t.Errorf("the daemon %d is still there", last)
		}
		if err != nil {
			t.Fatalf("mounting again: %v\n%s", err, out)
		}
		o.PID = harness.DaemonsOf(o.Point)[0]
		harness.WantText(t, o.Path("new"), "n")
		o.Unmount()
	})
}
