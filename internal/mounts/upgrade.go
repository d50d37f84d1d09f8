package mounts

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/host"
	"github.com/fuse-overlay/fuse-overlay/internal/mountargs"
)

// superviseOption is the option of mounts that another process can take over.
const superviseOption = "supervise"

// Reasons why the daemon of a mount cannot be replaced.
var (
	errNotSupervised = errors.New("it is not mounted with option supervise")
	errDaemonUnknown = errors.New("its daemon is not known to this process")
)

// upgradePause is how long Upgrade waits before it looks again.
const upgradePause = 5 * time.Millisecond

// Upgrade has the program that lies under the name of the daemon's program take over the mount at a
// path. It returns when another process serves the mount, which is one of the old program if the
// new one cannot.
func Upgrade(path string, timeout time.Duration) error {
	m, err := EntryAt(path)
	if err != nil {
		return err
	}
	d := newSources().daemonOf(m)
	switch {
	case d.PID == 0 || !d.Known || !d.certain:
		return fmt.Errorf("cannot upgrade %q: %w", path, errDaemonUnknown)
	case !d.isSupervised(): // the signal would end the mount
		return fmt.Errorf("cannot upgrade %q: %w", path, errNotSupervised)
	}
	p, err := host.OpenProcess(d.PID)
	if err != nil {
		return fmt.Errorf("cannot upgrade %q: process %d: %w", path, d.PID, err)
	}
	defer p.Close()
	if err := p.Signal(unix.SIGHUP); err != nil {
		return fmt.Errorf("cannot upgrade %q: process %d: %w", path, d.PID, err)
	}
	deadline := time.Now().Add(timeout)
	if ended, err := p.WaitEnd(timeout); err != nil || !ended {
		return fmt.Errorf("cannot upgrade %q: process %d goes on: %w", path, d.PID, cmp.Or(err, error(unix.ETIMEDOUT)))
	}
	for ; time.Now().Before(deadline); time.Sleep(upgradePause) {
		if now := newSources().daemonOf(m); now.PID == 0 || now.PID == d.PID {
			continue
		}
		_, err := host.MountFlags(path) // returns when the process answers
		return err
	}
	return fmt.Errorf("cannot upgrade %q: no other process serves it after %v", path, timeout)
}

// isSupervised reports whether the mount of the daemon has option supervise.
func (d *Daemon) isSupervised() bool {
	return slices.ContainsFunc(d.OptionLists, func(list string) bool {
		return slices.Contains(mountargs.Fields(list), superviseOption)
	})
}
