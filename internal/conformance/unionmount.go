package main

import (
	"os"
	"path/filepath"
	"strings"
)

// unionKind is the type of the program's mounts in unionmount-testsuite.
const unionKind = "fuse.fuse-overlay"

// unionmountSets are the ways in which each test of unionmount-testsuite runs. The suite tests a
// failing rename of directories with --xdev, and a successful one without.
var unionmountSets = []struct {
	name  string
	flags []string
	opts  string
	skips string // the test that belongs to the other setting
}{
	{name: "redirects-off", flags: []string{"--xdev"}, opts: "redirect_dir=off", skips: "rename-*dir"},
	{name: "redirects-on", opts: "redirect_dir=on", skips: "rename-exdev"},
}

// middleLayers is how many layers a run may stack: the upper becomes a lower during the test.
const middleLayers = "3"

// runUnionmount runs each test of unionmount-testsuite on its own, because the suite ends with the
// first failure. A case is a set and a test: redirects-on/rename-dir.
func runUnionmount(s *session) ([]result, error) {
	if err := s.helpers(unionKind); err != nil {
		return nil, err
	}
	files, err := filepath.Glob(filepath.Join(s.Source, "tests", "*.py"))
	if err != nil {
		return nil, err
	}
	base := filepath.Join(s.Dir, "base")
	if err := os.Mkdir(base, 0o755); err != nil {
		return nil, err
	}
	var cases []commandCase
	for _, set := range unionmountSets {
		for _, file := range files {
			test := strings.TrimSuffix(filepath.Base(file), ".py")
			name := set.name + "/" + test
			if !s.chosen(name) {
				continue
			}
			argv := []string{"./run", "--ov=" + middleLayers}
			if !s.mode().kernel {
				argv = append(argv, "--fuse="+strings.TrimPrefix(unionKind, "fuse."))
			}
			argv = append(append(argv, set.flags...), test)
			cmd := s.command(s.Source, argv...)
			cmd.Env = append(os.Environ(), "UNIONMOUNT_BASEDIR="+base, "UNIONMOUNT_MNTOPTIONS=rw,"+set.opts,
				"PYTHONDONTWRITEBYTECODE=1")
			cases = append(cases, commandCase{name: name, cmd: cmd})
		}
	}
	return commandCases(cases), nil
}
