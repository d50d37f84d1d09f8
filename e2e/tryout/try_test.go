package tryout

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// site is a part of the running system that commands change.
type site struct {
	t    *testing.T
	home string
	base string // where the uppers lie
}

func newSite(t *testing.T, e *harness.Env) *site {
	t.Helper()
	s := &site{t: t, home: e.Dir + "/home", base: e.Dir + "/tmp"}
	harness.Mkdir(t, s.home, s.base)
	harness.Build(t, e, s.home, "file a \"a\"\nfile d/b 0600 \"b\"\nlink d/c d/b\nsymlink s a\ndir empty\nfifo p")
	t.Cleanup(func() {
		harness.WantNames(t, s.base)
		harness.WantNothingRuns(t, s.base)
	})
	return s
}

// tree is all that a command could change of the site, with times.
func (s *site) tree() map[string]string {
	s.t.Helper()
	lines, err := harness.Snapshot(s.home, harness.View{Mode: true, Owner: true, Nlink: true, Xattrs: true,
		Also: func(_ string, st *unix.Stat_t) string { return fmt.Sprint(" ", st.Mtim) }})
	harness.Check(s.t, err)
	return lines
}

func (s *site) command(args ...string) *exec.Cmd {
	cmd := exec.Command(harness.Program, append([]string{"try"}, args...)...)
	cmd.Dir = s.home
	cmd.Env = append(os.Environ(), "TMPDIR="+s.base, "HOME="+s.home)
	return cmd
}

// run runs try and returns its streams and its exit code. The tree must be as before.
func (s *site) run(args ...string) (stdout, stderr string, code int) {
	s.t.Helper()
	before := s.tree()
	cmd := s.command(args...)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if d := harness.DiffLines(before, s.tree()); d != "" {
		s.t.Errorf("%q changed the real tree:\n%s", args, d)
	}
	return out.String(), errs.String(), harness.ExitCode(err)
}

// want runs a script and compares what is listed of the home, without the prefix of its path.
func (s *site) want(script, changes string) (stdout string) {
	s.t.Helper()
	out, errs, code := s.run("--throw-away", "--", "sh", "-euc", script)
	if code != 0 {
		s.t.Errorf("%q: exit %d, %s", script, code, errs)
	}
	var got strings.Builder
	for line := range strings.Lines(errs) {
		if kind, path, ok := strings.Cut(line, " "+s.home); ok && len(kind) == 1 {
			got.WriteString(kind + " " + strings.TrimPrefix(path, "/"))
		}
	}
	harness.Equal(s.t, "the changes of "+script, got.String(), changes)
	return out
}

func eachMode(t *testing.T, fn func(t *testing.T, e *harness.Env, s *site)) {
	t.Helper()
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) { fn(t, e, newSite(t, e)) })
}

func TestChanges(t *testing.T) {
	eachMode(t, func(t *testing.T, _ *harness.Env, s *site) {
		s.want(`rm -rf "$HOME"/* && ls -A "$HOME"`, "M \ttimes\nD a\nD d\nD empty\nD p\nD s\n")
		// The link d/c of d/b is broken, as by any overlay without index=on.
		s.want(`echo more >>a; chmod 640 d/b; mv s t; echo "$PWD"`, "M \ttimes\nM a\tcontent,times\nM d/b\tmode\nD s\nA t\n")
		got := s.want(`cat a; pwd; id -u; echo x >new; cat new`, "M \ttimes\nA new\n")
		harness.Equal(t, "the output", got, fmt.Sprintf("a%s\n%d\nx\n", s.home, os.Getuid()))

		harness.Write(t, s.home+"/Makefile", "install:\n\tinstall -d $(DESTDIR)/bin\n\tinstall -m 755 a $(DESTDIR)/bin/prog\n")
		s.want(`make -s install DESTDIR="$HOME/usr"`, "M \ttimes\nA usr\nA usr/bin\nA usr/bin/prog\n")

		out, errs, code := s.run("--throw-away", "true")
		if out != "" || !strings.HasPrefix(errs, "Nothing has changed.\n") || code != 0 {
			t.Errorf("nothing changed: exit %d, %q, %q", code, out, errs)
		}
	})
}

func TestExitCodes(t *testing.T) {
	eachMode(t, func(t *testing.T, _ *harness.Env, s *site) {
		for _, tt := range []struct {
			code int
			args []string
			want string // in stderr
		}{
			{7, []string{"--throw-away", "sh", "-c", "exit 7"}, ""},
			{137, []string{"--throw-away", "sh", "-c", "kill -9 $$"}, ""},
			{127, []string{"--throw-away", "--", "no-such-command"}, "no-such-command"},
			{126, []string{"--throw-away", "--", s.home + "/a"}, "permission denied"},
			{125, []string{"--keep", s.home + "/d", "--", "true"}, "exists already"},
			{2, []string{"--", "true"}, "--throw-away"},
			{2, []string{"--throw-away"}, "requires at least 1 arg"},
			{2, []string{"--throw-away", "--keep", "x", "true"}, "none of the others can be"},
		} {
			_, errs, code := s.run(tt.args...)
			if code != tt.code || !strings.Contains(errs, tt.want) {
				t.Errorf("%q: exit %d, want %d: %s", tt.args, code, tt.code, errs)
			}
		}
	})
}

