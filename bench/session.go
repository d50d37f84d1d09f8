package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A session is one mount of one candidate for one workload in one round.
type session struct {
	layout    *layout
	candidate candidate
	// options are the mount options of the workload.
	options string
	// writes: the workload changes the tree.
	writes bool
	// dir is for upper, work, mount point and log.
	dir string
	// root is where the merged tree is.
	root string
	// mounted: root must be unmounted.
	mounted bool
	// diff is the topmost lower of a mount without an upper. Empty: there is an upper.
	diff string
}

// below returns a session that mounts the lower layers alone, as a container engine does to read
// them: below an empty layer, whose folder lies beside the mount point.
func (s *session) below() (*session, error) {
	dir := filepath.Join(s.dir, "below")
	b := &session{layout: s.layout, candidate: s.candidate, dir: dir, root: filepath.Join(dir, "merged"), diff: filepath.Join(dir, "diff")}
	for _, path := range []string{b.root, b.diff} {
		if err := os.MkdirAll(path, 0o755); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func newSession(l *layout, c candidate, options string) (*session, error) {
	dir, err := os.MkdirTemp(l.home, "session-")
	if err != nil {
		return nil, err
	}
	s := &session{layout: l, candidate: c, options: options, dir: dir, root: filepath.Join(dir, "merged")}
	if c.kind == plain {
		return s, nil
	}
	for _, name := range []string{"upper", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			return nil, errors.Join(err, os.RemoveAll(dir))
		}
	}
	return s, nil
}

// attach makes the merged tree.
func (s *session) attach(ctx context.Context) error {
	if s.candidate.kind == plain {
		return s.attachPlain(ctx)
	}
	options := s.layerOptions()
	for _, more := range []string{s.candidate.options, s.options} {
		if more != "" {
			options = append(options, more)
		}
	}
	if s.candidate.kind == inKernel && inUserNamespace() {
		options = append(options, "userxattr")
	}
	// After an interrupt here it would not be known whether the mount exists.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	words := slices.Concat(s.candidate.command, []string{"-o", strings.Join(options, ","), s.root})
	if err := run(ctx, s.layout.dir, words[0], words[1:]...); err != nil {
		return err
	}
	s.mounted = true
	return nil
}

// layerOptions returns the mount options that name the layers. The paths of lowers are relative to
// their directory, because 128 absolute paths do not fit into one mount(2).
func (s *session) layerOptions() []string {
	lowers := strings.Join(s.layout.layers, ":")
	if s.diff != "" {
		return []string{"lowerdir=" + s.diff + ":" + lowers}
	}
	return []string{"lowerdir=" + lowers, "upperdir=" + filepath.Join(s.dir, "upper"), "workdir=" + filepath.Join(s.dir, "work")}
}

// attachPlain uses no layers. The workload reads the merged copy, or changes a copy of its own.
func (s *session) attachPlain(ctx context.Context) error {
	if !s.writes {
		s.root = s.layout.merged
		return nil
	}
	return run(ctx, "", "cp", "-a", s.layout.merged, s.root)
}

// unmount unmounts the merged tree, even while it is in use.
func (s *session) unmount() error {
	if !s.mounted {
		return nil
	}
	// Not the caller's context, because it has to be unmounted after an interrupt too.
	ctx := context.Background()
	if err := run(ctx, "", "umount", s.root); err != nil {
		if lazy := run(ctx, "", "umount", "-l", s.root); lazy != nil {
			return errors.Join(err, lazy)
		}
	}
	s.mounted = false
	return nil
}

// detach unmounts, waits for the end of the daemon, which must not count in the next session, and
// removes what the session has made.
func (s *session) detach() error {
	pids := s.daemons()
	if err := s.unmount(); err != nil {
		return fmt.Errorf("%s is left mounted: %w", s.root, err)
	}
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		pids = slices.DeleteFunc(pids, func(pid int) bool { return !serves(pid, s.root) })
		if len(pids) == 0 {
			break
		}
	}
	return os.RemoveAll(s.dir)
}

// daemons returns the processes that serve the mount: those with its mount point on their command
// line.
func (s *session) daemons() []int {
	if !s.mounted || s.candidate.kind == inKernel {
		return nil
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var pids []int
	for _, entry := range entries {
		if pid, err := strconv.Atoi(entry.Name()); err == nil && serves(pid, s.root) {
			pids = append(pids, pid)
		}
	}
	return pids
}

func serves(pid int, root string) bool {
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return err == nil && slices.ContainsFunc(bytes.Split(line, []byte{0}), func(word []byte) bool {
		return string(word) == root
	})
}
