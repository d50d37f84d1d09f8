package main

import (
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

//go:embed pins.txt
var pinsText string

// A pin is the repository of a suite, and the commit that its results belong to.
type pin struct{ name, url, commit string }

// parsePins reads pins.txt.
func parsePins(text string) (map[string]pin, error) {
	pins := map[string]pin{}
	for n, line := range strings.Split(text, "\n") {
		if line == "" || line[0] == '#' {
			continue
		}
		f := strings.Fields(line)
		if len(f) != 3 || len(f[2]) != 40 {
			return nil, fmt.Errorf("pins.txt:%d: name, URL and commit expected", n+1)
		}
		pins[f[0]] = pin{name: f[0], url: f[1], commit: f[2]}
	}
	return pins, nil
}

// findSource returns the folder and the version of a suite. It fails if the suite is missing, is
// not built, or is at another commit than its pin.
func findSource(s *suite, folder string) (dir, version string, err error) {
	if s.locate != nil {
		return s.locate()
	}
	if s.pkg != "" {
		if _, err := os.Stat(s.built); err != nil {
			return "", "", fmt.Errorf("%s: install the package %s", s.name, s.pkg)
		}
		out, err := exec.Command("dpkg-query", "-W", "-f", "${Version}", s.pkg).Output()
		if err != nil {
			return "", "", fmt.Errorf("%s: the version of package %s: %w", s.name, s.pkg, err)
		}
		return filepath.Dir(s.built), s.pkg + " " + string(out), nil
	}
	pins, err := parsePins(pinsText)
	if err != nil {
		return "", "", err
	}
	p, ok := pins[s.source()]
	if !ok {
		return "", "", fmt.Errorf("%s: pins.txt has no line %s", s.name, s.source())
	}
	if dir, err = filepath.Abs(filepath.Join(folder, p.name)); err != nil {
		return "", "", err
	}
	out, err := exec.Command("git", "-c", "safe.directory=*", "-C", dir, "rev-parse", "HEAD").Output()
	if err != nil {
		return "", "", fmt.Errorf("%s: clone %s to %s, check out %s, and build it: %w", s.name, p.url, dir, p.commit, err)
	}
	if commit := strings.TrimSpace(string(out)); commit != p.commit {
		return "", "", fmt.Errorf("%s: %s is at commit %s, not %s", s.name, dir, commit, p.commit)
	}
	if _, err := os.Stat(filepath.Join(dir, s.built)); err != nil {
		return "", "", fmt.Errorf("%s: build it as its documents describe: %w", s.name, err)
	}
	return dir, p.name + " " + p.commit[:12], nil
}
