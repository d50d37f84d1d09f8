// Package host is the gate to what lies around the layers: this process, its children and
// namespaces, the FUSE device, the mount table, the CPUs, and the limits and identities that the
// kernel reports in /proc and /sys.
//
// Nothing here reaches a layer, so no call passes the fault seam of internal/sys, and paths are
// those of the host. Errors of system calls are unix.Errno. The package does not open layers and
// does not decide anything.
package host

import (
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// retry repeats a call that a signal interrupted.
func retry(f func() error) error {
	for {
		if err := f(); err != unix.EINTR {
			return err
		}
	}
}

// ReadFile returns the text of a file in /proc or /sys: ENOENT if it cannot be opened, EIO if it
// cannot be read.
func ReadFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", unix.ENOENT
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(f)
	if err != nil {
		return "", unix.EIO
	}
	return string(text), nil
}
