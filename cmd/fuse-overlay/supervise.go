package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/fuse-overlay/fuse-overlay/fs"
	"github.com/fuse-overlay/fuse-overlay/fs/conn"
	"github.com/fuse-overlay/fuse-overlay/fs/journal"
	"github.com/fuse-overlay/fuse-overlay/internal/control"
	"github.com/fuse-overlay/fuse-overlay/internal/host"
	"github.com/fuse-overlay/fuse-overlay/internal/mountargs"
	"github.com/fuse-overlay/fuse-overlay/internal/version"
)

// With option supervise a second process, the supervisor, watches the daemon. When the daemon dies,
// the supervisor starts the program again, which takes over the mount (docs/design/supervise.md).

// supervised is what the daemon of such a mount has besides the mount. A nil supervised is that of
// a mount without the option.
type supervised struct {
	memory  *host.SharedMemory
	journal *journal.Journal
	program *host.Program
	token   uint32
	log     *zap.Logger
}

// errNoResend is the reason to refuse the option on this kernel.
var errNoResend = errors.New("option supervise: this kernel does not send unanswered requests again " +
	"(FUSE_NOTIFY_RESEND, Linux 6.9)")

// checkSupervise returns the option that excludes supervise. What it stands for would not survive
// the daemon.
func (r *request) checkSupervise() error {
	o := &r.overlay
	if !r.supervise {
		return nil
	}
	if !r.noSandbox { // which the process that takes over would inherit, and could not start
		return errors.New("option supervise needs sandbox=off: a confined daemon can start no other")
	}
	for _, f := range []struct {
		name string
		on   bool
	}{
		{"io=passthrough", o.Conn.IO == conn.IOPassthrough},
		{"timeout=0", o.LayersChange},
		{"index=on", o.Features.Index},
		{"metacopy=on", o.Features.MetaCopy},
		{"redirect_dir=on", o.Redirects == fs.RedirectsOn},
		{"strictatime", r.mount.Flags&syscall.MS_STRICTATIME != 0},
		{"ro", o.ReadOnly},
		{"-f", r.foreground},
	} {
		if f.on {
			return conflict("supervise", f.name)
		}
	}
	if !host.CanSupervise {
		return fmt.Errorf("option supervise is %w on this CPU", errUnsupported)
	}
	if _, external := conn.DeviceFD(r.mount.Point); external {
		return conflict("supervise", "a mount point "+r.mount.Point)
	}
	return nil
}

// prepareSupervise makes the journal of a mount with the option. Call it before the daemon leaves
// the mounts of its caller.
func (r *request) prepareSupervise(log *zap.Logger) (*supervised, error) {
	if !r.supervise {
		return nil, nil //nolint:nilnil // not requested, no error
	}
	program, err := host.OpenProgram()
	if err != nil {
		return nil, fmt.Errorf("option supervise: %w", err)
	}
	memory, err := host.NewSharedMemory(journal.Size)
	if err != nil {
		return nil, fmt.Errorf("option supervise: %w", err)
	}
	j := journal.New(memory.Bytes())
	r.overlay.Journal = j
	return &supervised{memory: memory, journal: j, program: program, token: j.Token(), log: log}, nil
}

// setup is what a daemon stores for the next one. A change of its meaning needs another
// journal.Version.
type setup struct {
	Mount   *fs.Inheritable
	Program struct {
		File, Dir int
		Name      string
	}
	Control *control.InheritedPlace // nil: there is no control socket
	Dir     string                  // the directory of the caller
	Log     logTarget
	Started time.Time
	Point   string
	Direct  bool
	// Limits that depend on the cgroup.
	CacheMemory, HeapLimit int64
}

// begin completes the journal and starts the supervisor. From then on the death of this process
// does not end the mount.
func (s *supervised) begin(m *fs.Mount, c *controlled) error {
	if s == nil {
		return nil
	}
	if !m.CanResend() {
		return errNoResend
	}
	inheritable, err := m.Inheritable()
	if err != nil {
		return err
	}
	state := setup{
		Mount: inheritable, Control: c.inheritable(), Dir: c.dir, Log: c.req.logTo, Started: c.started,
		Point: c.req.mount.Point, Direct: c.req.mount.Direct,
		CacheMemory: c.req.overlay.CacheMemory, HeapLimit: debug.SetMemoryLimit(-1),
	}
	state.Program.File, state.Program.Dir, state.Program.Name = s.program.Descriptors()
	kept := []int{s.memory.FD(), state.Program.File, state.Program.Dir}
	if state.Log.Known {
		kept = append(kept, state.Log.Descriptor)
	}
	if state.Control != nil {
		kept = append(kept, state.Control.Descriptor)
	}
	for _, fd := range kept {
		if fd < 0 {
			continue
		}
		if err := s.journal.Keep(fd); err != nil {
			return err
		}
	}
	text, err := json.Marshal(state)
	if err != nil {
		return err
	}
	if err := s.journal.SetSetup(text); err != nil {
		return err
	}
	if err := s.watch(); err != nil {
		return err
	}
	s.journal.Serve(s.token, time.Now())
	return nil
}

