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

// A request that fails because a layer is damaged is worth a line in the log: the layer, the path, the reason. What callers do
// wrong is not.

// damageLog keeps a damaged layer from filling the log.
type damageLog struct {
	mu      lock.Mutex[lock.Leaf]    // guards the rest; a leaf
	reasons map[string]*damageReason // by the reason's text
	second  time.Time                // looks are counted from then on
	looks   int
}

type damageReason struct {
	last time.Time // of the last line
	more int       // failures since, which have no line
}

const (
	damageInterval = time.Second // between two lines with one reason
	// mostDamageLooks is how many failed requests a second are looked into: it costs some system calls each.
	mostDamageLooks = 20
)

// mayLook reports whether one more failure is to be looked into.
func (l *damageLog) mayLook(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.second) >= damageInterval {
		l.second, l.looks = now, 0
	}
	l.looks++
	return l.looks <= mostDamageLooks
}

// due reports whether a reason may have a line, and how many failures with that reason had none since its last one.
func (l *damageLog) due(reason string, now time.Time) (more int, due bool) {
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
		r.more++
		return 0, false
	}
	more, r.more, r.last = r.more, 0, now
	return more, true
}

// noteDamage logs why a request has failed, if a layer is the reason. Precondition: none of the overlay's locks is held.
func (o *Overlay) noteDamage(r conn.Request, status fuse.Status) {
	errno := unix.Errno(status)
	certain := stack.IsDamage(errno)
	if !certain && !(looksOnly(r.Op) && (errno == unix.EPERM || errno == unix.EINVAL)) {
		return
	}
	now := time.Now()
	if !o.damage.mayLook(now) {
		return
	}
	n, err := o.node(r.NodeID)
	if err != nil {
		return
	}
	damage := o.damageOf(n, string(r.Name))
	if !damage.Found() {
		if !certain {
			return
		}
		damage.Reason = errno.Error()
	}
	more, due := o.damage.due(damage.Reason, now)
	if !due {
		return
	}
	o.log.Warn("an object of a layer cannot be used",
		zap.String("layer", o.layerName(damage.Layer)), zap.String("path", damage.Path), zap.String("reason", damage.Reason),
		zap.String("error", unix.ErrnoName(errno)), zap.String("request", r.Op.String()), zap.Int("not logged before", more))
}

// looksOnly reports whether a request only looks at what layers have: then EPERM and EINVAL cannot be the caller's fault, for
// whose rights are checked by the kernel.
func looksOnly(op wire.Opcode) bool {
	switch op {
	case wire.OpLookup, wire.OpReaddir, wire.OpReaddirplus:
		return true
	}
	return false
}

// damageOf returns what is damaged in n, or in a name in it. If it finds no damage, it returns
// where to look.
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
