package podman

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// keepers are the command lines of the processes that keep namespaces: the holder's, and those by which a rootless podman
// keeps its user namespace.
var keepers = [][]string{{"cat"}, {"podman"}, {"buildah"}, {"catatonit", "-P"}}

// processes lists the folders in the engine's own /proc, that of its PID namespace, but for its first process's.
func (e *Engine) processes() ([]string, error) {
	own := fmt.Sprintf("/proc/%d/root/proc", e.pid)
	all, err := filepath.Glob(own + "/[0-9]*")
	if err == nil && len(all) == 0 {
		err = errors.New("the engine has ended")
	}
	return slices.DeleteFunc(all, func(process string) bool { return process == own+"/1" }), err
}

// commandLine is that of a process; empty when it has ended.
func commandLine(process string) []string {
	text, err := os.ReadFile(filepath.Join(process, "cmdline"))
	if err != nil || len(text) == 0 {
		return nil
	}
	return strings.Split(string(bytes.TrimRight(text, "\x00")), "\x00")
}

// Processes lists the command lines of all that runs in the engine's namespaces, also in containers, but what keeps them.
func (e *Engine) Processes() ([]string, error) {
	all, err := e.processes()
	if err != nil {
		return nil, err
	}
	var running []string
	for _, process := range all {
		words := commandLine(process)
		if len(words) > 0 && !slices.ContainsFunc(keepers, func(k []string) bool { return slices.Equal(k, words) }) {
			running = append(running, strings.Join(words, " "))
		}
	}
	return running, nil
}

// Mounts lists the mounts below the engine's storage in any of its mount namespaces, a line of mountinfo each. The storage
// itself, which podman mounts on itself, is not among them.
func (e *Engine) Mounts() ([]string, error) {
	all, err := e.processes()
	if err != nil {
		return nil, err
	}
	var mounts []string
	for _, process := range append(all, fmt.Sprintf("/proc/%d", e.pid)) {
		text, err := os.ReadFile(filepath.Join(process, "mountinfo"))
		if err != nil {
			continue // it has ended
		}
		for line := range strings.SplitSeq(strings.TrimSpace(string(text)), "\n") {
			point := strings.Fields(line + " 1 2 3 4 5")[4]
			if strings.HasPrefix(point, e.path(graphDir)+"/") && point != e.path(graphDir, "overlay") && !slices.Contains(mounts, line) {
				mounts = append(mounts, line)
			}
		}
	}
	return mounts, nil
}

// Layers lists the folders of layers in the storage: none when all images and containers have been removed.
func (e *Engine) Layers() ([]string, error) {
	entries, err := os.ReadDir(e.path(graphDir, "overlay"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // it was never used
	}
	var layers []string
	for _, entry := range entries {
		if entry.IsDir() && entry.Name() != "l" {
			layers = append(layers, entry.Name())
		}
	}
	return layers, err
}

// Temporary lists the temporary files of the engine, and what mounts have left in their work directories.
func (e *Engine) Temporary() ([]string, error) {
	var files []string
	for _, pattern := range []string{e.path(tempDir, "*"), e.path(graphDir, "tmp", "*"), e.path(graphDir, "overlay", "*", "work", "*", "*")} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			return nil, err
		}
		files = append(files, found...)
	}
	return files, nil
}
