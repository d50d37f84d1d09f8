package lifetime

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// Capabilities that docs/SECURITY.md lists, as /proc/PID/status shows them.
const (
	capabilitiesToRead  = 1<<unix.CAP_DAC_READ_SEARCH | 1<<unix.CAP_FOWNER | 1<<unix.CAP_SYS_ADMIN
	capabilitiesToWrite = capabilitiesToRead | 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_CHOWN | 1<<unix.CAP_FSETID |
		1<<unix.CAP_MKNOD | 1<<unix.CAP_SETFCAP | 1<<unix.CAP_LINUX_IMMUTABLE | 1<<unix.CAP_SYS_RESOURCE | 1<<unix.CAP_MAC_ADMIN
)

// statusOf returns the fields of the status of all threads of a process, which have to be alike.
func statusOf(t *testing.T, pid int) map[string]string {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	harness.Check(t, err)
	fields := map[string]string{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil { // the thread has ended
			continue
		}
		for line := range strings.Lines(string(text)) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), ":\t")
			if !strings.HasPrefix(name, "Cap") && name != "NoNewPrivs" && name != "Seccomp" {
				continue
			}
			if first, ok := fields[name]; ok && first != value {
				t.Errorf("%s is %s and %s", name, first, value)
			}
			fields[name] = value
		}
	}
	return fields
}

// Each kind of daemon has, on all of its threads, the rights that it needs and no other.
func TestConfined(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		own := statusOf(t, os.Getpid())
		var had uint64
		if e.Mode != harness.ModeFusermount {
			_, err := fmt.Sscanf(own["CapEff"], "%x", &had)
			harness.Check(t, err)
		}
		for what, keep := range map[string]uint64{"upper": capabilitiesToWrite, "read-only": capabilitiesToRead} {
			o := harness.NewEnv(t, e.Mode).Overlay(t, "file f \"x\"")
			if what == "read-only" {
				o.Upper, o.Work = "", ""
			}
			o.Mount()
			harness.WantText(t, o.Path("f"), "x")
			want := fmt.Sprintf("%016x", had&keep)
			status := statusOf(t, o.PID)
			harness.Equal(t, what+": NoNewPrivs", status["NoNewPrivs"], "1")
			harness.Equal(t, what+": Seccomp", status["Seccomp"], "2")
			harness.Equal(t, what+": CapEff", status["CapEff"], want)
			harness.Equal(t, what+": CapPrm", status["CapPrm"], want)
			harness.Equal(t, what+": CapInh", status["CapInh"], "0000000000000000")
			harness.Equal(t, what+": CapAmb", status["CapAmb"], "0000000000000000")
			harness.Equal(t, what+": CapBnd", status["CapBnd"], own["CapBnd"])
			if log := harness.ReadText(t, o.Log); !strings.Contains(log, `"sandbox":"seccomp`) || strings.Contains(log, "without:") {
				t.Errorf("%s: the log:\n%s", what, log)
			}
			o.Unmount()
		}
	})
}

// With sandbox=off the daemon has the rights of its caller, and no helper process.
func TestNotConfined(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "file f \"x\"")
		o.Opts = append(o.Opts, "sandbox=off")
		o.Mount()
		status := statusOf(t, o.PID)
		harness.Equal(t, "NoNewPrivs", status["NoNewPrivs"], "0")
		harness.Equal(t, "Seccomp", status["Seccomp"], statusOf(t, os.Getpid())["Seccomp"])
		harness.Equal(t, "CapEff", status["CapEff"], statusOf(t, os.Getpid())["CapEff"])
		if k := harness.KeeperOf(o.PID); k != 0 {
			t.Errorf("there is a helper process %d", k)
		}
		if log := harness.ReadText(t, o.Log); !strings.Contains(log, `"sandbox":"off"`) {
			t.Errorf("the log:\n%s", log)
		}
		harness.Check(t, syscall.Kill(o.PID, syscall.SIGTERM))
		o.WaitEnd()
		if o.IsMounted() {
			t.Error("still mounted after SIGTERM")
		}
	})
}

