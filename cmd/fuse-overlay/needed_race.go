//go:build race

package main

import (
	"os"
	"path/filepath"
	"strings"
)

// neededPaths returns the folder of the race detector's log, which it opens with its first report.
func neededPaths() []string {
	for _, option := range strings.Fields(os.Getenv("GORACE")) {
		if path, ok := strings.CutPrefix(option, "log_path="); ok && filepath.IsAbs(path) {
			return []string{filepath.Dir(path)}
		}
	}
	return nil
}
