package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// base is the candidate that every ratio refers to.
const base = "kernel"

// A candidate is one way to have a merged tree.
type candidate struct {
	name    string
	version string
	// attach makes the merged tree of a session; the session's detach takes it away.
	attach func(ctx context.Context, s *session) error
}

// A session is one attachment of one candidate: fresh, used by one workload in one round, thrown away.
type session struct {
	layout *layout
	// writes says whether the workload changes the tree.
	writes bool
	// dir is for upper, work and mount point.
	dir string
	// root is where the merged tree is; set by attach.
	root string
	// mounted says whether root must be unmounted.
	mounted bool
}

// findCandidates lists what there is to compare on this machine, in the order of the table.
func findCandidates(opts *options) ([]candidate, error) {
	all := []candidate{
		{name: "native", version: "a plain directory", attach: attachNative},
		{name: base, version: "overlayfs of Linux " + kernelRelease(), attach: attachKernel},
	}
	if opts.program != "" {
		path, err := filepath.Abs(opts.program)
		if err == nil {
			_, err = os.Stat(path)
		}
		if err != nil && opts.candidates.MatchString("cached") {
			return nil, fmt.Errorf("%w: build it first (make build), or leave it out (-program=)", err)
		}
		all = append(all, command("cached", path))
	}
	if path, err := exec.LookPath("fuse-overlayfs"); err == nil {
		all = append(all, command("fuse-overlayfs", path))
	}
	for _, p := range opts.peers {
		all = append(all, command(p.name, p.command...))
	}
	var selected []candidate
	for _, c := range all {
		if opts.candidates.MatchString(c.name) {
			selected = append(selected, c)
		}
	}
	return selected, nil
}

// attachNative has no layers: it reads a merged copy, and changes one of its own.
func attachNative(ctx context.Context, s *session) error {
	if !s.writes {
		s.root = s.layout.merged
		return nil
	}
	s.root = filepath.Join(s.dir, "merged")
	return run(ctx, "", "cp", "-a", s.layout.merged, s.root)
}

func attachKernel(ctx context.Context, s *session) error {
	options, err := s.overlayOptions()
	if err != nil {
		return err
	}
	if inUserNamespace() {
		options += ",userxattr"
	}
	if err := run(ctx, "", "mount", "-t", "overlay", "overlay", "-o", options, s.root); err != nil {
		return err
	}
	s.mounted = true
	return nil
}

// command is a candidate that mounts by a program with fuse-overlayfs's command line.
func command(name string, words ...string) candidate {
	return candidate{name: name, version: programVersion(words), attach: func(ctx context.Context, s *session) error {
		options, err := s.overlayOptions()
		if err != nil {
			return err
		}
		if err := run(ctx, "", words[0], append(words[1:len(words):len(words)], "-o", options, s.root)...); err != nil {
			return err
		}
		s.mounted = true
		return nil
	}}
}

// overlayOptions makes upper, work and mount point, and names them.
func (s *session) overlayOptions() (string, error) {
	upper, work := filepath.Join(s.dir, "upper"), filepath.Join(s.dir, "work")
	s.root = filepath.Join(s.dir, "merged")
	for _, dir := range []string{upper, work, s.root} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", strings.Join(s.layout.layers, ":"), upper, work), nil
}

// detach unmounts and removes what the session made.
func (s *session) detach() error {
	if s.mounted {
		// Not the caller's context: what is mounted goes away, whoever is interrupted.
		ctx := context.Background()
		if err := run(ctx, "", "umount", s.root); err != nil {
			if lazy := run(ctx, "", "umount", "-l", s.root); lazy != nil {
				return errors.Join(err, lazy)
			}
		}
		s.mounted = false
	}
	return os.RemoveAll(s.dir)
}

// run executes a program and puts what it says into the error.
func run(ctx context.Context, dir, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	var said strings.Builder
	cmd.Stderr = &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(said.String()))
	}
	return nil
}
