package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// base is the candidate to which every ratio refers.
const base = "kernel"

// native is the candidate without an overlay.
const native = "native"

// A kind of candidate decides how it is mounted, and with which mount options of a workload.
type kind int

const (
	// plain is no overlay at all.
	plain kind = iota
	// inKernel is the kernel's overlayfs.
	inKernel
	// ours is the program of this repository.
	ours
	// other is another program.
	other
)

// A candidate is one way to make a merged tree.
type candidate struct {
	name    string
	version string
	kind    kind
	// command is the program that mounts, with its first arguments.
	command []string
	// options are mount options of the candidate in all workloads.
	options string
}

// findCandidates lists the candidates of this machine, in the order of the table. It tries each
// mount once. A candidate that fails is left out, and reported.
func (r *runner) findCandidates(ctx context.Context, opts *options) error {
	all, err := listCandidates(opts)
	if err != nil {
		return err
	}
	for _, c := range all {
		if !opts.candidates.MatchString(c.name) {
			continue
		}
		if err := r.try(ctx, c, ""); ctx.Err() != nil {
			return ctx.Err()
		} else if err != nil && c.name == "cached" {
			return err
		} else if err != nil {
			r.leaveOut("", c.name, err)
			continue
		}
		r.candidates = append(r.candidates, c)
	}
	return nil
}

func listCandidates(opts *options) ([]candidate, error) {
	all := []candidate{
		{name: native, version: "a plain directory", kind: plain},
		{name: base, version: "overlayfs of Linux " + kernelRelease(), kind: inKernel, command: []string{"mount", "-t", "overlay", "overlay"}},
	}
	variants := append([]extra{{"cached", ""}, {"passthrough", "io=passthrough"}}, opts.variants...)
	if opts.program == "" {
		variants = nil
	}
	for _, v := range variants {
		path, err := filepath.Abs(opts.program)
		if err == nil {
			_, err = os.Stat(path)
		}
		if err != nil && opts.candidates.MatchString(v.name) {
			return nil, fmt.Errorf("%w: build it first (make build), or leave it out (-program=)", err)
		}
		version := programVersion([]string{path})
		if v.value != "" {
			version += ", " + v.value
		}
		all = append(all, candidate{name: v.name, version: version, kind: ours, command: []string{path}, options: v.value})
	}
	peers := opts.peers
	if path, err := exec.LookPath("fuse-overlayfs"); err == nil {
		peers = append([]extra{{"fuse-overlayfs", path}}, peers...)
	}
	for _, p := range peers {
		words := strings.Fields(p.value)
		// An absolute path, because the program is started in another directory.
		if strings.Contains(words[0], "/") {
			path, err := filepath.Abs(words[0])
			if err != nil {
				return nil, err
			}
			words[0] = path
		}
		all = append(all, candidate{name: p.name, version: programVersion(words), kind: other, command: words})
	}
	for i, c := range all { // a table has one column for a name
		if slices.ContainsFunc(all[:i], func(other candidate) bool { return other.name == c.name }) {
			return nil, fmt.Errorf("two candidates are called %s", c.name)
		}
	}
	return all, nil
}

// try mounts a candidate once, with further options, on two small layers. It does not notice a
// program that accepts the options and does not mount.
func (r *runner) try(ctx context.Context, c candidate, options string) (err error) {
	if c.kind == plain {
		return nil
	}
	l, err := r.layouts.empty()
	if err != nil {
		return err
	}
	s, err := newSession(l, c, options)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.detach()) }()
	if err := s.attach(ctx); err != nil {
		return err
	}
	_, err = os.Lstat(s.root)
	return err
}
