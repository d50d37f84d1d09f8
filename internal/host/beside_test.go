//go:build (amd64 || arm64) && !cgo

// A program with cgo is linked dynamically, and starts no process beside itself.

package host

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// besideVariable makes this test program the one beside another. It holds the path of a file, to
// which each start appends a byte.
const besideVariable = "TEST_BESIDE"

func init() {
	path := os.Getenv(besideVariable)
	if path == "" {
		return
	}
	starts, err := countStart(path)
	if err != nil {
		os.Exit(2)
	}
	connection := BesideConnection()
	for lines := bufio.NewScanner(connection); ; {
		if os.Args[1] == "killed early" && starts < 3 {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		}
		if !lines.Scan() {
			os.Exit(0)
		}
		if os.Args[1] == "killed late" {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		}
		fmt.Fprintf(connection, "%s by start %d\n", lines.Text(), starts)
	}
}

func countStart(path string) (starts int64, err error) {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }()
	if _, err := f.WriteString("x"); err != nil {
		return 0, err
	}
	st, err := f.Stat()
	return st.Size(), err
}

func startBeside(t *testing.T, how string) *Beside {
	t.Helper()
	starts := t.TempDir() + "/starts"
	must(t, os.WriteFile(starts, nil, 0o600))
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	must(t, err)
	defer func() { _ = null.Close() }()
	b, err := StartBeside("name in ps", []string{"beside", how}, besideVariable+"="+starts, null)
	must(t, err)
	must(t, b.Connection.SetDeadline(time.Now().Add(20*time.Second)))
	return b
}

// reply sends a line, and returns the line that comes back; "": the process has ended.
func (b *Beside) reply(t *testing.T, line string) string {
	t.Helper()
	_, err := b.Connection.WriteString(line + "\n")
	must(t, err)
	lines := bufio.NewScanner(b.Connection)
	lines.Scan()
	must(t, lines.Err())
	return lines.Text()
}

// end closes the connection, which ends the process.
func (b *Beside) end(t *testing.T) {
	t.Helper()
	_ = b.Connection.Close()
	how, err := b.Reap()
	must(t, err)
	if how != "exit status 0" {
		t.Errorf("the process ended by %s", how)
	}
}

// Until the first request the process runs nothing and has nothing, and signals do not end it.
func TestBeside(t *testing.T) {
	b := startBeside(t, "")
	defer b.end(t)
	proc := "/proc/" + strconv.Itoa(b.child.pid)
	settled := func() bool { _, err := os.Lstat(proc + "/fd/5"); return os.IsNotExist(err) }
	for start := time.Now(); !settled() && time.Since(start) < 10*time.Second; time.Sleep(time.Millisecond) {
	}
	entries, err := os.ReadDir(proc + "/fd")
	must(t, err)
	var links []string
	for _, e := range entries {
		target, err := os.Readlink(proc + "/fd/" + e.Name())
		must(t, err)
		links = append(links, e.Name()+" "+strings.TrimRight(target, "[]0123456789"))
	}
	program, err := os.Executable()
	must(t, err)
	if got, want := strings.Join(links, ", "), "0 /dev/null, 1 /dev/null, 2 /dev/null, 3 socket:, 4 "+program; got != want {
		t.Errorf("descriptors: %s; want %s", got, want)
	}
	if argv, err := CommandLine(b.child.pid); err != nil || !strings.HasPrefix(strings.Join(argv, " "), "beside ") {
		t.Errorf("its command line is %q, %v", argv, err)
	}
	if name, err := os.ReadFile(proc + "/comm"); err != nil || string(name) != "name in ps\n" {
		t.Errorf("its name is %q, %v", name, err)
	}
	for _, s := range []unix.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2} {
		must(t, unix.Kill(b.child.pid, s))
	}
	for _, line := range []string{"one", "two"} {
		if got := b.reply(t, line); got != line+" by start 1" {
			t.Errorf("reply to %s: %q", line, got)
		}
	}
}

// A process of which nothing is requested ends with the connection.
func TestBesideWithoutRequests(t *testing.T) { startBeside(t, "").end(t) }

// A program that is killed before it has read the request is executed again. One that is killed
// afterwards is not: it may have done what was requested.
func TestBesideIsKilled(t *testing.T) {
	b := startBeside(t, "killed early")
	if got := b.reply(t, "one"); got != "one by start 3" {
		t.Errorf("killed early: %q", got)
	}
	b.end(t)
	b = startBeside(t, "killed late")
	if got := b.reply(t, "one"); got != "" {
		t.Errorf("killed late: %q", got)
	}
	b.end(t)
}
