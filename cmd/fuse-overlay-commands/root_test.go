package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/fuse-overlay/fuse-overlay/internal/commands"
)

// The program that mounts knows the commands of this one.
func TestNamesAreThoseOfTheTree(t *testing.T) {
	var names []string
	for _, c := range newRoot().Commands() {
		if !c.Hidden {
			names = append(names, c.Name())
		}
	}
	slices.Sort(names)
	if want := commands.Names(); !slices.Equal(names, want) {
		t.Errorf("the tree has %q, package commands has %q", names, want)
	}
	for _, name := range []string{cobra.ShellCompRequestCmd, cobra.ShellCompNoDescRequestCmd} {
		if !commands.InSecondProgram(name) {
			t.Errorf("the program that mounts does not know %s", name)
		}
	}
}

// Each command has a help with an example, which fits a terminal of 80 columns.
func TestEachCommandHasHelp(t *testing.T) {
	for _, c := range newRoot().Commands() {
		if c.Hidden {
			continue
		}
		out, errs, code := runCommand(c.Name(), "--help")
		if c.Name() == commands.Mount || c.Name() == "help" { // their flags are no flags of theirs
			out, errs, code = runCommand("help", c.Name())
		}
		if code != exitOK || errs != "" {
			t.Errorf("%s: exit %d, %q", c.Name(), code, errs)
		}
		if !strings.Contains(out, "\nExamples:\n  fuse-overlay "+c.Name()) {
			t.Errorf("%s: no example in\n%s", c.Name(), out)
		}
		if c.Short == "" || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: the short help is %q", c.Name(), c.Short)
		}
		for line := range strings.Lines(c.Long) {
			if len(line) > 80 {
				t.Errorf("%s: a line of %d columns: %s", c.Name(), len(line)-1, line)
			}
		}
	}
}

func runCommand(args ...string) (stdout, stderr string, code int) {
	var out, errs bytes.Buffer
	code = run(append([]string{ownName}, args...), &out, &errs)
	return out.String(), errs.String(), code
}
