package main

import (
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/fuse-overlay/fuse-overlay/fs"
	"github.com/fuse-overlay/fuse-overlay/fs/conn"
	"github.com/fuse-overlay/fuse-overlay/internal/host"
	"github.com/fuse-overlay/fuse-overlay/internal/mountargs"
	"github.com/fuse-overlay/fuse-overlay/internal/owner"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

func noEffect(*request, string) error { return nil }

func text(field func(*request) *string) setter {
	return func(r *request, value string) error {
		*field(r) = mountargs.Unescape(value)
		return nil
	}
}

func flag(field func(*request) *bool) setter {
	return func(r *request, _ string) error {
		*field(r) = true
		return nil
	}
}

// on returns the setter of an option that is 0 or 1, off that of one whose field has the opposite
// meaning.
func on(field func(*request) *bool) setter {
	return func(r *request, value string) error {
		yes, err := zeroOrOne(value)
		if err == nil {
			*field(r) = yes
		}
		return err
	}
}

func off(field func(*request) *bool) setter {
	return func(r *request, value string) error {
		yes, err := zeroOrOne(value)
		if err == nil {
			*field(r) = !yes
		}
		return err
	}
}

func zeroOrOne(value string) (bool, error) {
	switch value {
	case "1":
		return true, nil
	case "0":
		return false, nil
	}
	return false, fmt.Errorf("%s is neither 0 nor 1", quoted(value))
}

func setWriteback(r *request, value string) error {
	yes, err := zeroOrOne(value)
	r.overlay.Conn.Writeback = conn.WritebackOff
	if yes {
		r.overlay.Conn.Writeback = conn.WritebackOn
	}
	return err
}

func mountFlags(set, clear uintptr) setter {
	return func(r *request, _ string) error {
		r.mount.Flags = r.mount.Flags&^clear | set
		return nil
	}
}

// ids returns the mapping of ids, to which the options apply.
func (r *request) ids() *owner.IDs {
	if r.overlay.IDs == nil {
		r.overlay.IDs = &owner.IDs{}
		r.overlay.IDs.OverflowUID, r.overlay.IDs.OverflowGID = host.OverflowIDs()
	}
	return r.overlay.IDs
}

func mapping(field func(*owner.IDs) *owner.Mapping) setter {
	return func(r *request, value string) error {
		m, err := owner.ParseMapping(value)
		*field(r.ids()) = m
		return err
	}
}

func squash(field func(*owner.IDs) *owner.Squash) setter {
	return func(r *request, value string) error {
		id, err := strconv.ParseUint(value, 10, 32)
		if err != nil || uint32(id) == sys.Unchanged {
			return fmt.Errorf("%s is not an id from 0 to 4294967294", quoted(value))
		}
		*field(r.ids()) = owner.Squash{On: true, ID: uint32(id)}
		return nil
	}
}

func squashToRoot(r *request, _ string) error {
	root := owner.Squash{On: true}
	r.ids().UID, r.ids().GID = root, root
	return nil
}

func setPermissions(r *request, value string) error {
	switch value {
	case "0", "1", "2":
		r.overlay.Permissions = owner.Permissions(int(value[0] - '0'))
		return nil
	}
	return fmt.Errorf("%s is none of 0, 1 and 2", quoted(value))
}

func setTimeout(r *request, value string) error {
	seconds, err := strconv.ParseFloat(value, 64)
	if err != nil || math.IsNaN(seconds) || seconds < 0 {
		return fmt.Errorf("%s is not a number of seconds", quoted(value))
	}
	// With timeout=0 the kernel may cache nothing. Users request that only for layers that change.
	r.overlay.LayersChange = seconds == 0
	// Callers write "for ever" as a number like 1000000000, which may not fit a Duration.
	if seconds >= math.MaxInt64/float64(time.Second) {
		r.overlay.Conn.Timeout = withoutEnd
	} else {
		r.overlay.Conn.Timeout = time.Duration(seconds * float64(time.Second))
	}
	return nil
}

var setIO = oneOf(func(r *request) *conn.IO { return &r.overlay.Conn.IO },
	choice[conn.IO]{"auto", conn.IOAuto}, choice[conn.IO]{"cached", conn.IOCached}, choice[conn.IO]{"passthrough", conn.IOPassthrough})

var setCPUIdle = oneOf(func(r *request) *conn.CPUIdle { return &r.overlay.Conn.CPUIdle },
	choice[conn.CPUIdle]{"auto", conn.CPUIdleAuto}, choice[conn.CPUIdle]{"poll", conn.CPUIdlePoll}, choice[conn.CPUIdle]{"sleep", conn.CPUIdleSleep})

func setDisabled(r *request, value string) (err error) {
	r.overlay.Disabled, err = fs.ParseOptimisations(value)
	return err
}

// minMaxWrite is the smallest max_write of the kernel in bytes: one page.
const minMaxWrite = 4096

func setMaxWrite(r *request, value string) error {
	bytes, err := strconv.ParseInt(value, 10, 32)
	if err != nil || bytes < minMaxWrite {
		return fmt.Errorf("%s is not a number of bytes of at least %d", quoted(value), minMaxWrite)
	}
	r.overlay.Conn.MaxWrite = int(bytes)
	return nil
}

func setCacheInodes(r *request, value string) error {
	n, err := strconv.Atoi(value)
	if err != nil || n < 0 {
		return fmt.Errorf("%s is not a number of inodes", quoted(value))
	}
	r.overlay.CacheInodes = n
	return nil
}
