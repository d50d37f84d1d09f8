package commands

import (
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// list shows a mount with its process and its layers, whatever its name is.
func TestList(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "file f \"x\"")
		for _, name := range []string{"one", "a b", "colon:and,comma", "new\nline", `quote"\back`, "ä\ttab", "#1"} {
			o.Point = e.Dir + "/" + name
			harness.Mkdir(t, o.Point)
			o.Mount()
			m := theOne(t, o.Point)
			m.want(t, "serving", o.PID)
			if m.Hidden || m.Mode != "rw" || m.Upper != o.Upper || m.Work != o.Work || !slices.Equal(m.Lowers, o.Lowers) ||
				m.Type != "fuse.fuse-overlay" || *m.AgeSeconds > 60 {
				t.Errorf("%q: %+v", name, m)
			}
			quoted := map[string]string{
				"a b": `"` + e.Dir + `/a b"`, "new\nline": `"` + e.Dir + `/new\nline"`, `quote"\back`: `"` + e.Dir + `/quote\"\\back"`,
				"ä\ttab": `"` + e.Dir + `/\303\244\ttab"`,
			}[name]
			if quoted == "" {
				quoted = o.Point
			}
			want := []string{quoted, "serving", fmt.Sprint(o.PID), "rw", "2", o.Upper}
			if got := textLine(t, quoted); !slices.Equal(got, want) {
				t.Errorf("%q: the line is %q, want %q", name, got, want)
			}
			o.Unmount()
		}
	})
}

// textLine returns the fields of the line of list about a mount point, without the age.
func textLine(t *testing.T, quoted string) []string {
	t.Helper()
	r := command(t, "list")
	r.want(t, 0, "")
	if strings.Contains(r.out, "\x1b") {
		t.Errorf("colours without a terminal: %q", r.out)
	}
	for line := range strings.Lines(r.out) {
		if rest, ok := strings.CutPrefix(line, quoted+"  "); ok {
			fields := append([]string{quoted}, strings.Fields(rest)...)
			return slices.Delete(fields, 3, 4)
		}
	}
	t.Fatalf("no line about %s in\n%s", quoted, r.out)
	return nil
}

// list finds the processes of read-only mounts, of mounts in the foreground, and of those by the
// word mount or by relative paths, which have no lock or another command line.
func TestListFindsEachKindOfDaemon(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "file f \"x\"", "dir d")
		reader := o.Second(t)
		reader.Upper, reader.Work = "", ""
		o.Args = []string{"mount"}
		o.Mount()
		reader.Mount()
		theOne(t, o.Point).want(t, "serving", o.PID)
		m := theOne(t, reader.Point)
		m.want(t, "serving", reader.PID)
		if m.Mode != "ro" || m.Upper != "" || len(m.Lowers) != 2 {
			t.Errorf("the read-only mount: %+v", m)
		}
		reader.Unmount()
		o.Unmount()

		cmd := exec.Command(harness.Program, "-f", "-o", "lowerdir=lower0:lower1,upperdir=upper,workdir=work", "mnt")
		cmd.Dir = e.Dir
		harness.Check(t, cmd.Start())
		o.Guard()
		if !harness.Eventually(10*time.Second, o.IsMounted) {
			t.Error("nothing is mounted")
		}
		o.PID = cmd.Process.Pid
		m = theOne(t, o.Point)
		m.want(t, "serving", o.PID)
		if m.Upper != "upper" || !slices.Equal(m.Lowers, []string{"lower0", "lower1"}) {
			t.Errorf("in the foreground: %+v", m)
		}
		command(t, "umount", o.Point).want(t, 0, "")
		harness.Check(t, cmd.Wait())
		o.PID = 0
	})
}

