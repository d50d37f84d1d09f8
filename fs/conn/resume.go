package conn

import (
	"errors"
	"fmt"

	"github.com/hanwen/go-fuse/v2/fuse"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs/conn/wire"
	"github.com/fuse-overlay/fuse-overlay/fs/journal"
	"github.com/fuse-overlay/fuse-overlay/internal/host"
)

// Inherited is a connection whose process has died, for the next one.
type Inherited struct {
	Device          int // descriptor
	Init, InitReply []byte
	MaxWrite        int
	Writeback       bool
	WritebackReason string
	Place           host.Place
	Elsewhere       bool
}

// Inheritable returns what the next process needs for [Conn.Resume]. Precondition: the mount is
// served.
func (m *Mount) Inheritable() *Inherited {
	return &Inherited{
		Device: m.dev.FD(), Init: wire.Bytes(m.init), InitReply: m.initReply, MaxWrite: m.maxWrite,
		Writeback: m.writeback.on, WritebackReason: m.writeback.reason, Place: m.place, Elsewhere: m.elsewhere,
	}
}

// CanResend reports whether the kernel sends unanswered requests again (FUSE_HAS_RESEND, Linux
// 6.9). Precondition: the mount is served.
func (m *Mount) CanResend() bool { return m.init.Flags64()&capHasResend != 0 }

// capHasResend is FUSE_HAS_RESEND of linux/fuse.h.
const capHasResend = 1 << 39

const (
	// resendBit is FUSE_UNIQUE_RESEND: the kernel has sent the request before.
	resendBit = 1 << 63
	// notifyResend is FUSE_NOTIFY_RESEND.
	notifyResend = 7
)

// Resume takes over the connection of a process that has died. It takes the requests that the
// process has not answered, and corrects the counts of the journal: replies that were not sent gave
// the kernel no references.
func (c *Conn) Resume(cfg MountConfig, t Traits, i *Inherited) (*Mount, error) {
	if len(i.Init) != wire.SizeOf[fuse.InitIn](nil) {
		return nil, fmt.Errorf("the INIT of the connection has %d bytes", len(i.Init))
	}
	dev, err := host.AdoptDevice(i.Device)
	if err != nil {
		return nil, err
	}
	m := &Mount{
		conn: c, cfg: cfg, traits: t, maxWrite: i.MaxWrite, writeback: writebackChoice{i.Writeback, i.WritebackReason},
		done: make(chan struct{}), dev: dev, place: i.Place, elsewhere: i.Elsewhere,
		init: wire.Argument[fuse.InitIn](i.Init), initReply: i.InitReply,
	}
	if m.resent, err = takeResent(dev, t.Journal, i.MaxWrite); err != nil {
		return nil, err
	}
	c.log.Info("another process of this mount has ended; this one has taken over",
		zap.Int("interrupted requests", len(m.resent.redo)))
	return m, nil
}

// takeResent makes the kernel send the unanswered requests again, and reads them. They lie in areas
// of the journal from now on, with what the process before has noted of them.
func takeResent(dev *host.Device, j *journal.Journal, maxWrite int) (*resent, error) {
	notification := make([]byte, wire.OutHeaderSize)
	wire.PutHeader(notification, 0, -notifyResend, 0)
	if err := dev.Write(notification); err != nil && err != unix.ENODEV {
		return nil, fmt.Errorf("the kernel does not send requests again: %w", err)
	}
	interrupted := map[uint64]*journal.Interrupted{}
	list := j.Interrupted()
	for i := range list {
		h := wire.Header(list[i].Request)
		if len(list[i].Request) >= wire.InHeaderSize {
			interrupted[h.Unique&^resendBit] = &list[i]
		}
	}
	r := &resent{marks: map[uint64]uint64{}}
	buf := make([]byte, max(maxWrite, maxOtherReply)+wire.PageSize)
	for more := true; more; {
		n, err := dev.TryRead(buf)
		if err != nil || n < wire.InHeaderSize {
			break // EAGAIN: there is no more. A connection that has ended is found by the readers.
		}
		h := wire.Header(buf)
		op := wire.Opcode(h.Opcode)
		again := h.Unique&resendBit != 0
		more = again || op == wire.OpForget || op == wire.OpBatchForget || op == wire.OpInterrupt
		msg := append([]byte(nil), buf[:n]...)
		r.queue = append(r.queue, msg)
		if !again {
			continue
		}
		if redo, ok := redoOf(msg); ok {
			r.redo = append(r.redo, redo)
		}
		if before := interrupted[h.Unique&^resendBit]; before != nil {
			r.marks[h.Unique] = before.Mark
			before.Revoke()
		}
	}
	for i := range list {
		forgetRest(j, list[i].Request)
	}
	if len(list) == 0 && len(r.queue) == 0 {
		return r, nil
	}
	return r, r.store(j)
}

// forgetRest gives back what is left of an interrupted FORGET, which the kernel does not send
// again.
func forgetRest(j *journal.Journal, in []byte) {
	if len(in) < wire.InHeaderSize {
		return
	}
	switch wire.Opcode(wire.Header(in).Opcode) {
	case wire.OpForget:
		if a := wire.Argument[fuse.ForgetIn](in); a != nil {
			j.Forget(a.NodeId, a.Nlookup)
			a.Nlookup = 0
		}
	case wire.OpBatchForget:
		rest := wire.Forgets(in)
		for i, f := range rest {
			rest[i].Lookups = 0
			j.Forget(f.NodeID, f.Lookups)
		}
	}
}

// errNoArea is that of a journal that has no room for the interrupted requests.
var errNoArea = errors.New("the journal has no room for the interrupted requests")

// store puts the requests into areas, in case that this process dies before it has served them.
func (r *resent) store(j *journal.Journal) error {
	j.ClearAreas()
	for _, msg := range r.queue {
		a := j.Take()
		if a == nil || len(msg) > len(a.Request) {
			return errNoArea
		}
		a.SetMark(r.marks[wire.Header(msg).Unique])
		copy(a.Request[8:], msg[8:])
		copy(a.Request[:8], msg[:8]) // the length, last
		r.areas = append(r.areas, a)
	}
	r.left.Store(int64(len(r.queue)))
	return nil
}
