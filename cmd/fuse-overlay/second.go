package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/fuse-overlay/fuse-overlay/internal/commands"
)

// Only a program called by its own name has commands: callers of compatName and of mount.NAME may
// have a mount point or a source of such a name.

// commandOf returns the command that an argument vector names, by its first argument. Empty: it is
// a mount.
func commandOf(argv []string) string {
	if len(argv) < 2 || filepath.Base(argv[0]) != ownName {
		return ""
	}
	if name := argv[1]; commands.InSecondProgram(name) {
		return name
	}
	return ""
}

// withoutMount removes the word mount, with which the grammar of a mount may begin.
func withoutMount(argv []string) []string {
	if len(argv) > 1 && argv[1] == commands.Mount && filepath.Base(argv[0]) == ownName {
		return append([]string{argv[0]}, argv[2:]...)
	}
	return argv
}

// runSecond replaces this program by the one that has the other commands. It returns only with an
// error.
func runSecond(argv []string) error {
	self, err := os.Executable() // by /proc/self/exe, without symbolic links
	if err != nil {
		return fmt.Errorf("cannot find the program %s: %w; is /proc mounted?", commands.Program, err)
	}
	places := commands.Places(self)
	for _, path := range places {
		if err := syscall.Exec(path, argv, os.Environ()); err != syscall.ENOENT {
			return fmt.Errorf("cannot run %s: %w", path, err)
		}
	}
	return fmt.Errorf("the program %s of this command is missing; install it as %s (by make install, or by "+
		"go install github.com/fuse-overlay/fuse-overlay/cmd/...@latest)", commands.Program, strings.Join(places, " or "))
}
