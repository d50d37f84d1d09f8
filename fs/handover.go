package fs

import (
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// handOverWait is how long changes under way may take until the upper is handed over. The other
// mount waits no longer.
const handOverWait = 2 * time.Second

// Reasons to keep an upper that another mount requests.
var (
	errInSight     = errors.New("this mount is in sight where it was made")
	errPassedFiles = errors.New("files of the upper are open with io=passthrough: the kernel may write to them by itself")
	errChanges     = fmt.Errorf("changes were under way for more than %v", handOverWait)
)

// HandOver gives up the upper and the work directory if the mount is no longer in the mount
// namespace in which it was made: it was unmounted there, or the namespace has ended. Such a mount
// lives on by copies in other namespaces or by open files. Reads go on there, and changes are
// ESTALE from then on. The daemon calls HandOver at the signal of another mount (SIGUSR2).
func (m *Mount) HandOver() {
	if !m.handing.TryLock() {
		return
	}
	defer m.handing.Unlock()
	o := m.overlay
	if m.Place().Mount.Dev == 0 || !o.stack.Writable() || o.changes.IsShut() {
		return
	}
	if err := m.handOver(); err != nil {
		o.log.Info("another mount requests the upperdir and does not get it", zap.Error(err))
		return
	}
	o.log.Warn("another mount has got the upperdir: changes through this one are refused (ESTALE)")
}

func (m *Mount) handOver() error {
	o := m.overlay
	if seen, err := m.InSight(); err != nil || seen {
		return errors.Join(err, map[bool]error{true: errInSight}[seen])
	}
	if o.passthrough.counts.passesUpper() {
		return errPassedFiles
	}
	o.flushPages()
	o.changes.Shut(unix.ESTALE)
	for deadline := time.Now().Add(handOverWait); o.changes.Running() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			o.changes.Open()
			return errChanges
		}
	}
	if o.cfg.Journal != nil {
		o.cfg.Journal.End() // a process that takes over would use an upper that is another mount's
	}
	o.closer.closeWaiting() // so that their space is free for the other mount
	return o.stack.HandOver()
}

// flushPages makes the kernel write back the dirty pages of all files, because the next mount reads
// the files from the upper. No system call does so for a mount without a path. A notification that
// invalidates the pages of an inode writes them first.
func (o *Overlay) flushPages() {
	for _, n := range o.nodes.Sample(o.nodes.Len(), func(n *Node) bool { return n.kind == unix.S_IFREG }) {
		o.kernel.InodeNotify(n.ID(), 0, 0)
	}
}

// passesUpper reports whether the kernel has a file of the upper as a backing.
func (t *openCounts) passesUpper() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range t.byID {
		if e.id != throughCache && e.lower == nil {
			return true
		}
	}
	return false
}
