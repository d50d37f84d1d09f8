// Package control is the control socket of a daemon: where it is, what the daemon replies, and how
// a client sends requests.
//
// The socket is a unix stream socket in the folder fuse-overlay of the runtime directory of the
// user who mounts ([host.RuntimeDirs]). Its name is the minor device number of the mount, so a
// client finds it from a mount table. The kernel gives a number to one mount at a time. Socket and
// folder are for this user alone.
//
// A client sends one line, "info" or "stats", and gets one line of JSON: an object with the member
// error, or with the member mount or stats ([Mount], [Stats]). Then the daemon closes the
// connection. Clients ignore members that they do not know.
//
// Clients are not trusted, whatever user they have. Requests and replies have a maximum size and a
// time limit, and the daemon serves a few clients at a time.
package control

import (
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// folderName is the name of the folder in the runtime directory.
const folderName = "fuse-overlay"

// The requests.
const (
	requestInfo  = "info"
	requestStats = "stats"
)

const (
	// maxRequest is the largest request in bytes, without the end of its line.
	maxRequest = 32
	// maxReply is the largest reply in bytes. The layers of a mount take most of it.
	maxReply = 4 << 20
)

// socketName returns the name of the socket of a mount. dev is the device number of the mount.
func socketName(dev uint64) (string, error) {
	if unix.Major(dev) != 0 || unix.Minor(dev) == 0 {
		return "", fmt.Errorf("the device number %d:%d is none of a FUSE mount", unix.Major(dev), unix.Minor(dev))
	}
	return strconv.FormatUint(uint64(unix.Minor(dev)), 10), nil
}