// keeperOf returns the helper process of a daemon. It waits until that has closed the copies of the
// daemon's descriptors, which it does beside the daemon.
func keeperOf(t *testing.T, o *harness.Overlay) (k int) {
	t.Helper()
	if !harness.Eventually(5*time.Second, func() bool {
		k = harness.KeeperOf(o.PID)
		_, copied := harness.OpenFDs(k)[5]
		return k != 0 && !copied
	}) {
		t.Fatalf("the helper process %d has the descriptors %v", k, harness.OpenFDs(k))
	}
	return k
}

// The helper process ends with its daemon, however that ends, and holds nothing of its caller or of
// a layer.
func TestKeeperEndsWithItsDaemon(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		for how, end := range map[string]func(o *harness.Overlay){
			"umount":  func(o *harness.Overlay) { harness.Check(t, o.TryUnmount()) },
			"SIGTERM": func(o *harness.Overlay) { harness.Kill(o.PID, syscall.SIGTERM) },
			"SIGKILL": func(o *harness.Overlay) { harness.Kill(o.PID, syscall.SIGKILL) },
		} {
			o := harness.NewEnv(t, e.Mode).Mounted(t, "file f \"x\"")
			k := keeperOf(t, o)
			harness.Kill(k, syscall.SIGTERM)             // as all signals to a whole group
			for fd, target := range harness.OpenFDs(k) { // a plain user sees none
				if fd <= 2 && !strings.HasSuffix(target, "/null") || fd == 3 && !strings.HasPrefix(target, "socket:") ||
					fd == 4 && target != harness.Program || fd > 4 {
					t.Errorf("%s: descriptor %d of the helper process is %s", how, fd, target)
				}
			}
			end(o)
			o.WaitEnd()
			if !harness.WaitGone(k, 5*time.Second) {
				t.Errorf("%s: the helper process is left", how)
				harness.Kill(k, syscall.SIGKILL)
			}
			if how != "SIGKILL" && o.IsMounted() {
				t.Errorf("%s: still mounted", how)
			}
		}
	})
}

// Without its helper process a daemon serves on. A signal cannot unmount, and the mount is not
// dead; umount(8) still ends both.
func TestKeeperIsKilled(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, "file f \"x\"")
		k := keeperOf(t, o)
		harness.Kill(k, syscall.SIGKILL)
		logged := func(text string) {
			t.Helper()
			if !harness.Eventually(5*time.Second, func() bool { return strings.Contains(harness.ReadText(t, o.Log), text) }) {
				t.Errorf("not in the log: %s\n%s", text, harness.ReadText(t, o.Log))
			}
		}
		logged("the process that unmounts has ended")
		harness.Check(t, syscall.Kill(o.PID, syscall.SIGTERM))
		logged("cannot unmount")
		harness.AppendTo(t, o.Path("f"), "+")
		harness.WantText(t, o.Path("f"), "x+")
		o.Unmount()
		harness.WantText(t, o.Upper+"/f", "x+")
	})
}

// A kernel without a part of the sandbox serves without that part, and the log names it.
func TestSandboxIsMissing(t *testing.T) {
	harness.NeedDaemon(t)
	// fusermount3 cannot mount under no_new_privs, which a filter needs.
	harness.EachMode(t, harness.RootModes, func(t *testing.T, e *harness.Env) {
		for what, c := range map[string]struct {
			call, errno uint32
			log         string
		}{
			"seccomp":  {unix.SYS_SECCOMP, uint32(unix.EINVAL), "without: seccomp: invalid argument"},
			"Landlock": {unix.SYS_LANDLOCK_CREATE_RULESET, uint32(unix.EOPNOTSUPP), `"sandbox":"seccomp, capabilities`},
		} {
			o := harness.NewEnv(t, e.Mode).Overlay(t, "file f \"x\"")
			program, args := o.Command()
			out, err := filtered(t, c.call, c.errno, exec.Command(program, args...))
			if err != nil {
				t.Fatalf("%s: %v: %s", what, err, out)
			}
			o.Guard()
			o.PID = harness.DaemonsOf(o.Point)[0]
			harness.AppendTo(t, o.Path("f"), "+")
			if log := harness.ReadText(t, o.Log); !strings.Contains(log, c.log) {
				t.Errorf("%s: the log:\n%s", what, log)
			}
			harness.Check(t, unix.Kill(o.PID, unix.SIGTERM))
			o.WaitEnd()
			harness.WantText(t, o.Upper+"/f", "x+")
		}
	})
}
