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

// holders are the command lines of processes that only hold a namespace: the engine's holder, and
// the processes with which a rootless podman holds its user namespace.
var holders = [][]string{{"cat"}, {"podman"}, {"buildah"}, {"catatonit", "-P"}}

// processes lists the folders of the processes in the /proc of the engine's PID namespace. The
// first process of the namespace is not among them.
func (e *Engine) processes() ([]string, error) {
	own := fmt.Sprintf("/proc/%d/root/proc", e.pid)
	all, err := filepath.Glob(own + "/[0-9]*")
	if err == nil && len(all) == 0 {
		err = errors.New("the engine has ended")
	}
	return slices.DeleteFunc(all, func(process string) bool { return process == own+"/1" }), err
}

// commandLine returns the arguments of the process with this folder in /proc; nil if it has ended.
func commandLine(process string) []string {
	text, err := os.ReadFile(filepath.Join(process, "cmdline"))
	if err != nil || len(text) == 0 {
		return nil
	}
	return strings.Split(string(bytes.TrimRight(text, "\x00")), "\x00")
}

// Processes lists the command lines of the processes in the engine's namespaces and its containers.
// Those that only hold a namespace are not among them.
func (e *Engine) Processes() ([]string, error) {
	all, err := e.processes()
	if err != nil {
		return nil, err
	}
	var running []string
	for _, process := range all {
		words := commandLine(process)
		if len(words) > 0 && !slices.ContainsFunc(holders, func(h []string) bool { return slices.Equal(h, words) }) {
			running = append(running, strings.Join(words, " "))
		}
	}
	return running, nil
}

// Mounts lists the mounts below the engine's storage in all of its mount namespaces, each as a line
// of /proc/PID/mountinfo. It leaves out the folder overlay, which podman mounts on itself.
func (e *Engine) Mounts() ([]string, error) {
	all, err := e.processes()
	if err != nil {
		return nil, err
	}
	var mounts []string
	for _, process := range append(all, fmt.Sprintf("/proc/%d", e.pid)) {
		text, err := os.ReadFile(filepath.Join(process, "mountinfo"))
		if err != nil {
			continue // the process has ended
		}
		for line := range strings.SplitSeq(strings.TrimSpace(string(text)), "\n") {
			point := strings.Fields(line + " 1 2 3 4 5")[4]
			inStorage := strings.HasPrefix(point, e.path(graphDir)+"/") && point != e.path(graphDir, "overlay")
			if inStorage && !slices.Contains(mounts, line) {
				mounts = append(mounts, line)
			}
		}
	}
	return mounts, nil
}

// noLayers are folders beside those of the layers: links, and where podman 5.8 removes layers.
var noLayers = []string{"l", "tempdirs"}

// Layers lists the folders of the layers in the storage. There is none after podman has removed all
// images and containers.
func (e *Engine) Layers() ([]string, error) {
	entries, err := os.ReadDir(e.path(graphDir, "overlay"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // podman has not used this storage yet
	}
	var layers []string
	for _, entry := range entries {
		if entry.IsDir() && !slices.Contains(noLayers, entry.Name()) {
			layers = append(layers, entry.Name())
		}
	}
	return layers, err
}

// Temporary lists the temporary files of the engine, and the files that mounts left in their work
// directories. It leaves out the folder intermediate-mountpoint-*, which podman 5 makes once and
// keeps.
func (e *Engine) Temporary() ([]string, error) {
	var files []string
	for _, pattern := range []string{
		e.path(tempDir, "*"),
		e.path(graphDir, "tmp", "*"),
		e.path(graphDir, "overlay", "*", "work", "*", "*"),
	} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			return nil, err
		}
		files = append(files, slices.DeleteFunc(found, func(file string) bool {
			return strings.HasPrefix(filepath.Base(file), "intermediate-mountpoint-")
		})...)
	}
	return files, nil
}
