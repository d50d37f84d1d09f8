//go:build race

package main

import (
	"os"
	"path/filepath"
	"strings"
)

// neededPaths is where the race detector writes what it finds, which it opens when it has found something.
func neededPaths() []string {
	for _, option := range strings.Fields(os.Getenv("GORACE")) {
		if path, ok := strings.CutPrefix(option, "log_path="); ok && filepath.IsAbs(path) {
			return []string{filepath.Dir(path)}
		}
	}
	return nil
}
