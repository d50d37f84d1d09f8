package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

func runXfstestsOverlay(s *session) ([]result, error) { return s.xfstests("overlay", "quick") }

func runXfstestsGeneric(s *session) ([]result, error) { return s.xfstests("generic", "quick") }

// xfstests runs a group of a folder of xfstests in its configuration for overlayfs, where mount(8)
// finds the program as the helper for the type overlay. So both sides run the same tests.
func (s *session) xfstests(folder, group string) ([]result, error) {
	if err := errors.Join(s.helpers("overlay"), s.addUsers(), s.showAsOverlay()); err != nil {
		return nil, err
	}
	results := filepath.Join(s.Dir, "results")
	config, err := s.xfstestsConfig(results)
	if err != nil {
		return nil, err
	}
	tests, err := s.xfstestsGroup(folder, group)
	if err != nil {
		return nil, err
	}
	argv := append([]string{"./check", "-overlay", "-R", "xunit-quiet"}, tests...)
	cmd := s.command(s.Source, argv...)
	cmd.Env = append(os.Environ(), "HOST_OPTIONS="+config)
	runErr := cmd.Run() // fails if a test fails
	report, err := os.Open(filepath.Join(results, "result.xml"))
	if err != nil {
		return nil, errors.Join(runErr, err)
	}
	defer report.Close()
	all, err := parseJUnit(report, func(_, testcase string) string { return testcase })
	if err == nil && len(all) != len(tests) {
		err = errors.Join(runErr, fmt.Errorf("xfstests has reported %d of %d tests", len(all), len(tests)))
	}
	return all, err
}

// xfstestsGroup returns the chosen tests of a group. The build of xfstests makes the list, one line
// for each test of a folder: its number and its groups.
func (s *session) xfstestsGroup(folder, group string) (tests []string, err error) {
	text, err := os.ReadFile(filepath.Join(s.Source, "tests", folder, "group.list"))
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) > 1 && slices.Contains(f[1:], group) && s.chosen(folder+"/"+f[0]) {
			tests = append(tests, folder+"/"+f[0])
		}
	}
	if err == nil && len(tests) == 0 {
		err = fmt.Errorf("xfstests: no test of group %s is chosen", group)
	}
	return tests, err
}

// xfstestsConfig makes the two devices and the configuration file of xfstests.
func (s *session) xfstestsConfig(results string) (path string, err error) {
	text := fmt.Sprintf("export FSTYP=xfs\nexport RESULT_BASE=%s\n", results)
	for _, name := range []string{"TEST", "SCRATCH"} {
		image := filepath.Join(s.Image, name)
		out, err := exec.Command("bash", "-ec", `truncate -s 10G "$1"; mkfs.xfs -q -f "$1"; losetup -f --show "$1"`,
			"bash", image).Output()
		if err != nil {
			return "", fmt.Errorf("making the device %s: %w", name, err)
		}
		point := filepath.Join(s.Dir, strings.ToLower(name))
		if err := os.Mkdir(point, 0o755); err != nil {
			return "", err
		}
		dir := map[string]string{"TEST": "TEST_DIR", "SCRATCH": "SCRATCH_MNT"}[name]
		text += fmt.Sprintf("export %s_DEV=%s\nexport %s=%s\n", name, strings.TrimSpace(string(out)), dir, point)
	}
	path = filepath.Join(s.Dir, "local.config")
	return path, os.WriteFile(path, []byte(text), 0o644)
}

// addUsers adds the users and groups that xfstests' README lists, to this mount namespace.
func (s *session) addUsers() error {
	add := map[string]string{"/etc/passwd": "", "/etc/group": ""}
	for i, name := range []string{"fsgqa", "fsgqa2", "123456-fsgqa"} {
		id := 60_001 + i
		add["/etc/passwd"] += fmt.Sprintf("%s:*:%d:%d::%s:/bin/bash\n", name, id, id, s.Dir)
		add["/etc/group"] += fmt.Sprintf("%s:x:%d:\n", name, id)
	}
	for path, lines := range add {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if strings.Contains(string(text), "\nfsgqa:") {
			continue
		}
		copied := filepath.Join(s.Dir, filepath.Base(path))
		if err := os.WriteFile(copied, append(text, lines...), 0o644); err != nil {
			return err
		}
		if err := syscall.Mount(copied, path, "", syscall.MS_BIND, ""); err != nil {
			return fmt.Errorf("adding users to %s: %w", path, err)
		}
	}
	return nil
}

// shownFeatures are the parameters of the kernel's overlayfs by which xfstests decides whether a
// feature can be tested. A FUSE mount does not show its options, but does have the features.
var shownFeatures = []string{"redirect_dir", "index", "metacopy", "xino_auto"}

// showAsOverlay makes df show the type fuse.overlay as overlay, and sets shownFeatures.
func (s *session) showAsOverlay() error {
	if s.mode().kernel {
		return nil
	}
	yes := filepath.Join(s.Dir, "Y")
	if err := os.WriteFile(yes, []byte("Y\n"), 0o444); err != nil {
		return err
	}
	for _, name := range shownFeatures {
		if err := syscall.Mount(yes, "/sys/module/overlay/parameters/"+name, "", syscall.MS_BIND, ""); err != nil {
			return fmt.Errorf("setting the parameter %s: %w", name, err)
		}
	}
	const script = "#!/bin/bash\nset -o pipefail\n/usr/bin/df \"$@\" | sed 's/ fuse\\.overlay / overlay /'\n"
	return s.addCommand("df", script)
}
