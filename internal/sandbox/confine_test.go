//go:build (amd64 || arm64) && !cgo

// In a build with cgo the threads of the process cannot be reached (onAllThreads).

package sandbox

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// childVariable is set in a process that confines itself and runs the checks of a test.
const childVariable = "SANDBOX_TEST_CHILD"

// inChild runs the calling test again in a process of its own, in which it returns true.
func inChild(t *testing.T, environ ...string) bool {
	t.Helper()
	if os.Getenv(childVariable) != "" {
		return true
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(append(os.Environ(), childVariable+"=1"), environ...)
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("%v\n%s", err, out)
	}
	return false
}

// everyThread returns a line of status of all threads of this process.
func everyThread(t *testing.T, field string) (values []string) {
	t.Helper()
	files, err := filepath.Glob("/proc/self/task/*/status")
	if err != nil || len(files) < 2 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has ended
		}
		_, after, _ := strings.Cut(string(text), "\n"+field+":\t")
		value, _, _ := strings.Cut(after, "\n")
		values = append(values, value)
	}
	return values
}

func wantEveryThread(t *testing.T, field, want string) {
	t.Helper()
	for _, got := range everyThread(t, field) {
		if got != want {
			t.Errorf("%s is %s, want %s", field, got, want)
		}
	}
}

// raw makes a system call past all wrappers.
func raw(call uintptr, args ...uintptr) error {
	var a [6]uintptr
	copy(a[:], args)
	_, _, errno := unix.RawSyscall6(call, a[0], a[1], a[2], a[3], a[4], a[5])
	if errno != 0 {
		return errno
	}
	return nil
}

