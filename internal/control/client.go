package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/host"
)

// Errors of clients.
var (
	// ErrNoSocket: the daemon has no control socket, or is dead.
	ErrNoSocket = errors.New("the daemon has no control socket")
	// ErrNotPermitted: the socket is another user's.
	ErrNotPermitted = errors.New("only the user who has mounted it, and root, may use the control socket")
)

// How long a client waits for a daemon, in all. A list of all mounts does not wait long for one.
const (
	infoTime  = 2 * time.Second
	statsTime = 10 * time.Second
)

// Info requests from the daemon of a mount what it has mounted. m is the mount's entry in a mount
// table. The request goes to the control socket, and none to the mount, which may hang. Errors are
// [ErrNoSocket], [ErrNotPermitted], or those of a daemon that does not answer as it should.
func Info(m host.MountEntry) (*Mount, error) {
	r, err := call(m, requestInfo, infoTime)
	if err == nil && r.Mount == nil {
		err = errMalformed
	}
	if err != nil {
		return nil, err
	}
	return r.Mount, nil
}

// ReadStats requests the numbers of the daemon of a mount. It has the errors of [Info].
func ReadStats(m host.MountEntry) (*Stats, error) {
	r, err := call(m, requestStats, statsTime)
	if err == nil && r.Stats == nil {
		err = errMalformed
	}
	if err != nil {
		return nil, err
	}
	return r.Stats, nil
}

// Errors of daemons.
var (
	errMalformed = errors.New("the daemon has sent a malformed reply")
	errSilent    = errors.New("the daemon does not answer on its control socket")
)

// call sends one request to the daemon of a mount, and waits no longer than limit.
func call(m host.MountEntry, request string, limit time.Duration) (*reply, error) {
	name, err := socketName(m.Dev)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	for _, d := range runtimeDirs(m) {
		r, err := callIn(ctx, d, name, request)
		switch {
		case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ECONNREFUSED):
			continue // a daemon that was killed leaves its socket
		case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
			return nil, fmt.Errorf("%w: %w", ErrNotPermitted, err)
		}
		return r, err
	}
	return nil, ErrNoSocket
}

// runtimeDirs returns where the socket of a mount may be: in a directory of this user, or in that
// of another user who has mounted it.
func runtimeDirs(m host.MountEntry) []host.RuntimeDir {
	dirs := host.RuntimeDirs()
	for option := range strings.SplitSeq(m.Options, ",") {
		id, ok := strings.CutPrefix(option, "user_id=")
		if !ok {
			continue
		}
		if user, err := strconv.ParseUint(id, 10, 32); err == nil && uint32(user) != host.User() {
			dirs = append(dirs, host.RuntimeDirOf(uint32(user)))
		}
	}
	return dirs
}

// RemoveLeft removes the socket of a mount that a killed daemon has left. While a mount is there,
// no other daemon can have its number, and with it its socket.
func RemoveLeft(m host.MountEntry) error {
	name, err := socketName(m.Dev)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), infoTime)
	defer cancel()
	for _, d := range runtimeDirs(m) {
		if err := removeLeft(ctx, d, name); err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	return nil
}

func removeLeft(ctx context.Context, d host.RuntimeDir, name string) error {
	parent, err := d.Open()
	if err != nil {
		return err
	}
	defer parent.Close()
	folder, err := parent.Enter(folderName, d.Owner)
	if err != nil {
		return err
	}
	defer folder.Close()
	c, err := folder.Dial(ctx, name)
	switch {
	case err == nil:
		return c.Close()
	case errors.Is(err, unix.ECONNREFUSED):
		return folder.Remove(name)
	}
	return err
}

// callIn sends one request to the socket of a name in a runtime directory.
func callIn(ctx context.Context, d host.RuntimeDir, name, request string) (*reply, error) {
	parent, err := d.Open()
	if err != nil {
		return nil, err
	}
	defer parent.Close()
	folder, err := parent.Enter(folderName, d.Owner)
	if err != nil {
		return nil, err
	}
	defer folder.Close()
	r, err := exchange(ctx, folder, name, d.Owner, request)
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		return nil, errSilent
	}
	return r, err
}

// exchange connects, sends a request and reads the reply. owner is the user of the daemon.
func exchange(ctx context.Context, folder *host.Folder, name string, owner uint32, request string) (*reply, error) {
	const retry = 20 * time.Millisecond
	c, err := folder.Dial(ctx, name)
	for errors.Is(err, unix.EAGAIN) && ctx.Err() == nil { // other clients wait already
		time.Sleep(retry)
		c, err = folder.Dial(ctx, name)
	}
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := c.SetDeadline(deadline); err != nil {
			return nil, err
		}
	}
	switch user, err := host.PeerUser(c); {
	case err != nil:
		return nil, err
	case user != owner:
		return nil, fmt.Errorf("user %d listens on the socket of user %d: %w", user, owner, unix.EPERM)
	}
	if _, err := io.WriteString(c, request+"\n"); err != nil {
		return nil, err
	}
	return readReply(c)
}

// readReply reads a reply, which is not trusted.
func readReply(from io.Reader) (*reply, error) {
	text, err := io.ReadAll(io.LimitReader(from, maxReply+1))
	switch {
	case err != nil:
		return nil, err
	case len(text) > maxReply:
		return nil, fmt.Errorf("the reply of the daemon has more than %d bytes", maxReply)
	}
	var r reply
	if err := json.Unmarshal(text, &r); err != nil {
		return nil, errMalformed
	}
	switch r.Error {
	case "":
	case errOtherUser.Error():
		return nil, ErrNotPermitted
	default:
		return nil, fmt.Errorf("the daemon refuses the request: %s", r.Error)
	}
	return &r, nil
}
