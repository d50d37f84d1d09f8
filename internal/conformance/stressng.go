package main

import (
	"fmt"
	"strings"
)

// stressTime is the time of each stressor.
const stressTime = "5s"

// Exit codes of stress-ng: no resources, not implemented.
var stressMissing = []int{3, 4}

// runStressNG runs each stressor of the class of file systems, with two processes.
func runStressNG(s *session) ([]result, error) {
	o, err := s.mounted("overlay")
	if err != nil {
		return nil, err
	}
	list := s.command(o.Dir, "stress-ng", "--class", "filesystem?")
	list.Stdout = nil
	out, err := list.Output()
	if err != nil {
		return nil, fmt.Errorf("listing the stressors: %w", err)
	}
	_, names, _ := strings.Cut(string(out), ":")
	var cases []commandCase
	for _, name := range s.choose(strings.Fields(names)) {
		cmd := s.command(o.Dir, "stress-ng", "--"+name, "2", "--timeout", stressTime, "--verify", "--temp-path", ".")
		cases = append(cases, commandCase{name: name, cmd: cmd, missing: stressMissing})
	}
	return commandCases(cases), o.unmount()
}
