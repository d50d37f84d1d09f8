//go:build amd64 || arm64

package host

import "golang.org/x/sys/unix"

// cloneFlags are those of the runtime (os_linux.go).
const cloneFlags = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_SYSVSEM |
	unix.CLONE_THREAD

// startSleeper starts a thread that waits while *word is value, and ends. It returns the errno of
// clone(2), 0 if the thread exists. The thread uses no stack and gets no signals: the runtime does
// not know it.
func startSleeper(word *uint32, value uint32) unix.Errno {
	if r := cloneSleeper(cloneFlags, word, uint64(value)); r < 0 {
		return unix.Errno(-r)
	}
	return 0
}

// cloneSleeper is startSleeper. It returns the thread's number, or the negative errno.
//
//go:noescape
func cloneSleeper(flags uint64, word *uint32, value uint64) int64
