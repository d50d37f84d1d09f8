//go:build !amd64 && !arm64

package sys

import "golang.org/x/sys/unix"

func fstatat(fd int, name string, st *Stat, flags int) error {
	return unix.Fstatat(fd, name, st, flags)
}
