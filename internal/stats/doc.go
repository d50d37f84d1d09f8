// Package stats makes of a daemon's numbers what users and monitoring read: rates, percentiles, and
// the page of Prometheus.
package stats

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/fuse-overlay/fuse-overlay/internal/control"
	"github.com/fuse-overlay/fuse-overlay/internal/host"
	"github.com/fuse-overlay/fuse-overlay/internal/mounts"
)

const (
	// tries is how often Read looks for the socket of a mount, and tryAgain how long it waits between.
	// The daemon makes the socket after the program that mounts has returned.
	tries    = 4
	tryAgain = 50 * time.Millisecond
)

// Errors after which a mount will have no numbers again.
var (
	ErrUnmounted = errors.New("it has been unmounted")
	ErrEnded     = errors.New("its daemon has ended")
)

// Read returns the numbers of the daemon of a mount. Its errors have the reason why there are none.
func Read(m host.MountEntry) (*control.Stats, error) {
	s, err := control.ReadStats(m)
	for range tries - 1 {
		if !errors.Is(err, control.ErrNoSocket) {
			break
		}
		time.Sleep(tryAgain)
		s, err = control.ReadStats(m)
	}
	switch {
	case err == nil:
		return s, nil
	case !errors.Is(err, control.ErrNoSocket):
		return nil, fmt.Errorf("mount %q: %w", m.Point, err)
	case !isMounted(m):
		return nil, fmt.Errorf("mount %q: %w", m.Point, ErrUnmounted)
	case mounts.HasEnded(m):
		return nil, fmt.Errorf("mount %q: %w; fuse-overlay umount removes the mount", m.Point, ErrEnded)
	}
	return nil, fmt.Errorf("mount %q: %w: it is of an older version, or was mounted with control=off, or without a runtime directory",
		m.Point, err)
}

// isMounted reports whether the mount table still has a mount.
func isMounted(m host.MountEntry) bool {
	table, err := host.MountTable()
	return err != nil || slices.ContainsFunc(table, func(now host.MountEntry) bool { return now.ID == m.ID && now.Dev == m.Dev })
}
