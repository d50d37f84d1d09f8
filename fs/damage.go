package fs

import (
	"path"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs/conn"
	"github.com/fuse-overlay/fuse-overlay/fs/conn/wire"
	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/internal/lock"
)

// A request that fails because a layer is damaged is one line in the log, with the layer, the path
// and the reason. Errors of callers are not logged.

// damageLog limits the lines about damaged layers.
type damageLog struct {
	mu       lock.Mutex[lock.Leaf]    // guards the rest; a leaf
	reasons  map[string]*damageReason // by the reason's text
	second   time.Time                // examined counts from then on
	examined int
}

type damageReason struct {
	last     time.Time // of the last line
	unlogged int       // failures since then
}

const (
	damageInterval = time.Second // between two lines with one reason
	// maxExamined is how many failed requests a second the daemon examines. Each one costs some
	// system calls.
	maxExamined = 20
)

// mayExamine reports whether one more failure is to be examined.
func (l *damageLog) mayExamine(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.second) >= damageInterval {
		l.second, l.examined = now, 0
	}
	l.examined++
	return l.examined <= maxExamined
}

// due reports whether a reason may be logged. unlogged is how many failures with that reason were
// not logged since its last line.
func (l *damageLog) due(reason string, now time.Time) (unlogged int, due bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.reasons == nil {
		l.reasons = map[string]*damageReason{}
	}
	r := l.reasons[reason]
	if r == nil {
		r = &damageReason{}
		l.reasons[reason] = r
	} else if now.Sub(r.last) < damageInterval {
		r.unlogged++
		return 0, false
	}
	unlogged, r.unlogged, r.last = r.unlogged, 0, now
	return unlogged, true
}

// logDamage logs why a request has failed, if a layer is the reason. Precondition: no lock is held.
func (o *Overlay) logDamage(r conn.Request, status fuse.Status) {
	errno := unix.Errno(status)
	now := time.Now()
	if !mayBeDamage(r.Op, errno) || !o.damage.mayExamine(now) {
		return
	}
	n, err := o.node(r.NodeID)
	if err != nil {
		return
	}
	damage := o.damageOf(n, string(r.Name))
	if !damage.Found() {
		if !stack.IsDamage(errno) {
			return
		}
		damage.Reason = errno.Error()
	}
	unlogged, due := o.damage.due(damage.Reason, now)
	if !due {
		return
	}
	o.log.Warn("an object of a layer cannot be used",
		zap.String("layer", o.layerName(damage.Layer)),
		zap.String("path", damage.Path),
		zap.String("reason", damage.Reason),
		zap.String("error", unix.ErrnoName(errno)),
		zap.Stringer("request", r.Op),
		zap.Int("not logged before", unlogged))
}

// mayBeDamage reports whether a request may have failed with errno because a layer is damaged. A
// request that only reads cannot fail with EPERM, EINVAL, ELOOP or EXDEV by an error of its caller,
// because the kernel checks rights and arguments.
func mayBeDamage(op wire.Opcode, errno unix.Errno) bool {
	if stack.IsDamage(errno) {
		return true
	}
	switch op {
	case wire.OpLookup, wire.OpGetattr, wire.OpRead, wire.OpReaddir, wire.OpReaddirplus:
		switch errno {
		case unix.EPERM, unix.EINVAL, unix.ELOOP, unix.EXDEV:
			return true
		}
	}
	return false
}

// damageOf returns what is damaged in n, or in a name in it. If it finds no damage, it returns
// the place alone.
func (o *Overlay) damageOf(n *Node, name string) stack.Damage {
	p := n.place()
	dir := n
	if n.dir == nil {
		if p.data != nil {
			if damage := o.stack.DamagedData(p.data); damage.Found() {
				return damage
			}
		}
		if p.unlinked || p.parent == nil {
			return stack.Damage{Layer: p.layer, Path: p.name}
		}
		dir, name = p.parent, p.name
	}
	d := o.openDir(dir)
	defer d.release()
	dir.dir.mu.Lock()
	was := dir.dir.Dir
	dir.dir.mu.Unlock()
	damage := o.stack.Damaged(&was, d, name)
	if !damage.Found() {
		damage.Layer, damage.Path = p.layer, path.Join(d.Path(p.layer), name)
	}
	return damage
}
