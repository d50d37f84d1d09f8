package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"syscall"
)

// A session is one suite in one mode: a process that is the only user of its namespaces. It gets
// this description from the process that starts it. All fields are immutable.
type session struct {
	Suite   string
	Mode    string
	Source  string // the folder of the suite
	Program string
	// Dir is a folder on a file system that only this session uses. The user of the mode owns it.
	Dir string
	// Image is the folder for images of further file systems.
	Image string
	// Case is a pattern of path.Match for the parts of a suite that run. Empty is all.
	Case string
}

// envSession holds the description in the environment of the session's process, resultFD is the
// descriptor that gets the results.
const (
	envSession = "FUSE_OVERLAY_CONFORMANCE_SESSION"
	resultFD   = 3
)

// inSession is the whole life of the session's process.
func inSession(description string) error {
	var s session
	if err := json.Unmarshal([]byte(description), &s); err != nil {
		return err
	}
	var row *suite
	for i := range suites {
		if suites[i].name == s.Suite {
			row = &suites[i]
		}
	}
	if err := errors.Join(makePrivate(), syscall.Mount("proc", "/proc", "proc", 0, "")); err != nil {
		return fmt.Errorf("preparing the namespaces: %w", err)
	}
	syscall.Umask(0o022)
	if err := run(exec.Command("ip", "link", "set", "lo", "up")); err != nil {
		return err
	}
	results, err := row.run(&s)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.NewFile(resultFD, "results")).Encode(results)
}

// mode is the session's mode.
func (s *session) mode() mode {
	m, _ := modeNamed(s.Mode)
	return m
}

// chosen reports whether a part of the suite runs.
func (s *session) chosen(name string) bool {
	if s.Case == "" {
		return true
	}
	ok, err := path.Match(s.Case, name)
	return ok && err == nil
}

// choose returns the parts that run.
func (s *session) choose(names []string) (chosen []string) {
	for _, name := range names {
		if s.chosen(name) {
			chosen = append(chosen, name)
		}
	}
	return chosen
}

// An overlay is a mount of the session, with a lower and an upper on one file system.
type overlay struct {
	s      *session
	layers string // folder of lower, upper and work
	below  string // a folder of the machine that is one more lower, at the bottom, or empty
	point  string
	Dir    string // a directory of the mount that lower and upper have
}

// mounted mounts an overlay. Its Dir is empty.
func (s *session) mounted(name string) (*overlay, error) { return s.mountedOver(name, "") }

// mountedOver is mounted with one more lower at the bottom, a folder of the machine.
func (s *session) mountedOver(name, below string) (*overlay, error) {
	base := filepath.Join(s.Dir, name)
	o := &overlay{s: s, layers: base, below: below, point: filepath.Join(base, "merged")}
	o.Dir = filepath.Join(o.point, "dir")
	for _, d := range []string{"lower/dir", "upper", "work", "merged"} {
		if err := os.MkdirAll(filepath.Join(base, d), 0o755); err != nil {
			return nil, err
		}
	}
	if s.mode().plain {
		if err := exec.Command("chown", "-R", fmt.Sprintf("%d:%d", plainUser, plainUser), base).Run(); err != nil {
			return nil, err
		}
	}
	return o, o.mount()
}

func (o *overlay) mount() error {
	lowers := filepath.Join(o.layers, "lower")
	if o.below != "" {
		lowers += ":" + o.below
	}
	opts := fmt.Sprintf("lowerdir=%[2]s,upperdir=%[1]s/upper,workdir=%[1]s/work", o.layers, lowers)
	m := o.s.mode()
	opts = strings.Join(append([]string{opts}, m.opts...), ",")
	if m.kernel {
		return syscall.Mount("overlay", o.point, "overlay", 0, opts)
	}
	return run(o.s.command(o.s.Dir, o.s.Program, "-o", opts, o.point))
}

func (o *overlay) unmount() error { return syscall.Unmount(o.point, 0) }

// command makes a command that runs in a directory. Its output goes to the log of the session.
func (s *session) command(dir string, argv ...string) *exec.Cmd {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, os.Stdout, os.Stderr
	if s.mode().plain {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: plainUser, Gid: plainUser}}
	}
	return cmd
}

// run runs a command. Its error names the command.
func run(cmd *exec.Cmd) error {
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w", strings.Join(cmd.Args, " "), err)
	}
	return nil
}
