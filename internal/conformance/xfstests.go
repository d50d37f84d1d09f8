package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
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
// finds the program as the helper for the type overlay. So both sides run the same tests. Each test
// has two new file systems. Otherwise a test that leaves an immutable file, or a mount in use,
// makes all later ones fail.
func (s *session) xfstests(folder, group string) ([]result, error) {
	if err := errors.Join(s.helpers("overlay"), s.addUsers(), s.showAsOverlay()); err != nil {
		return nil, err
	}
	tests, err := s.xfstestsGroup(folder, group)
	if err != nil {
		return nil, err
	}
	var all []result
	for _, test := range tests {
		r, err := s.xfstest(test)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", test, err)
		}
		all = append(all, r)
	}
	return all, nil
}

// xfstest runs one test.
func (s *session) xfstest(test string) (r result, err error) {
	defer func() { err = errors.Join(err, s.removeDevices()) }()
	report := filepath.Join(s.Dir, "results", "result.xml")
	if err := os.Remove(report); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return r, err
	}
	config, err := s.xfstestsConfig(filepath.Dir(report))
	if err != nil {
		return r, err
	}
	cmd := s.command(s.Source, "./check", "-overlay", "-R", "xunit-quiet", test)
	cmd.Env = append(os.Environ(), "HOST_OPTIONS="+config)
	runErr := cmd.Run() // fails if the test fails
	text, err := os.ReadFile(report)
	if err != nil {
		return r, errors.Join(runErr, err)
	}
	all, err := parseJUnit(bytes.NewReader(text), func(_, testcase string) string { return testcase })
	if err == nil && len(all) != 1 {
		err = errors.Join(runErr, fmt.Errorf("xfstests has reported %d results for one test", len(all)))
	}
	if err != nil {
		return r, err
	}
	return all[0], nil
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

// xfstestsDevices are the two devices of xfstests, and their names in its configuration.
var xfstestsDevices = []struct{ device, point string }{{"TEST_DEV", "TEST_DIR"}, {"SCRATCH_DEV", "SCRATCH_MNT"}}

// xfstestsConfig makes the two devices and the configuration file of xfstests.
func (s *session) xfstestsConfig(results string) (path string, err error) {
	text := fmt.Sprintf("export FSTYP=xfs\nexport RESULT_BASE=%s\n", results)
	for _, d := range xfstestsDevices {
		image := filepath.Join(s.Image, d.device)
		out, err := exec.Command("bash", "-ec", `truncate -s 10G "$1"; mkfs.xfs -q -f "$1"; losetup -f --show "$1"`,
			"bash", image).Output()
		if err != nil {
			return "", fmt.Errorf("making the device %s: %w", d.device, err)
		}
		point := filepath.Join(s.Dir, "mounts", d.point)
		if err := os.MkdirAll(point, 0o755); err != nil {
			return "", err
		}
		text += fmt.Sprintf("export %s=%s\nexport %s=%s\n", d.device, strings.TrimSpace(string(out)), d.point, point)
	}
	path = filepath.Join(s.Dir, "local.config")
	return path, os.WriteFile(path, []byte(text), 0o644)
}

// removeDevices unmounts what a test has left mounted, and removes the two devices. The kernel
// removes a device in use when its last user ends.
func (s *session) removeDevices() error {
	const script = `awk -v dir="$1/" 'index($5, dir) == 1 { print $5 }' /proc/self/mountinfo | tac | xargs -r umount -l
losetup -n -O NAME -j "$2" | xargs -r losetup -d
rm -f "$2"`
	var all error
	for _, d := range xfstestsDevices {
		cmd := s.command(s.Dir, "bash", "-euc", script, "bash", filepath.Join(s.Dir, "mounts"),
			filepath.Join(s.Image, d.device))
		all = errors.Join(all, run(cmd))
	}
	return all
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
	return s.addCommands(map[string]string{"df": script})
}
