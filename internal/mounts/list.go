package mounts

import (
	"slices"
	"strconv"
	"time"

	"github.com/fuse-overlay/fuse-overlay/internal/host"
	"github.com/fuse-overlay/fuse-overlay/internal/mountargs"
)

// State is whether a mount answers.
type State string

// The states of a mount.
const (
	Unknown State = ""        // this process may not find out
	Serving State = "serving" // the daemon answers
	Dead    State = "dead"    // the daemon has ended: each access fails with ENOTCONN
	Silent  State = "silent"  // the daemon has not answered within answerLimit
)

// answerLimit is how long List waits for the answers of all mounts.
const answerLimit = 2 * time.Second

// Mount is a mount of this program.
type Mount struct {
	Point string
	Type  string
	State State
	// Hidden: another mount is on top of it, so no path leads to it.
	Hidden bool
	// ReadOnly: nothing can be written through this mount.
	ReadOnly bool
	// User is the user that has mounted it, as the mount table has it.
	User uint32
	// Daemon is what is known of the process that serves it.
	Daemon Daemon
}

// List returns the mounts of this program in the mount table of this process, in its order.
func List() ([]Mount, error) {
	table, err := host.MountTable()
	if err != nil {
		return nil, err
	}
	own := slices.DeleteFunc(table, func(m host.MountEntry) bool { return !isOwn(m) })
	s := newSources()
	answers := make([]<-chan answer, len(own))
	for i, m := range own {
		answers[i] = request(m)
	}
	limit := time.After(answerLimit)
	list := make([]Mount, len(own))
	late := false
	for i, m := range own {
		a := answer{state: Silent}
		if late {
			a = answerSoFar(answers[i])
		} else {
			select {
			case a = <-answers[i]:
			case <-limit:
				late = true
				a = answerSoFar(answers[i])
			}
		}
		list[i] = Mount{
			Point: m.Point, Type: m.Type, State: a.state, Hidden: a.hidden, ReadOnly: isReadOnly(m), User: userOf(m),
		}
		if a.state != Dead {
			list[i].Daemon = s.daemonOf(m)
		}
		if a.state == Unknown && list[i].Daemon.PID != 0 {
			list[i].State = Serving
		}
	}
	return list, nil
}

// isOwn reports whether a mount is one of this program. The program fuse-overlayfs has the type of
// CompatName as well, but does not limit the size of a READ, as this one always does.
func isOwn(m host.MountEntry) bool {
	switch m.Type {
	case "fuse." + mountargs.OwnName:
		return true
	case "fuse." + mountargs.CompatName:
		_, limited := m.Option("max_read")
		return limited
	}
	return false
}

func isReadOnly(m host.MountEntry) bool {
	_, super := m.Option("ro")
	return super || m.ReadOnly
}

// noUser is the user of a mount table without one, which is no user's number.
const noUser = ^uint32(0)

func userOf(m host.MountEntry) uint32 {
	text, _ := m.Option("user_id")
	id, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return noUser
	}
	return uint32(id)
}

// answer is what a mount point shows of a mount.
type answer struct {
	state  State
	hidden bool
}

// request finds out whether a mount answers. It does not wait: a daemon may hang, and a hanging
// file system may be above the mount point.
func request(m host.MountEntry) <-chan answer {
	result := make(chan answer, 1)
	go func() { result <- lookAt(m) }()
	return result
}

// stateOf waits for the answer of one mount, but not longer than answerLimit.
func stateOf(m host.MountEntry) State {
	select {
	case a := <-request(m):
		return a.state
	case <-time.After(answerLimit):
		return Silent
	}
}

// answerSoFar returns the answer that is there.
func answerSoFar(result <-chan answer) answer {
	select {
	case a := <-result:
		return a
	default:
		return answer{state: Silent}
	}
}

func lookAt(m host.MountEntry) answer {
	p, err := host.OpenPoint(m.Point)
	if err != nil {
		return answer{}
	}
	defer p.Close()
	id, err := p.MountID()
	if err != nil {
		return answer{}
	}
	if id != m.ID {
		return answer{hidden: true}
	}
	allowed, err := p.Answers()
	switch {
	case !allowed:
		return answer{}
	case err != nil:
		return answer{state: Dead}
	}
	return answer{state: Serving}
}
