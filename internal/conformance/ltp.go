package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// How many operations fsx makes in each case, and each of the four processes of fsstress.
const (
	fsxOperations      = 50_000
	fsstressOperations = 5_000
)

// fsxCases are the flags of fsx. It leaves out by itself what the file system does not have.
var fsxCases = []struct {
	name  string
	flags []string
}{
	{name: "plain"},
	{name: "without-mappings", flags: []string{"-R", "-W"}},
	{name: "reopened", flags: []string{"-c", "50"}},
	{name: "flushed", flags: []string{"-f"}},
	{name: "direct", flags: []string{"-Z", "-R", "-W", "-r", "4096", "-w", "4096", "-t", "4096"}},
	{name: "asynchronous-direct", flags: []string{"-A", "-Z", "-R", "-W", "-r", "4096", "-w", "4096", "-t", "4096"}},
	{name: "past-the-end", flags: []string{"-e", "1"}},
}

// runFsx runs fsx of xfstests on a file of its own for each case.
func runFsx(s *session) ([]result, error) {
	o, err := s.mounted("overlay")
	if err != nil {
		return nil, err
	}
	var cases []commandCase
	for i, c := range fsxCases {
		if !s.chosen(c.name) {
			continue
		}
		argv := []string{filepath.Join(s.Source, "ltp/fsx"), "-q", "-P", s.Dir, "-N", strconv.Itoa(fsxOperations),
			"-S", strconv.Itoa(i + 1)}
		argv = append(append(argv, c.flags...), c.name)
		cases = append(cases, commandCase{name: c.name, cmd: s.command(o.Dir, argv...)})
	}
	return commandCases(cases), o.unmount()
}

// runFsstress runs fsstress of xfstests, and compares the tree with that of a new mount of the same
// layers.
func runFsstress(s *session) ([]result, error) {
	var results []result
	for seed := 1; seed <= 3; seed++ {
		name := fmt.Sprintf("seed-%d", seed)
		if !s.chosen(name) {
			continue
		}
		o, err := s.mounted(name)
		if err != nil {
			return nil, err
		}
		cmd := s.command(o.Dir, filepath.Join(s.Source, "ltp/fsstress"), "-d", ".", "-p", "4",
			"-n", strconv.Itoa(fsstressOperations), "-s", strconv.Itoa(seed))
		results = append(results, commandCases([]commandCase{{name: name, cmd: cmd}})...)
		r := result{Case: name + "-remounted", Status: passed}
		if difference, err := o.remountDifference(); err != nil {
			return nil, err
		} else if difference != "" {
			r.Status, r.Detail = failed, difference
		}
		results = append(results, r)
		if err := o.unmount(); err != nil {
			return nil, err
		}
	}
	return results, nil
}

// remountDifference mounts the layers again, and returns the first line in which the listings of
// the trees differ. They have name, type, mode, owner, size of files, target and checksum.
func (o *overlay) remountDifference() (string, error) {
	before, err := o.listing()
	if err != nil {
		return "", err
	}
	if err := o.unmount(); err != nil {
		return "", err
	}
	if err := o.mount(); err != nil {
		return "", err
	}
	after, err := o.listing()
	if err != nil || bytes.Equal(before, after) {
		return "", err
	}
	old, now := bytes.Split(before, []byte("\n")), bytes.Split(after, []byte("\n"))
	for i := range min(len(old), len(now)) {
		if !bytes.Equal(old[i], now[i]) {
			return fmt.Sprintf("%s is %s after the remount", old[i], now[i]), nil
		}
	}
	return fmt.Sprintf("%d lines are %d after the remount", len(old), len(now)), nil
}

func (o *overlay) listing() ([]byte, error) {
	const script = `{
		find . -type f -printf '%p %y %m %U %G %s\n' -o -printf '%p %y %m %U %G %l\n'
		find . -type f -print0 | xargs -0 -r sha256sum
	} | LC_ALL=C sort`
	cmd := o.s.command(o.Dir, "bash", "-o", "pipefail", "-c", script)
	cmd.Stdout, cmd.Stderr = nil, os.Stderr
	return cmd.Output()
}