// watch starts the supervisor, and another one whenever that is killed.
func (s *supervised) watch() error {
	supervisor, err := s.start()
	if err != nil {
		return fmt.Errorf("option supervise: %w", err)
	}
	go func() {
		for {
			supervisor.Wait()
			s.log.Warn("the supervisor was killed: another one is started")
			for supervisor, err = s.start(); err != nil; supervisor, err = s.start() {
				time.Sleep(time.Second)
			}
		}
	}()
	return nil
}

func (s *supervised) start() (*host.Supervisor, error) {
	return host.StartSupervisor(os.Args, host.SupervisorConfig{
		Memory: s.memory, Ended: journal.EndedAt, Serving: journal.ServingAt, Token: s.token, NewProgram: journal.NewProgramAt, Kept: journal.KeptAt, Program: s.program,
	})
}

// end keeps the supervisor from taking over: the mount is gone, or about to be.
func (s *supervised) end() {
	if s != nil {
		s.journal.End()
	}
}

// upgrade makes the program that lies under the name of this one take over. Interrupted requests
// are done by that one: the kernel sends them again.
func (s *supervised) upgrade() {
	s.log.Info("the next process takes over the mount", zap.String("version", version.String()))
	s.journal.Upgrade()
	os.Exit(exitOK)
}

// resume serves the mount of a daemon that has died. The supervisor of that one has started this
// process, and tries again if resume returns before it has reported that it serves.
func resume(memory *host.SharedMemory, ready *host.ReadyPipe) (err error) {
	signals := catchSignals()
	j, err := journal.Load(memory.Bytes())
	if err != nil {
		return err
	}
	if err := j.Begin(time.Now()); err != nil {
		return err
	}
	var state setup
	if err := json.Unmarshal(j.Setup(), &state); err != nil {
		return fmt.Errorf("the journal's setup: %w", err)
	}
	req, err := requestAgain()
	if err != nil {
		return err
	}
	setProcessName(req.called)
	if err := prepareProcess(); err != nil {
		return err
	}
	log := inheritedLog(req, state.Log)
	defer func() {
		if err != nil { // the supervisor tries again
			log.Error("cannot take over the mount", zap.Error(err))
		}
	}()
	s := &supervised{
		memory: memory, journal: j, log: log, token: j.Token(),
		program: host.InheritProgram(state.Program.File, state.Program.Dir, state.Program.Name),
	}
	for _, fd := range j.Descriptors() {
		syscall.CloseOnExec(fd)
	}
	// Before the memory of this process grows, of which the supervisor is a copy.
	if err := s.watch(); err != nil {
		return err
	}
	req.mount.Point, req.mount.Direct = state.Point, state.Direct
	req.overlay.CacheMemory = state.CacheMemory
	debug.SetMemoryLimit(state.HeapLimit)
	req.overlay.Log, req.overlay.Journal = log, j
	overlay, mount, err := fs.Resume(req.overlay, req.mount, state.Mount)
	if err != nil {
		return err
	}
	c := &controlled{req: req, overlay: overlay, dir: state.Dir, log: log}
	c.inherit(state.Control)
	c.listen(mount.Place())
	c.started = state.Started
	c.serve()
	j.Serve(s.token, time.Now())
	if err := ready.Report(); err != nil {
		log.Warn("the supervisor that has started this process is gone", zap.Error(err))
	}
	a := &attached{mount: mount, counts: overlay.Counts, close: overlay.Close, log: log, control: c, supervised: s}
	a.serveControlled(signals)
	return nil
}

// requestAgain interprets the command line of the process before, which has done so without error.
func requestAgain() (*request, error) {
	called := mountargs.CalledBy(os.Args)
	req, err := parseRequest(called, os.Args)
	if err == nil {
		err = req.complete(os.Geteuid())
	}
	return req, err
}
