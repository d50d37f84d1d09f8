package lifetime

import (
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// A daemon that may not make a namespace, or may not empty it, stays in that of its caller and logs
// that. It serves and unmounts as usual.
func TestDaemonStaysWithItsCaller(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.RootModes, func(t *testing.T, e *harness.Env) {
		for what, c := range map[string]struct{ call, errno uint32 }{
			"pivot_root is refused": {unix.SYS_PIVOT_ROOT, uint32(unix.EPERM)},
			"fsopen is not there":   {unix.SYS_FSOPEN, uint32(unix.ENOSYS)},
			"setns is refused":      {unix.SYS_SETNS, uint32(unix.EPERM)},
		} {
			t.Run(strings.ReplaceAll(what, " ", "_"), func(t *testing.T) {
				o := harness.NewEnv(t, e.Mode).Overlay(t, "file f \"x\"")
				program, args := o.Command()
				out, err := filtered(t, c.call, c.errno, exec.Command(program, args...))
				if err != nil {
					t.Fatalf("%v: %s", err, out)
				}
				o.Guard()
				pids := harness.DaemonsOf(o.Point)
				if len(pids) != 1 {
					t.Fatalf("daemons: %v", pids)
				}
				o.PID = pids[0]
				harness.AppendTo(t, o.Path("f"), "+")
				harness.Check(t, unix.Kill(o.PID, unix.SIGTERM))
				o.WaitEnd()
				if o.IsMounted() {
					t.Error("still mounted")
				}
				harness.WantText(t, o.Upper+"/f", "x+")
				if log := harness.ReadText(t, o.Log); !strings.Contains(log, "stays in the mount namespace of its caller") {
					t.Errorf("the log:\n%s", log)
				}
			})
		}
	})
}

// filtered is a command under which a system call fails.
func filtered(t *testing.T, call, errno uint32, cmd *exec.Cmd) (out []byte, err error) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()              // and never unlocked: the filter ends with the thread
		if unix.Gettid() == unix.Getpid() { // which does not end
			out, err = filtered(t, call, errno, cmd)
			runtime.UnlockOSThread()
			return
		}
		const allow, fail = 0x7fff0000, 0x00050000 // SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO
		filter := []unix.SockFilter{
			{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // the number of the call
			{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: call},
			{Code: unix.BPF_RET | unix.BPF_K, K: fail | errno},
			{Code: unix.BPF_RET | unix.BPF_K, K: allow},
		}
		prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
		if err = unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return
		}
		if err = unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&prog)), 0, 0); err == nil {
			out, err = cmd.CombinedOutput()
		}
	}()
	<-done
	return out, err
}
