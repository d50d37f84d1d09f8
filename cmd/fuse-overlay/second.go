package main

import (
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/fuse-overlay/fuse-overlay/internal/commands"
)

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
