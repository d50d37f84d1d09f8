package commands

import (
	"encoding/json"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// usedMount is a mount in the output of list --json --users.
type usedMount struct {
	Point string
	Users []struct {
		PID, User int
		Name      string
		Uses      []string
	}
	Unseen *int `json:"unseen_processes"`
}

// usesOf returns how a process uses a mount, by the output of list.
func usesOf(t *testing.T, r result, point string, pid int) (uses []string, unseen int) {
	t.Helper()
	r.want(t, 0, "")
	var all []usedMount
	harness.Check(t, json.Unmarshal([]byte(r.out), &all))
	for _, m := range all {
		if m.Point != point {
			continue
		}
		if m.Users == nil || m.Unseen == nil {
			t.Fatalf("no users in %s", r.out)
		}
		unseen = *m.Unseen
		for _, u := range m.Users {
			if u.PID == pid {
				uses = u.Uses
				harness.Equal(t, "the user of the process", u.User, os.Getuid())
			}
		}
	}
	return uses, unseen
}

// runIn starts a process in a directory and waits for its first output. It ends with its input.
func runIn(t *testing.T, dir string, argv ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = dir
	in, err := cmd.StdinPipe()
	harness.Check(t, err)
	out, err := cmd.StdoutPipe()
	harness.Check(t, err)
	harness.Check(t, cmd.Start())
	t.Cleanup(func() { _ = in.Close(); _ = cmd.Wait() })
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatalf("%q: %v", argv, err)
	}
	return cmd
}

// list --users shows each way in which a process uses a mount, even while the daemon is stopped,
// and no other process.
func TestListUsers(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, "file f \"x\"", "dir d")
		const wait = "echo; read -r line || true"
		harness.Check(t, harness.CopyFile("/bin/sh", o.Path("prog")))
		for _, tt := range []struct {
			dir, script string
			argv        []string
			want        []string
		}{
			{"/", wait, []string{"sh", "-c"}, nil},
			{o.Path("d"), wait, []string{"sh", "-c"}, []string{"cwd"}},
			{"/", "exec 3<" + o.Path("f") + "; " + wait, []string{"sh", "-c"}, []string{"file"}},
			{"/", wait, []string{o.Path("prog"), "-c"}, []string{"exe", "map"}},
		} {
			cmd := runIn(t, tt.dir, append(slices.Clone(tt.argv), tt.script)...)
			stop(t, o.PID)
			r := command(t, "list", "--users", "--json")
			table := command(t, "list", "--users")
			harness.Kill(o.PID, syscall.SIGCONT)
			if uses, _ := usesOf(t, r, o.Point, cmd.Process.Pid); !slices.Equal(uses, tt.want) {
				t.Errorf("%q in %s: the uses are %q, want %q", tt.script, tt.dir, uses, tt.want)
			}
			if daemon, _ := usesOf(t, r, o.Point, o.PID); daemon != nil {
				t.Errorf("the daemon uses its mount: %q", daemon)
			}
			if want := strings.Join(tt.want, ",") + "\n"; len(tt.want) > 0 && !strings.Contains(table.out, want) {
				t.Errorf("%q is not in\n%s", want, table.out)
			}
		}
		// A mount namespace keeps the mount in use as well.
		flags := "-m"
		if e.Mode == harness.ModeFusermount {
			flags = "-Urm"
		}
		cmd := runIn(t, "/", "unshare", flags, "sh", "-c", wait)
		uses, unseen := usesOf(t, command(t, "list", "--users", "--json"), o.Point, cmd.Process.Pid)
		if !slices.Equal(uses, []string{"mount"}) {
			t.Errorf("in a mount namespace of its own: %q", uses)
		}
		if e.Mode == harness.ModeFusermount && unseen == 0 {
			t.Error("a plain user may look at each process")
		}
	})
}
