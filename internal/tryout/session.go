package tryout

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/fuse-overlay/fuse-overlay/internal/host"
)

// Session is a copy of the system for one command.
type Session struct {
	Layers []Layer
	// OwnersInXattrs: this process cannot give objects to all owners, so the uppers keep owners in an
	// attribute (xattr_permissions=2).
	OwnersInXattrs bool

	dir   string
	alive *os.File // nil: the watcher has ended
	root  host.NewRoot
	stays bool
}

// Hidden commands by which this program is started again.
const (
	InsideCommand = "try-inside" // InsideCommand: [Inside] is called
	WatchCommand  = "try-watch"  // WatchCommand DIR: [Watch] is called, with descriptor 3
)

// Open mounts the overlays. program is the one that mounts. The uppers lie in a new directory in
// base, under a name that begins with a dot. If this process may mount, its mount namespace must be
// its own. The calling goroutine must be locked to its thread from now on. warn is called for a
// mount that gets no overlay and is read-only in the copy.
func Open(program, base string, warn func(error)) (s *Session, err error) {
	s = &Session{OwnersInXattrs: !host.IsHostRoot()}
	if host.MayMount() {
		if err := host.MakePrivate(); err != nil {
			return nil, err
		}
	}
	if s.root.Dir, err = os.Getwd(); err != nil {
		return nil, fmt.Errorf("cannot find the working directory: %w", err)
	}
	if s.dir, err = os.MkdirTemp(base, ".fuse-overlay-try-"); err != nil {
		return nil, err
	}
	if s.dir, err = filepath.EvalSymlinks(s.dir); err != nil {
		return nil, err
	}
	if s.alive, err = host.StartWatcher([]string{"fuse-overlay", WatchCommand, s.dir}); err != nil {
		return nil, errors.Join(err, os.Remove(s.dir))
	}
	if err := s.mount(program, warn); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Session) mount(program string, warn func(error)) error {
	points, overlay, err := plan()
	if err != nil {
		return err
	}
	tried := 0
	add := func(point string) (Layer, error) {
		l := Layer{Point: point}
		err := l.mount(program, filepath.Join(s.dir, strconv.Itoa(tried)), s.OwnersInXattrs)
		tried++
		if err == nil {
			s.Layers = append(s.Layers, l)
		}
		return l, err
	}
	root, err := add("/")
	if err != nil {
		return err
	}
	s.root.Root, s.root.Hidden = root.merged, s.dir
	for i, m := range points {
		if overlay[i] {
			if l, err := add(m.To); err == nil {
				m.From = l.merged
			} else if _, gone := os.Lstat(m.To); errors.Is(gone, os.ErrNotExist) {
				continue // unmounted meanwhile, with its directory
			} else {
				m.ReadOnly = true
				warn(fmt.Errorf("read-only for the command: %w", err))
			}
		}
		s.root.Mounts = append(s.root.Mounts, m)
	}
	return nil
}

// Run runs a command in the copy, and returns how it has ended.
func (s *Session) Run(command []string) (syscall.WaitStatus, error) {
	spec, specWriter, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	failure, failureWriter, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer failure.Close()
	signals := host.CatchSignals()
	defer signals.Stop()
	hadTerminal := host.HasTerminal(0)
	argv := append([]string{"fuse-overlay", InsideCommand, "--"}, command...)
	inner, err := host.StartInner(argv, spec, failureWriter)
	_, _ = spec.Close(), failureWriter.Close()
	if err != nil {
		return 0, fmt.Errorf("cannot make namespaces: %w; does the machine allow user namespaces?", err)
	}
	err = errors.Join(json.NewEncoder(specWriter).Encode(s.root), specWriter.Close())
	if err != nil {
		return 0, err
	}
	status, err := inner.Wait(signals)
	if hadTerminal {
		host.TakeTerminal(0)
	}
	if err != nil {
		return 0, err
	}
	text, err := io.ReadAll(failure)
	if err == nil && len(text) > 0 {
		var f failedStart
		if err = json.Unmarshal(text, &f); err == nil {
			err = &StartError{Code: f.Code, text: f.Text}
		}
	}
	if err != nil {
		return 0, err
	}
	return status, nil
}

// Complete unmounts the overlays, after which the uppers are complete.
func (s *Session) Complete() error { return unmount(s.Layers) }

// Keep moves the uppers to a new directory, each under the name of its mount.
func (s *Session) Keep(dir string) error { return keep(s.Layers, dir) }

// Stay has the uppers outlive this process, until [Session.Close]: while they are merged, nothing
// but them has all changes. Precondition: Run has returned.
func (s *Session) Stay() error {
	if s.alive == nil {
		s.stays = true
		return nil
	}
	_, err := s.alive.Write([]byte{1})
	err = errors.Join(err, s.alive.Close())
	s.alive, s.stays = nil, true
	return err
}

// Merged ends Stay: all uppers are merged, or as they were before.
func (s *Session) Merged() { s.stays = false }

// Close unmounts the overlays that are still mounted, and removes the uppers that are still there.
// After Stay without Merged it removes nothing.
func (s *Session) Close() error {
	if s.alive == nil {
		if s.stays {
			return nil
		}
		return remove(s.dir)
	}
	layers, err := layersIn(s.dir)
	if err == nil && len(layers) > 0 {
		err = unmount(layers)
	}
	if err == nil {
		err = remove(s.dir)
	}
	if err != nil {
		return errors.Join(err, s.alive.Close()) // the watcher tries again
	}
	_, err = s.alive.Write([]byte{1})
	return errors.Join(err, s.alive.Close())
}
