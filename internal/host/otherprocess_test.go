package host

import (
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestOtherProcess(t *testing.T) {
	start := time.Now()
	cmd := exec.Command("sh", "-c", "read line", "", "a b")
	stdin, err := cmd.StdinPipe()
	must(t, err)
	defer stdin.Close()
	must(t, cmd.Start())
	defer func() { _ = cmd.Process.Kill() }()
	pid := cmd.Process.Pid
	if pids, err := Processes(); err != nil || !slices.Contains(pids, pid) || !slices.Contains(pids, os.Getpid()) {
		t.Errorf("processes: %v, %v", pids, err)
	}
	for argv, err := CommandLine(pid); !slices.Equal(argv, []string{"sh", "-c", "read line", "", "a b"}); argv, err = CommandLine(pid) {
		if time.Since(start) > 10*time.Second {
			t.Fatalf("its command line is %q, %v", argv, err)
		}
	}
	// The kernel counts in hundredths of a second.
	if age, err := ProcessAge(pid); err != nil || age > time.Since(start)+20*time.Millisecond {
		t.Errorf("its age is %v, %v", age, err)
	}
	p, err := OpenProcess(pid)
	must(t, err)
	defer p.Close()
	if ended, err := p.WaitEnd(time.Millisecond); ended || err != nil {
		t.Errorf("it has ended: %v, %v", ended, err)
	}
	must(t, cmd.Process.Kill())
	if ended, err := p.WaitEnd(10 * time.Second); !ended || err != nil {
		t.Errorf("it has not ended: %v, %v", ended, err)
	}
	_ = cmd.Wait()
	if argv, err := CommandLine(pid); err != unix.ENOENT {
		t.Errorf("the command line of a process that has ended: %q, %v", argv, err)
	}
	if _, err := OpenProcess(pid); err != unix.ESRCH {
		t.Errorf("opening it: %v", err)
	}
	if serves, known := ServesDevice(pid, 1); serves || known {
		t.Error("it serves a device")
	}
}

func TestParseStart(t *testing.T) {
	const stat = "12 (a) b (c) S 1 12 12 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 12345 1 1 0\n"
	if start, err := parseStart(stat); err != nil || start != 123450*time.Millisecond {
		t.Errorf("got %v, %v", start, err)
	}
	for _, bad := range []string{"", "12 (a) S", "no name"} {
		if start, err := parseStart(bad); err == nil {
			t.Errorf("%q: %v", bad, start)
		}
	}
}

func TestParseFileLocks(t *testing.T) {
	got := ParseFileLocks(`1: OFDLCK ADVISORY  READ -1 fe:00:5358608 46976204792 46976204792
2: FLOCK  ADVISORY  WRITE 20692 fe:00:5358608 0 EOF
2: -> FLOCK  ADVISORY  WRITE 20693 fe:00:5358608 0 EOF
3: POSIX  ADVISORY  READ 7 00:1b:12 10 19
4: a line that is none
5: LEASE  ACTIVE    READ x 00:1b:12 0 EOF
`)
	want := []FileLock{
		{"OFDLCK", -1, "fe:00:5358608", 46976204792}, {"FLOCK", 20692, "fe:00:5358608", 0}, {"POSIX", 7, "00:1b:12", 10},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// A point is opened without a request, and knows its mount.
func TestPoint(t *testing.T) {
	p, err := OpenPoint("/proc/self/..")
	must(t, err)
	defer p.Close()
	path, err := p.Path()
	must(t, err)
	id, err := p.MountID()
	must(t, err)
	table, err := MountTable()
	must(t, err)
	if !slices.ContainsFunc(table, func(m MountEntry) bool { return m.ID == id && m.Point == path && m.Type == "proc" }) {
		t.Errorf("no mount %d at %s", id, path)
	}
	if allowed, err := p.Answers(); !allowed || err != nil {
		t.Errorf("it answers: %v, %v", allowed, err)
	}
	same, err := OpenMountPoint(path)
	must(t, err)
	defer same.Close()
	if other, err := same.MountID(); err != nil || other != id {
		t.Errorf("as a mount point it is on mount %d, %v", other, err)
	}
	if _, err := OpenPoint("/proc/none"); err != unix.ENOENT {
		t.Errorf("no path: %v", err)
	}
}

// The uses of a process are those of /proc, without a request to a file system.
func TestUsesOf(t *testing.T) {
	var st unix.Stat_t
	dir := t.TempDir()
	must(t, unix.Stat(dir, &st))
	here := st.Dev
	must(t, unix.Stat("/proc/self", &st))
	f, err := os.Open("/proc/self/status")
	must(t, err)
	defer f.Close()
	cmd := exec.Command("sleep", "1000")
	cmd.Dir, cmd.Stdin = dir, f
	must(t, cmd.Start())
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	var uses map[uint64][]Use
	for start := time.Now(); ; { // until it executes the program
		uses, err = UsesOf(cmd.Process.Pid)
		if name, _ := ProcessName(cmd.Process.Pid); err == nil && name == "sleep" || time.Since(start) > 10*time.Second {
			break
		}
	}
	if !slices.Equal(uses[st.Dev], []Use{UseFile}) || err != nil {
		t.Errorf("/proc: %v, %v", uses[st.Dev], err)
	}
	if !slices.Contains(uses[here], UseDir) {
		t.Errorf("the directory: %v", uses)
	}
	all := map[Use]bool{}
	for _, list := range uses {
		for _, use := range list {
			all[use] = true
		}
	}
	if !all[UseRoot] || !all[UseExe] || !all[UseMap] {
		t.Errorf("the program: %v", uses)
	}
	own, err := MountNamespaceOf(os.Getpid())
	must(t, err)
	if its, err := MountNamespaceOf(cmd.Process.Pid); its != own || err != nil {
		t.Errorf("its mount namespace is %s, %v, not %s", its, err, own)
	}
	must(t, cmd.Process.Kill())
	_ = cmd.Wait()
	if uses, err := UsesOf(cmd.Process.Pid); err != unix.ENOENT {
		t.Errorf("a process that has ended: %v, %v", uses, err)
	}
}

func TestParseMapping(t *testing.T) {
	for line, want := range map[string]uint64{
		"7f00-7f01 r-xp 00000000 fe:00 12  /bin/a b\n": unix.Mkdev(0xfe, 0), "7f00-7f01 r--s 00001000 00:2f 7 /m (deleted)\n": unix.Mkdev(0, 0x2f),
		"7ffc-7ffd rw-p 00000000 00:00 0  [stack]\n": 0, "7ffc-7ffd rw-p\n": 0, "a b c d e\n": 0, "": 0,
	} {
		if dev, ok := parseMapping(line); dev != want || ok != (want != 0) {
			t.Errorf("%q: %d, %v, want %d", line, dev, ok, want)
		}
	}
}
