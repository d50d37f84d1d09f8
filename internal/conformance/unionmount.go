package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// unionKind is the type of the program's mounts in unionmount-testsuite.
const unionKind = "fuse.fuse-overlay"

// unionmountSets are the ways in which each test of unionmount-testsuite runs. As in the
// list of the suite itself, the tests of renames of merged directories belong to one of them.
var unionmountSets = []struct {
	name   string
	flags  []string
	opts   string
	others []string
}{
	{
		name: "redirects-off", flags: []string{"--xdev"}, opts: "redirect_dir=off",
		others: []string{"rename-dir", "rename-empty-dir", "rename-pop-dir", "rename-move-dir"},
	},
	{name: "redirects-on", opts: "redirect_dir=on", others: []string{"rename-exdev"}},
}

// middleLayers is how many layers a run may stack: the upper becomes a lower during the test.
const middleLayers = "3"

// syncLayers makes os.sync of the suite, which each test calls, write the layers alone, not
// all file systems of the machine.
const syncLayers = `import ctypes, os
def sync():
    fd = os.open(os.environ["UNIONMOUNT_BASEDIR"], os.O_RDONLY)
    if ctypes.CDLL(None).syncfs(fd) != 0:
        raise OSError("syncfs")
    os.close(fd)
os.sync = sync
`

// runUnionmount runs the tests of unionmount-testsuite. A case is a set and a test:
// redirects-on/rename-dir.
func runUnionmount(s *session) (results []result, err error) {
	if err := s.helpers(unionKind); err != nil {
		return nil, err
	}
	base, python := filepath.Join(s.Dir, "base"), filepath.Join(s.Dir, "python")
	if err := errors.Join(os.Mkdir(base, 0o755), os.Mkdir(python, 0o755)); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(python, "sitecustomize.py"), []byte(syncLayers), 0o644); err != nil {
		return nil, err
	}
	files, err := filepath.Glob(filepath.Join(s.Source, "tests", "*.py"))
	if err != nil {
		return nil, err
	}
	if err := s.keepCaches(); err != nil {
		return nil, err
	}
	env := append(os.Environ(), "UNIONMOUNT_BASEDIR="+base, "PYTHONPATH="+python, "PYTHONDONTWRITEBYTECODE=1")
	for _, set := range unionmountSets {
		var tests []string
		for _, file := range files {
			test := strings.TrimSuffix(filepath.Base(file), ".py")
			if s.chosen(set.name+"/"+test) && !slices.Contains(set.others, test) {
				tests = append(tests, test)
			}
		}
		argv := []string{"./run", "--ov=" + middleLayers}
		if m := s.mode(); !m.kernel {
			argv = append(argv, "--fuse="+strings.TrimPrefix(unionKind, "fuse."))
		} else if m.userns {
			set.opts = strings.Join(m.opts, ",") + "," + set.opts
		}
		more, err := s.unionmountTests(append(argv, set.flags...), append(env, "UNIONMOUNT_MNTOPTIONS=rw,"+set.opts), tests)
		if err != nil {
			return nil, err
		}
		for _, r := range more {
			results = append(results, result{Case: set.name + "/" + r.Case, Status: r.Status, Detail: r.Detail})
		}
	}
	return results, nil
}

// keepCaches replaces the file by which the suite drops all caches of the machine, after each
// unmount. The caches of the mount end with the mount.
func (s *session) keepCaches() error {
	file := filepath.Join(s.Dir, "drop_caches")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		return err
	}
	return syscall.Mount(file, "/proc/sys/vm/drop_caches", "", syscall.MS_BIND, "")
}

// unionmountTests runs tests by one command. The suite ends with the first failure, so the tests
// after it get another command.
func (s *session) unionmountTests(argv, env, tests []string) (results []result, err error) {
	for len(tests) > 0 {
		var out bytes.Buffer
		cmd := s.command(s.Source, append(slices.Clone(argv), tests...)...)
		cmd.Env, cmd.Stdout, cmd.Stderr = env, &out, &out
		runErr := cmd.Run()
		os.Stdout.Write(out.Bytes())
		done := len(tests)
		if runErr != nil {
			if done = slices.Index(tests, lastTest(out.String())); done < 0 {
				return nil, fmt.Errorf("no test of unionmount-testsuite has run: %w", runErr)
			}
		}
		for _, test := range tests[:done] {
			results = append(results, result{Case: test, Status: passed})
		}
		if runErr != nil {
			lines := strings.Split(strings.TrimSpace(out.String()), "\n")
			results = append(results, result{Case: tests[done], Status: failed, Detail: lines[len(lines)-1]})
			done++
		}
		tests = tests[done:]
	}
	return results, nil
}

// lastTest is the test that the suite has announced last: a line of three asterisks, the command
// line, and the test.
func lastTest(out string) (test string) {
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "***" {
			test = f[len(f)-1]
		}
	}
	return test
}