// What the daemon never does is EPERM on every thread, and has no effect.
func TestRefused(t *testing.T) {
	if !inChild(t) {
		return
	}
	path := append([]byte("/proc/self/exe"), 0)
	name := uintptr(unsafe.Pointer(&path[0]))
	other, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	result := Confine(Rights{ReconnectFD: -1})
	if !result.Seccomp {
		t.Fatal(result)
	}
	parent := uintptr(os.Getppid())
	for what, err := range map[string]error{
		"execve":                    raw(unix.SYS_EXECVE, name, 0, 0),
		"execveat":                  raw(unix.SYS_EXECVEAT, ^uintptr(99), name, 0, 0, 0),
		"fork":                      raw(unix.SYS_CLONE, uintptr(unix.SIGCHLD)),
		"vfork":                     raw(unix.SYS_CLONE, unix.CLONE_VM|unix.CLONE_VFORK|uintptr(unix.SIGCHLD)),
		"clone in namespaces":       raw(unix.SYS_CLONE, threadFlags|unix.CLONE_NEWNET),
		"socket of unix":            raw(unix.SYS_SOCKET, unix.AF_UNIX, unix.SOCK_STREAM, 0),
		"socket of inet":            raw(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_STREAM, 0),
		"socket of netlink":         raw(unix.SYS_SOCKET, unix.AF_NETLINK, unix.SOCK_RAW, 0),
		"socketpair":                raw(unix.SYS_SOCKETPAIR, unix.AF_UNIX, unix.SOCK_STREAM, 0, name),
		"connect":                   raw(unix.SYS_CONNECT, uintptr(other), name, 2),
		"bind":                      raw(unix.SYS_BIND, uintptr(other), name, 2),
		"listen":                    raw(unix.SYS_LISTEN, uintptr(other), 1),
		"sendmsg":                   raw(unix.SYS_SENDMSG, uintptr(other), 0, 0),
		"recvmsg":                   raw(unix.SYS_RECVMSG, uintptr(other), 0, 0),
		"ptrace":                    raw(unix.SYS_PTRACE, unix.PTRACE_ATTACH, parent),
		"process_vm_readv":          raw(unix.SYS_PROCESS_VM_READV, parent),
		"process_vm_writev":         raw(unix.SYS_PROCESS_VM_WRITEV, parent),
		"pidfd_open":                raw(unix.SYS_PIDFD_OPEN, parent, 0),
		"pidfd_getfd":               raw(unix.SYS_PIDFD_GETFD, 0, 0, 0),
		"kcmp":                      raw(unix.SYS_KCMP, parent, parent, 0, 0, 0),
		"kill":                      raw(unix.SYS_KILL, parent, 0),
		"tgkill of another":         raw(unix.SYS_TGKILL, parent, parent, 0),
		"unshare":                   raw(unix.SYS_UNSHARE, unix.CLONE_NEWUSER),
		"setns":                     raw(unix.SYS_SETNS, 0, 0),
		"mount":                     raw(unix.SYS_MOUNT, name, name, name, unix.MS_BIND, 0),
		"umount2":                   raw(unix.SYS_UMOUNT2, name, 0),
		"pivot_root":                raw(unix.SYS_PIVOT_ROOT, name, name),
		"chroot":                    raw(unix.SYS_CHROOT, name),
		"open_tree":                 raw(unix.SYS_OPEN_TREE, 0, name, 0),
		"move_mount":                raw(unix.SYS_MOVE_MOUNT, 0, name, 0, name, 0),
		"fsopen":                    raw(unix.SYS_FSOPEN, name, 0),
		"mount_setattr":             raw(unix.SYS_MOUNT_SETATTR, 0, name, 0, 0, 0),
		"bpf":                       raw(unix.SYS_BPF, 0, 0, 0),
		"perf_event_open":           raw(unix.SYS_PERF_EVENT_OPEN, 0, 0, 0, 0, 0),
		"io_uring_setup":            raw(unix.SYS_IO_URING_SETUP, 1, 0),
		"userfaultfd":               raw(unix.SYS_USERFAULTFD, 0),
		"keyctl":                    raw(unix.SYS_KEYCTL, 0, 0, 0, 0, 0),
		"init_module":               raw(unix.SYS_INIT_MODULE, 0, 0, 0),
		"kexec_load":                raw(unix.SYS_KEXEC_LOAD, 0, 0, 0, 0),
		"setuid":                    raw(unix.SYS_SETUID, 0),
		"setresuid":                 raw(unix.SYS_SETRESUID, 0, 0, 0),
		"prctl":                     raw(unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 1, 0, 0, 0),
		"seccomp":                   raw(unix.SYS_SECCOMP, setModeFilter, 0, 0),
		"setrlimit":                 raw(unix.SYS_PRLIMIT64, 0, unix.RLIMIT_CORE, name, 0),
		"ioctl of a terminal":       raw(unix.SYS_IOCTL, 0, unix.TIOCSTI, name),
		"fcntl of an owner":         raw(unix.SYS_FCNTL, 0, unix.F_SETOWN, parent),
		"memory to execute":         raw(unix.SYS_MMAP, 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANON, ^uintptr(0), 0),
		"mprotect to execute":       raw(unix.SYS_MPROTECT, 0, 0, unix.PROT_READ|unix.PROT_EXEC),
		"a call that no kernel has": raw(0x3fffffff),
	} {
		if err != unix.EPERM {
			t.Errorf("%s: %v, want EPERM", what, err)
		}
	}
	if err := raw(unix.SYS_CLONE3, 0, 0); err != unix.ENOSYS {
		t.Errorf("clone3: %v", err)
	}
	done := make(chan error)
	go func() { done <- raw(unix.SYS_SETNS, 0, 0) }()
	if err := <-done; err != unix.EPERM {
		t.Errorf("in another goroutine: %v", err)
	}
	wantEveryThread(t, "NoNewPrivs", "1")
	wantEveryThread(t, "Seccomp", "2")
}

// The Go runtime works: threads, timers, signals, collections of garbage, polling, files, and so do
// clients of a socket that listened before.
func TestAllowed(t *testing.T) {
	if !inChild(t) {
		return
	}
	dir := t.TempDir()
	listener, err := net.Listen("unix", dir+"/s")
	if err != nil {
		t.Fatal(err)
	}
	client, err := net.Dial("unix", dir+"/s")
	if err != nil {
		t.Fatal(err)
	}
	receiver, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: dir + "/log", Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	sender, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	if result := Confine(Rights{ReconnectFD: sender, Trap: true}); !result.Seccomp || len(result.Missing) > 0 {
		t.Fatal(result)
	}

	threads := make(chan struct{})
	for range 40 {
		go func() {
			var ts unix.Timespec
			ts.Nsec = 1e6
			_ = unix.Nanosleep(&ts, nil)
			_ = make([]byte, 1<<20)
			threads <- struct{}{}
		}()
	}
	for range 40 {
		<-threads
	}
	time.Sleep(time.Millisecond)
	wantEveryThread(t, "Seccomp", "2")

	c, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("x")); err != nil {
		t.Error(err)
	}
	if _, err := client.Read(make([]byte, 1)); err != nil {
		t.Error(err)
	}
	if err := unix.Connect(sender, &unix.SockaddrUnix{Name: dir + "/log"}); err != nil {
		t.Error(err)
	}
	if _, err := unix.Write(sender, []byte("line")); err != nil {
		t.Error(err)
	}
	if _, err := receiver.Read(make([]byte, 9)); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(dir+"/f", []byte("data"), 0o600); err != nil {
		t.Error(err)
	}
	if err := os.Rename(dir+"/f", dir+"/g"); err != nil {
		t.Error(err)
	}
	if text, err := os.ReadFile(dir + "/g"); err != nil || string(text) != "data" {
		t.Errorf("%q %v", text, err)
	}
}

