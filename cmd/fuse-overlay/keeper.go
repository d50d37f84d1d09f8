package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/fuse-overlay/fuse-overlay/fs/conn"
	"github.com/fuse-overlay/fuse-overlay/internal/host"
)

// A daemon that has confined itself can neither unmount nor enter a mount namespace, nor see which
// rights its clients have. A second process, the keeper, does that for it. It has all rights that
// the daemon had, and takes three requests, none of which names a path. It ends with the daemon.

// keeperVariable is in the environment of the keeper alone: the conn.Unmounting of its mount.
const keeperVariable = "_FUSE_OVERLAY_KEEPER"

// keeperName is the name of keepers that ps shows.
const keeperName = "overlay-keeper"

// Requests to a keeper, a line each.
const (
	keeperUnmount = "unmount" // reply: keeperOK, or an error
	keeperInSight = "sight"   // reply: keeperYes, keeperNo or an error
	keeperProtect = "protect" // and the number of a thread; reply: keeperYes or keeperNo
)

// Replies of a keeper. Every other one is the text of an error.
const (
	keeperOK  = "ok"
	keeperYes = "yes"
	keeperNo  = "no"
)

// runKeeper runs a process that is a keeper and nothing else. It returns false in all others.
func runKeeper() bool {
	text := os.Getenv(keeperVariable)
	if text == "" {
		return false
	}
	os.Unsetenv(keeperVariable)
	setProcessName(keeperName)
	// The daemon decides what a signal to both means. Its end ends the keeper.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM,
		syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGPIPE)
	if host.RefuseTracing() != nil { // the daemon may be of the same user
		return true
	}
	var mount conn.Unmounting
	if json.Unmarshal([]byte(text), &mount) != nil {
		return true
	}
	connection := host.BesideConnection()
	for lines := bufio.NewScanner(connection); lines.Scan(); {
		if _, err := connection.WriteString(keeperReply(mount, lines.Text()) + "\n"); err != nil {
			break
		}
	}
	return true
}

// keeperReply does what a request demands.
func keeperReply(mount conn.Unmounting, request string) string {
	yesOrNo := map[bool]string{true: keeperYes, false: keeperNo}
	name, argument, _ := strings.Cut(request, " ")
	var err error
	switch name {
	case keeperUnmount:
		if err = mount.Unmount(); err == nil {
			return keeperOK
		}
	case keeperInSight:
		var seen bool
		if seen, err = mount.Place.InSight(); err == nil {
			return yesOrNo[seen]
		}
	case keeperProtect:
		thread, err := strconv.ParseUint(argument, 10, 32)
		return yesOrNo[err == nil && host.MayProtect(uint32(thread))]
	default:
		err = fmt.Errorf("unknown request %q", name)
	}
	return "error: " + strings.ReplaceAll(err.Error(), "\n", "; ")
}

// keeper is the daemon's side.
type keeper struct {
	process *host.Beside
	log     *zap.Logger
	turn    chan struct{} // holds a value while a request waits for its reply
	replies chan string   // closed when the process has ended
}

// startKeeper starts the keeper of a mount, in a mount namespace that the daemon has left. null is
// /dev/null. Until the first request it is no more than a copy of this process that waits.
func startKeeper(called string, mount conn.Unmounting, null *os.File, log *zap.Logger) (*keeper, error) {
	text, err := json.Marshal(mount)
	if err != nil {
		return nil, err
	}
	argv := []string{called, "keeper-of", strconv.Itoa(os.Getpid())}
	process, err := host.StartBeside(keeperName, argv, keeperVariable+"="+string(text), null)
	if err != nil {
		return nil, fmt.Errorf("cannot start the process that unmounts: %w", err)
	}
	k := &keeper{process: process, log: log, turn: make(chan struct{}, 1), replies: make(chan string, 1)}
	go k.read()
	return k, nil
}

// read passes replies on, and notices the end of the process.
func (k *keeper) read() {
	defer close(k.replies)
	lines := bufio.NewScanner(k.process.Connection)
	for lines.Scan() {
		k.replies <- lines.Text()
	}
	if errors.Is(lines.Err(), os.ErrClosed) { // by close
		return
	}
	how, err := k.process.Reap()
	k.log.Error("the process that unmounts has ended: this daemon cannot unmount after a signal; "+
		"umount and fusermount3 -u still can", zap.String("its end", how), zap.Error(err))
}

// endWait is how long the end of a keeper may take. One that unmounts may hang with the mount.
const endWait = 200 * time.Millisecond

// close ends the process, so that none is left when the daemon ends.
func (k *keeper) close() {
	_ = k.process.Connection.Close()
	reaped := make(chan struct{})
	go func() {
		_, _ = k.process.Reap() // this process ends too
		close(reaped)
	}()
	select {
	case <-reaped:
	case <-time.After(endWait):
	}
}

// errNoKeeper is the error of requests after the end of the process.
var errNoKeeper = errors.New("the process that unmounts for this daemon has ended")

// protectWait is how long a request for [keeper.mayProtect] waits for others. An unmount may last
// long.
const protectWait = time.Second

// request sends a request and returns the reply. It waits for its turn, but not longer than limit.
func (k *keeper) request(text string, limit <-chan time.Time) (string, error) {
	select {
	case k.turn <- struct{}{}:
	case <-limit:
		return "", os.ErrDeadlineExceeded
	}
	defer func() { <-k.turn }()
	if _, err := k.process.Connection.WriteString(text + "\n"); err != nil {
		return "", errNoKeeper
	}
	reply, ok := <-k.replies
	if !ok {
		return "", errNoKeeper
	}
	return reply, nil
}

// Unmount implements conn.Outside.
func (k *keeper) Unmount() error {
	reply, err := k.request(keeperUnmount, nil)
	if err == nil && reply != keeperOK {
		err = errors.New(reply)
	}
	return err
}

// InSight implements conn.Outside.
func (k *keeper) InSight() (bool, error) {
	reply, err := k.request(keeperInSight, nil)
	if err == nil && reply != keeperYes && reply != keeperNo {
		err = errors.New(reply)
	}
	return reply == keeperYes, err
}

// mayProtect is host.MayProtect.
func (k *keeper) mayProtect(thread uint32) bool {
	reply, err := k.request(keeperProtect+" "+strconv.FormatUint(uint64(thread), 10), time.After(protectWait))
	return err == nil && reply == keeperYes
}
