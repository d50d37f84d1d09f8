//go:build !amd64 && !arm64

package sandbox

import "golang.org/x/sys/unix"

// assemble returns ENOTSUP: there is no list of calls for this architecture.
func assemble(Rights) ([]unix.SockFilter, error) { return nil, unix.ENOTSUP }

func setFilter([]unix.SockFilter) error { return unix.ENOTSUP }