// A refused call ends a process with Trap, and the trace shows where.
func TestTrap(t *testing.T) {
	if os.Getenv(childVariable) != "" {
		Confine(Rights{ReconnectFD: -1, Trap: true})
		_, _ = unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		fmt.Println("survived")
		return
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestTrap$")
	cmd.Env = append(os.Environ(), childVariable+"=1")
	out, err := cmd.CombinedOutput()
	if err == nil || strings.Contains(string(out), "survived") || !strings.Contains(string(out), "SIGSYS") ||
		!strings.Contains(string(out), "TestTrap") {
		t.Errorf("%v\n%s", err, out)
	}
}

// Every thread keeps the same capabilities, no matter which of them the process had.
func TestCapabilities(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if !inChild(t) {
		return
	}
	before := everyThread(t, "CapEff")[0]
	var had Set
	if _, err := fmt.Sscanf(before, "%x", &had); err != nil {
		t.Fatal(err)
	}
	keep := SetOf(unix.CAP_CHOWN, unix.CAP_FOWNER, unix.CAP_SYS_ADMIN)
	result := Confine(Rights{Capabilities: keep, ReconnectFD: -1})
	if len(result.Missing) > 0 || result.Capabilities != had&keep {
		t.Errorf("%v, want %#x", result, had&keep)
	}
	want := fmt.Sprintf("%016x", uint64(had&keep))
	wantEveryThread(t, "CapEff", want)
	wantEveryThread(t, "CapPrm", want)
	wantEveryThread(t, "CapInh", "0000000000000000")
	wantEveryThread(t, "CapAmb", "0000000000000000")
	// None comes back.
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	all := [2]unix.CapUserData{{Effective: ^uint32(0), Permitted: ^uint32(0)}, {}}
	if err := unix.Capset(&hdr, &all[0]); err != unix.EPERM {
		t.Errorf("capset: %v", err)
	}
}

// A domain of Landlock keeps the memory of other processes of the same user closed, which no filter
// of system calls can.
func TestMemoryOfOthers(t *testing.T) {
	if version, err := landlockReports(askVersion); err != nil || version < landlockTCP {
		t.Skipf("Landlock: version %d, %v", version, err)
	}
	victim := exec.Command("sleep", "100")
	if os.Getenv(childVariable) == "" {
		victim.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(os.Getuid()), Gid: uint32(os.Getgid())}}
		if err := victim.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = victim.Process.Kill(); _ = victim.Wait() }()
	}
	if !inChild(t, fmt.Sprintf("SANDBOX_TEST_VICTIM=%d", pidOf(victim))) {
		return
	}
	memory := "/proc/" + os.Getenv("SANDBOX_TEST_VICTIM") + "/mem"
	f, err := os.OpenFile(memory, os.O_RDWR, 0)
	if err != nil {
		t.Skipf("not even before: %v", err)
	}
	_ = f.Close()
	result := Confine(Rights{Capabilities: ^Set(0), ReconnectFD: -1})
	if len(result.Landlock) == 0 {
		t.Fatal(result)
	}
	if f, err := os.OpenFile(memory, os.O_RDWR, 0); err == nil {
		_ = f.Close()
		t.Error("the memory of another process can be opened")
	}
}

func pidOf(cmd *exec.Cmd) int {
	if cmd.Process == nil {
		return 0
	}
	return cmd.Process.Pid
}
