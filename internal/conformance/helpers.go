package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// helperDir is the folder in which mount(8) looks for helpers.
const helperDir = "/usr/sbin"

// helpers makes mount(8) call the program for file systems of a type, with the options of the mode,
// and mount.fuse3 for a remount of the type fuse.KIND. In a mode of the kernel it does nothing.
func (s *session) helpers(kind string) error {
	if s.mode().kernel {
		return nil
	}
	opts := ""
	if o := s.mode().opts; len(o) > 0 {
		opts = " -o " + strings.Join(o, ",")
	}
	scripts := map[string]string{}
	for _, name := range []string{"mount." + kind, kind} {
		scripts[name] = fmt.Sprintf("#!/bin/bash\nexec -a %s %s \"$@\"%s\n", name, s.Program, opts)
	}
	return s.addCommands(scripts)
}

// addCommands makes scripts commands of the session, by their names in the folder of the system's
// commands.
func (s *session) addCommands(scripts map[string]string) error {
	dir := filepath.Join(s.Dir, "commands")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name, script := range scripts {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
			return err
		}
	}
	// Without an upper, a read-only merge of the two folders.
	opts := "lowerdir=" + dir + ":" + helperDir
	if err := syscall.Mount("overlay", helperDir, "overlay", 0, opts); err != nil {
		return fmt.Errorf("adding commands to %s: %w", helperDir, err)
	}
	return nil
}
