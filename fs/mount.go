package fs

import (
	"errors"
	"runtime"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/fuse-overlay/fuse-overlay/fs/conn"
	"github.com/fuse-overlay/fuse-overlay/internal/lock"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// Mount is an attached overlay.
type Mount struct {
	*conn.Mount
	overlay *Overlay
	handing lock.Mutex[lock.Handover] // held by HandOver
}

// Mount attaches the overlay and serves it. It returns when the mount answers.
func (o *Overlay) Mount(cfg conn.MountConfig) (*Mount, error) {
	err := checkDescriptors(cfg.Passing)
	if err != nil && o.cfg.Conn.Loss != nil {
		_ = o.cfg.Conn.Loss() // the probe has descriptors until it ends
		err = checkDescriptors(cfg.Passing)
	}
	if err != nil {
		return nil, err
	}
	attached, err := o.conn.Attach(cfg, o.traits())
	if err != nil {
		return nil, err
	}
	attached.PrepareReadAhead()
	if cfg.Attached != nil {
		if err := cfg.Attached(attached); err != nil {
			return nil, errors.Join(err, attached.Abandon())
		}
	}
	if err := o.serve(attached); err != nil {
		return nil, err
	}
	o.start(attached)
	o.stack.Publish(sys.Self(attached.Place()))
	attached.RaiseReadAhead()
	return &Mount{Mount: attached, overlay: o}, nil
}

func (o *Overlay) traits() conn.Traits {
	return conn.Traits{
		Writable: o.stack.Writable(), Changing: o.cfg.LayersChange, ACL: o.ShowsACLs(),
		StrictAtime: o.cfg.AccessTimes.Strict() && o.stack.Writable(),
		Journal:     o.cfg.Journal,
	}
}

// start starts what a mount needs besides its readers.
func (o *Overlay) start(m *conn.Mount) {
	if o.pruner.bounded() {
		go o.pruner.run(o.kernel, m.Done())
	}
}

// serve serves the mount. If the mount is volatile, the work directory contains that before the
// first request. After an error nothing is mounted.
func (o *Overlay) serve(m *conn.Mount) error {
	if o.marksVolatile() {
		if err := o.stack.MarkVolatile(); err != nil {
			return errors.Join(err, m.Abandon())
		}
	}
	o.helped = runtime.GOMAXPROCS(0) > 1 && !o.cfg.Disabled.has(SecondThread)
	err := m.Serve(o)
	if err == nil && o.cfg.Conn.Passthrough() { // only a mount can try it
		err = o.passthrough.check()
	}
	if err != nil {
		return errors.Join(err, m.Abandon(), o.unmarkVolatile())
	}
	return nil
}

func (o *Overlay) marksVolatile() bool { return o.cfg.Volatile && o.stack.Writable() }

// unmarkVolatile takes back MarkVolatile, for a mount that failed.
func (o *Overlay) unmarkVolatile() error {
	if !o.marksVolatile() {
		return nil
	}
	return o.stack.UnmarkVolatile()
}

var _ conn.Handler = (*Overlay)(nil)

// Connected stores the policy and the connection for notifications.
func (o *Overlay) Connected(p conn.Policy, kernel *fuse.Server) {
	o.policy, o.passthrough.kernel = p, kernel
	o.kernel.server = kernel
}

// Gate returns the gate of the requests that may change the upper.
func (o *Overlay) Gate() *conn.Gate { return &o.changes }

// Failed returns true if the request may succeed now: it had no descriptor or no space, and Failed
// has closed descriptors. Otherwise it logs the failure if a layer is the reason.
func (o *Overlay) Failed(r conn.Request, status fuse.Status) (again bool) {
	if o.outOfDescriptors(status, r.Failures) || o.outOfSpace(status, r.Failures) {
		return true
	}
	o.logDamage(r, status)
	return false
}

// writesBack reports whether the kernel collects writes.
func (o *Overlay) writesBack() bool { return o.policy.Writeback }
