package commands

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// slowCommand is a script of sh in which a command takes longer than a second, and what it shows
// then.
type slowCommand struct{ script, line string }

// slowCommands returns scripts. The mount at below is the lower of commands, and the one at leaving
// is unmounted. Both answer late.
func slowCommands(dir, below, leaving string) []slowCommand {
	layers := " " + dir + "/upper " + below
	return []slowCommand{
		{"$PROGRAM check" + layers, "checking objects (0) [0s]"},
		{"$PROGRAM vacuum --dry-run" + layers, "comparing objects (0) [0s]"},
		{"$PROGRAM diff --stat" + layers, "comparing objects (0) [0s]"},
		{"$PROGRAM diff" + layers + " | cat >/dev/null", "comparing objects (0) [0s]"},
		{"$PROGRAM diff --tar" + layers + " >/dev/null", "writing the layer ( 0 B) [0s]"},
		{"(sleep 1.5; cat " + dir + "/layer.tar) | $PROGRAM apply - $(mktemp -d " + dir + "/unpackedXXXX)", "unpacking ( 0 B) [0s]"},
		{"$PROGRAM umount " + leaving, "unmounting  [0s]"},
	}
}

// mountedIn is a mount in a directory of its own.
func mountedIn(t *testing.T, e *harness.Env, name string) *harness.Overlay {
	t.Helper()
	own := *e
	own.Dir += "/" + name
	harness.Mkdir(t, own.Dir)
	return own.Mounted(t, "file f \"f\"")
}

// A command that takes longer than a second shows on a terminal what it does, and how far it is. In
// the end the line is gone. On a terminal that obeys no escape sequences there is no line.
func TestProgress(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		harness.Mkdir(t, e.Dir+"/upper")
		harness.Write(t, e.Dir+"/upper/new", "n")
		harness.Shell(t, e.Dir, "tar -cf layer.tar -C upper .")
		below := mountedIn(t, e, "below")
		late := []int{below.PID}
		type running struct {
			slowCommand
			*exec.Cmd
			shown *bytes.Buffer
		}
		var all []running
		for _, kind := range []string{"dumb", "xterm"} {
			leaving := mountedIn(t, e, kind)
			late = append(late, leaving.PID)
			for _, s := range slowCommands(e.Dir, below.Point, leaving.Point) {
				cmd := exec.Command("script", "-qec", s.script, "/dev/null")
				cmd.Env = append(os.Environ(), "TERM="+kind, "NO_COLOR=1", "PROGRAM="+harness.Program)
				if kind == "dumb" {
					s.line = ""
				}
				shown := &bytes.Buffer{}
				cmd.Stdout, cmd.Stderr = shown, shown
				all = append(all, running{s, cmd, shown})
			}
		}
		for _, pid := range late {
			harness.Kill(pid, syscall.SIGSTOP)
		}
		for _, r := range all {
			harness.Check(t, r.Start())
		}
		time.Sleep(2 * time.Second) // all show their line, also on a busy machine
		for _, pid := range late {
			harness.Kill(pid, syscall.SIGCONT)
		}
		const clear = "\x1b[2K\r"
		for _, r := range all {
			if err := r.Wait(); err != nil {
				t.Errorf("%s: %v: %s", r.script, err, r.shown)
			}
			text := r.shown.String()
			lines, after, cleared := strings.Cut(text, clear)
			switch {
			case r.line == "" && strings.Contains(text, "\x1b"):
				t.Errorf("%s shows %q on a terminal without escape sequences", r.script, text)
			case r.line != "" && (!strings.HasPrefix(lines, "\r| "+r.line) || !cleared || strings.Contains(after, "\x1b")):
				t.Errorf("%s shows %q, and no line %q that goes", r.script, text, r.line)
			}
		}
	})
}
