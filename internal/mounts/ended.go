package mounts

import (
	"context"

	"github.com/fuse-overlay/fuse-overlay/internal/host"
)

// HasEnded reports whether the daemon of a mount has ended. The mount gets a request only if no
// daemon is found and mayRequest allows it; false: the daemon runs, or that is not known.
func HasEnded(m host.MountEntry) bool {
	if !mayRequest(m) || newSources().daemonOf(m).PID != 0 {
		return false
	}
	limit, end := context.WithTimeout(context.Background(), answerLimit)
	defer end()
	return wait(limit, lookAt(m, true)).state == Dead
}
