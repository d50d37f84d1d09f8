package mounts

import (
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/fuse-overlay/fuse-overlay/internal/host"
	"github.com/fuse-overlay/fuse-overlay/internal/mountargs"
)

// State is whether a mount is served.
type State string

// The states of a mount.
const (
	Unknown State = ""        // this process may not find out
	Serving State = "serving" // its daemon runs
	Dead    State = "dead"    // its daemon has ended: each access fails with ENOTCONN
	Silent  State = "silent"  // no daemon is found, and the mount has not answered within answerLimit
)

// answerLimit is how long List waits for the answers of all mounts.
const answerLimit = 2 * time.Second

// Mount is a mount of this program.
type Mount struct {
	Entry host.MountEntry // its line of the mount table
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
	return describe(slices.DeleteFunc(table, func(m host.MountEntry) bool { return !isOwn(m) })), nil
}

// describe finds out what is known of mounts.
func describe(own []host.MountEntry) []Mount {
	s := newSources()
	list := make([]Mount, len(own))
	answers := make([]<-chan answer, len(own))
	for i, m := range own {
		list[i] = Mount{
			Entry: m, Point: m.Point, Type: m.Type, ReadOnly: isReadOnly(m), User: userOf(m), Daemon: s.daemonOf(m),
		}
		answers[i] = lookAt(m, !list[i].Daemon.certain && mayRequest(m))
	}
	limit, end := context.WithTimeout(context.Background(), answerLimit)
	defer end()
	for i := range list {
		list[i].set(wait(limit, answers[i]))
	}
	return list
}

// mayRequest reports whether a mount may get a request. A daemon that keeps the request can keep
// this process from ending, so it must be that of the caller or of root.
func mayRequest(m host.MountEntry) bool {
	user := userOf(m)
	return user == host.User() || user == 0
}

// set stores an answer.
func (m *Mount) set(a answer) {
	m.State, m.Hidden = a.state, a.hidden
	switch {
	case m.Daemon.certain, m.State == Unknown && m.Daemon.PID != 0:
		m.State = Serving
	case m.State == Dead:
		m.Daemon = Daemon{}
	}
}

// At returns the mount of this program whose root a path leads to; nil: there is none.
func At(path string) (*Mount, error) {
	p, err := host.OpenPoint(path)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	real, err := p.Path()
	if err != nil {
		return nil, err
	}
	table, err := host.MountTable()
	if err != nil {
		return nil, err
	}
	list := describe(slices.DeleteFunc(table, func(m host.MountEntry) bool { return !isOwn(m) || m.Point != real }))
	for i := range list {
		if m := &list[i]; !m.Hidden {
			return m, nil
		}
	}
	return nil, nil
}

// Sync writes back what is cached of a mount, so that it is in the upper.
func (m *Mount) Sync() error {
	p, err := host.OpenPoint(m.Point)
	if err != nil {
		return err
	}
	defer p.Close()
	return p.Sync()
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

// lookAt looks at a mount by its mount point. It does not wait: the mount may hang if it gets a
// request.
func lookAt(m host.MountEntry, request bool) <-chan answer {
	result := make(chan answer, 1)
	go func() { result <- answerOf(m, request) }()
	return result
}

// wait returns an answer, or that there is none within the limit.
func wait(limit context.Context, result <-chan answer) answer {
	select {
	case a := <-result:
		return a
	case <-limit.Done():
	}
	select { // it may have come while others were waited for
	case a := <-result:
		return a
	default:
		return answer{state: Silent}
	}
}

func answerOf(m host.MountEntry, request bool) answer {
	p, err := host.OpenMountPoint(m.Point)
	if err != nil {
		return answer{}
	}
	defer p.Close()
	id, err := p.MountID()
	switch {
	case err != nil:
		return answer{}
	case id != m.ID:
		return answer{hidden: true}
	case !request:
		return answer{}
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