// list shows mounts whose daemon is dead, and mounts below others. It sends no request to a daemon
// that it has found, which may hang.
func TestListStates(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, "file f \"x\"")
		stop(t, o.PID) // so that it answers no request
		theOne(t, o.Point).want(t, "serving", o.PID)
		harness.Kill(o.PID, syscall.SIGKILL)
		o.WaitEnd()
		theOne(t, o.Point).want(t, "dead", 0)
		if line := textLine(t, o.Point); !slices.Equal(line, []string{o.Point, "dead", "-", "rw", "-", "-"}) {
			t.Errorf("the line is %q", line)
		}
		command(t, "umount", o.Point).want(t, 0, "")
		if o.IsMounted() {
			t.Error("the dead mount is still there")
		}
		if at := listAt(t, command(t, "list", "--json"), o.Point); len(at) != 0 {
			t.Errorf("after the unmount: %+v", at)
		}

		if e.Mode == harness.ModeFusermount {
			return // fusermount3 cannot mount on a mount of the user
		}
		o.Mount()
		pid := o.PID
		out, err := harness.Run(harness.Program, "-o", "lowerdir="+o.Lowers[0], o.Point)
		if err != nil {
			t.Fatalf("a mount above: %v: %s", err, out)
		}
		at := listAt(t, command(t, "list", "--json"), o.Point)
		if len(at) != 2 || !at[0].Hidden || at[1].Hidden {
			t.Fatalf("two mounts: %+v", at)
		}
		at[0].want(t, "serving", pid)
		if at[1].Mode != "ro" || at[1].PID == nil || *at[1].PID == pid {
			t.Errorf("the upper one: %+v", at[1])
		}
		command(t, "umount", o.Point, o.Point).want(t, 0, "")
		if o.IsMounted() || harness.Alive(pid) {
			t.Error("both were unmounted, but are still there")
		}
	})
}

// Root and plain users see each other's mounts. A process of another user does not count as the
// daemon.
func TestListOfOtherUsers(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, "file f \"x\"")
		reader := o.Second(t)
		reader.Upper, reader.Work = "", ""
		reader.Mount()
		forger := exec.Command("bash", "-c", `exec -a fuse-overlay sh -c 'read line' -o lowerdir=/forged `+reader.Point)
		argv := asPlainUser(forger.Args...)
		forger = exec.Command(argv[0], argv[1:]...)
		stdin, err := forger.StdinPipe()
		harness.Check(t, err)
		harness.Check(t, forger.Start())
		defer func() { _ = stdin.Close(); _ = forger.Wait() }()
		if !harness.Eventually(5*time.Second, func() bool { return slices.Contains(harness.Cmdline(forger.Process.Pid), "lowerdir=/forged") }) {
			t.Fatal("the forger does not run")
		}

		asUser := func() result { return program(t, asPlainUser(harness.Program, "list", "--json")...) }
		for _, m := range listAt(t, asUser(), o.Point) {
			m.want(t, "serving", o.PID)
		}
		stop(t, reader.PID) // the user cannot be certain of the daemon of a mount without an upper
		if at := listAt(t, asUser(), reader.Point); len(at) != 1 || at[0].State == nil || *at[0].State != "silent" {
			t.Errorf("the daemon is stopped: %+v", at)
		}
		harness.Kill(reader.PID, syscall.SIGCONT)
		for _, r := range []result{asUser(), command(t, "list", "--json")} {
			at := listAt(t, r, reader.Point)
			if len(at) != 1 || at[0].PID == nil || *at[0].PID != reader.PID || at[0].Lowers[0] != o.Lowers[0] {
				t.Errorf("beside a forger: %+v", at)
			}
		}

		// The mount of a plain user, to which root has no access.
		dir := harness.RunDir + "/" + string(harness.ModeFusermount) + "/list-of-other-users"
		for _, sub := range []string{"l", "u", "w", "m"} {
			r := program(t, asPlainUser("mkdir", "-p", dir+"/"+sub)...)
			r.want(t, 0, "")
		}
		mount := asPlainUser(harness.Program, "-o", "lowerdir="+dir+"/l,upperdir="+dir+"/u,workdir="+dir+"/w", dir+"/m")
		program(t, mount...).want(t, 0, "")
		m := theOne(t, dir+"/m")
		pids := harness.DaemonsOf(dir + "/m")
		if len(pids) != 1 {
			t.Fatalf("daemons: %v", pids)
		}
		m.want(t, "serving", pids[0])
		harness.Equal(t, "the user", m.User, harness.PlainUser.UID)
		command(t, "umount", dir+"/m").want(t, 0, "")
		harness.Equal(t, "daemons", len(harness.DaemonsOf(dir+"/m")), 0)

		program(t, mount...).want(t, 0, "")
		for _, pid := range harness.DaemonsOf(dir + "/m") {
			harness.Kill(pid, syscall.SIGKILL)
			harness.WaitGone(pid, harness.CommandLimit)
		}
		theOne(t, dir+"/m").want(t, "null", 0) // the kernel does not let root in
		command(t, "umount", dir+"/m").want(t, 0, "")
		harness.RemoveTree(dir)
	})
}