// What is kept shows the same changes later.
func TestKeep(t *testing.T) {
	eachMode(t, func(t *testing.T, e *harness.Env, s *site) {
		kept := s.base + "/kept"
		_, errs, code := s.run("--keep", kept, "--", "sh", "-euc", "echo new >a; mkdir n; rm -r d")
		if code != 0 {
			t.Fatalf("exit %d: %s", code, errs)
		}
		args := []string{"diff", "--name-only"}
		if e.Mode != harness.ModeRoot {
			args = append(args, "-o", "xattr_permissions=2")
		}
		out, err := harness.Run(harness.Program, append(args, kept+"/root", "/", "--", strings.TrimPrefix(s.home, "/"))...)
		harness.Check(t, err)
		home := strings.TrimPrefix(s.home, "/")
		harness.Equal(t, "the changes", out, fmt.Sprintf("%[1]s\n%[1]s/a\n%[1]s/d\n%[1]s/n\n", home))
		harness.RemoveTree(kept)
	})
}

// Processes that a command leaves behind end with it.
func TestProcessesLeftBehind(t *testing.T) {
	eachMode(t, func(t *testing.T, _ *harness.Env, s *site) {
		start := time.Now()
		_, errs, code := s.run("--throw-away", "--", "sh", "-c", "sleep 4711 & (trap '' HUP TERM; sleep 4711) & exit 3")
		if code != 3 || time.Since(start) > time.Minute {
			t.Errorf("exit %d after %v: %s", code, time.Since(start), errs)
		}
	})
}

// Changes that are merged into the real files are those that the command makes there without try.
func TestMerge(t *testing.T) {
	eachMode(t, func(t *testing.T, e *harness.Env, s *site) {
		const script = `echo more >>a; chmod 600 a; rm s; ln -s b s; mkdir -p new/deep; echo x >new/deep/f; ln new/deep/f new/l
			mv empty moved; chmod 700 moved; rm -r d; mkdir d; echo y >d/y; truncate -s 100000 sparse; touch -d @1000 old; chmod 1755 .`
		control := &site{t: t, home: e.Dir + "/control"}
		harness.Mkdir(t, control.home)
		harness.Build(t, e, control.home, "file a \"a\"\nfile d/b 0600 \"b\"\nlink d/c d/b\nsymlink s a\ndir empty\nfifo p")
		harness.Shell(t, control.home, script)
		cmd := s.command("--merge", "--", "sh", "-euc", script)
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.HasSuffix(string(out), "The changes are in the real files.\n") {
			t.Fatalf("%v\n%s", err, out)
		}
		for _, v := range []harness.View{harness.FullView, {Also: func(rel string, st *unix.Stat_t) string {
			return fmt.Sprint(st.Blocks > 8, rel == "old" && st.Mtim != unix.Timespec{Sec: 1000})
		}}} {
			harness.CompareTrees(t, "the real files", control.home, s.home, v)
		}
		if out, err := s.command("--merge", "true").CombinedOutput(); err != nil || string(out) != "Nothing has changed.\n" {
			t.Errorf("%v\n%s", err, out)
		}
	})
}

// SIGTERM reaches the command. SIGKILL ends it, and leaves nothing.
func TestSignals(t *testing.T) {
	eachMode(t, func(t *testing.T, _ *harness.Env, s *site) {
		for _, signal := range []syscall.Signal{unix.SIGTERM, unix.SIGKILL} {
			before := s.tree()
			cmd := s.command("--throw-away", "--", "sh", "-c", `trap "exit 9" TERM; sleep 4712 & echo x >new; echo ready; wait`)
			out, err := cmd.StdoutPipe()
			harness.Check(t, err)
			var errs strings.Builder
			cmd.Stderr = &errs
			harness.Check(t, cmd.Start())
			text := make([]byte, 5)
			_, err = out.Read(text)
			harness.Check(t, err)
			harness.Check(t, cmd.Process.Signal(signal))
			err = cmd.Wait()
			if signal == unix.SIGTERM {
				if code := harness.ExitCode(err); code != 9 {
					t.Errorf("exit %d: %s", code, &errs)
				}
			}
			if !harness.Eventually(30*time.Second, func() bool { entries, err := os.ReadDir(s.base); return err == nil && len(entries) == 0 }) {
				t.Errorf("%v: the uppers are left", signal)
			}
			if d := harness.DiffLines(before, s.tree()); d != "" {
				t.Errorf("%v changed the real tree:\n%s", signal, d)
			}
		}
	})
}

// A shell has job control, and the terminal shows the question afterwards.
func TestTerminal(t *testing.T) {
	eachMode(t, func(t *testing.T, e *harness.Env, s *site) {
		kept := s.base + "/answer"
		cmd := exec.Command("script", "-qec", harness.Program+" try -- bash --norc -i", "/dev/null")
		cmd.Dir = s.home
		cmd.Env = append(os.Environ(), "TMPDIR="+s.base, "HOME="+s.home, "HISTFILE=", "TERM=dumb")
		in, err := cmd.StdinPipe()
		harness.Check(t, err)
		var out strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &out
		harness.Check(t, cmd.Start())
		for _, line := range []string{"tty; sleep 100 &", "kill %1; wait; echo new >new", "exit 5", kept} {
			time.Sleep(time.Second)
			_, err := in.Write([]byte(line + "\n"))
			harness.Check(t, err)
		}
		time.Sleep(time.Second)
		harness.Check(t, in.Close())
		code := harness.ExitCode(cmd.Wait())
		for _, want := range []string{"/dev/pts/", "[1]", "A " + s.home + "/new", "The changes are in " + kept} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("the terminal lacks %q", want)
			}
		}
		if code != 5 || strings.Contains(out.String(), "no job control") {
			t.Errorf("exit %d; the terminal:\n%s", code, out.String())
		}
		harness.RemoveTree(kept)
	})
}
