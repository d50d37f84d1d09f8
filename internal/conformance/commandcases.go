package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// A commandCase is a case that is a command of its own.
type commandCase struct {
	name string
	cmd  *exec.Cmd
	// missing are the exit codes that mean "not applicable".
	missing []int
}

// commandCases runs commands one after the other, and returns a result for each. Exit code 0 is
// passed. The detail of a failure is the last line of the output.
func commandCases(cases []commandCase) []result {
	var results []result
	for _, c := range cases {
		fmt.Printf("=== %s: %s\n", c.name, strings.Join(c.cmd.Args, " "))
		results = append(results, c.run())
	}
	return results
}

func (c *commandCase) run() result {
	var tail lastLine
	c.cmd.Stdout, c.cmd.Stderr = &tail, &tail
	err := c.cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return result{Case: c.name, Status: passed}
	case errors.As(err, &exit):
		for _, code := range c.missing {
			if exit.ExitCode() == code {
				return result{Case: c.name, Status: notApplicable, Detail: tail.text()}
			}
		}
	}
	return result{Case: c.name, Status: failed, Detail: fmt.Sprintf("%v: %s", err, tail.text())}
}

// lastLine passes an output on to the log, and keeps its last line.
type lastLine struct{ kept string }

func (l *lastLine) Write(p []byte) (int, error) {
	l.kept += string(p)
	if i := strings.LastIndex(strings.TrimRight(l.kept, "\n"), "\n"); i >= 0 {
		l.kept = l.kept[i+1:]
	}
	return os.Stdout.Write(p)
}

func (l *lastLine) text() string { return strings.TrimSpace(l.kept) }
