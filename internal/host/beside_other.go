//go:build !amd64 && !arm64

package host

import (
	"os"

	"golang.org/x/sys/unix"
)

// StartBeside is not built for this CPU.
func StartBeside(string, []string, string, *os.File) (*Beside, error) { return nil, unix.ENOSYS }

// BesideConnection is not built for this CPU.
func BesideConnection() *os.File { return nil }
