package fs

import (
	"go.uber.org/zap"

	"github.com/fuse-overlay/fuse-overlay/fs/conn/wire"
	"github.com/fuse-overlay/fuse-overlay/fs/journal"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// nodeJournal stores in the journal where nodes lie, for the process that takes over when this one
// dies. A change of the upper comes first. If the process dies between the two, the next one finds
// the change in the upper, because the kernel sends the request again ([Overlay.Reconcile]). A nil
// nodeJournal stores nothing.
type nodeJournal struct {
	*journal.Journal
	log *zap.Logger
}

// add stores a new node. Preconditions: no other goroutine has a reference to n.
func (j *nodeJournal) add(n *Node) {
	if j == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	e := n.journalEntryLocked()
	if n.dir != nil {
		e.setLayers(n.dir)
	}
	j.check(j.Add(&e.Node))
}

// update stores where n lies now. The layers of a directory stay as they were stored.
func (j *nodeJournal) update(n *Node) {
	if j == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	e := n.journalEntryLocked()
	j.check(j.Update(&e.Node))
}

// saveLayers stores the layers of a directory as well. Preconditions: n.dir.mu is held, or no other
// goroutine has a reference to n.
func (j *nodeJournal) saveLayers(n *Node) {
	if j == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	j.saveLayersLocked(n)
}

// saveLayersLocked is saveLayers. Preconditions: n.mu is held besides.
func (j *nodeJournal) saveLayersLocked(n *Node) {
	if j == nil {
		return
	}
	e := n.journalEntryLocked()
	e.setLayers(n.dir)
	j.check(j.Update(&e.Node))
}

// copiedUp stores that n lies in the upper now. Preconditions: n.dir.mu is not held.
func (j *nodeJournal) copiedUp(n *Node) {
	switch {
	case j == nil:
	case n.dir == nil:
		j.update(n)
	default:
		n.dir.mu.Lock()
		j.saveLayers(n)
		n.dir.mu.Unlock()
	}
}

// forget stores that the kernel has given references back.
func (j *nodeJournal) forget(f wire.Forget) {
	if j != nil {
		j.Forget(f.NodeID, f.Lookups)
	}
}

// check logs an error of the journal. The node is lost with this process then.
func (j *nodeJournal) check(err error) {
	if err != nil {
		j.log.Error("an inode would not survive the death of this process", zap.Error(err))
	}
}

// journalEntry is a node as the journal has it.
type journalEntry struct{ journal.Node }

// journalEntryLocked returns the entry of n, but for layers. Preconditions: n.mu is held.
func (n *Node) journalEntryLocked() journalEntry {
	rare := n.rareLocked()
	e := journal.Node{
		ID: n.Serial(), Ino: n.ino.Load(), Dev: n.key.Dev, Inode: n.key.Ino, Kind: n.kind,
		Layer: int(n.layer), Descriptor: -1,
	}
	if n.parent != nil {
		e.Name = journal.Name{Parent: n.parent.Serial(), Text: n.name}
	}
	if n.unlinked {
		e.Flags |= journal.Unlinked
	}
	if rare.linkable {
		e.Flags |= journal.Linkable
	}
	if rare.object != nil {
		e.Descriptor = rare.object.FD()
	}
	for _, other := range rare.others {
		e.Other = append(e.Other, journal.Name{Parent: other.parent.Serial(), Text: other.name})
	}
	return journalEntry{e}
}

// setLayers notes the layers of a directory. Preconditions: d.mu is held, or no other goroutine has
// a reference to d.
func (e *journalEntry) setLayers(d *dirState) {
	e.Layers = d.Layers()
	if d.LiesElsewhere() {
		e.Flags |= journal.Elsewhere
	}
}

// addName, removeName and moveName change a name of n, and store that.
func (a *access) addName(n *Node, p placed) {
	n.addName(p)
	a.journal.update(n)
}

func (a *access) removeName(n *Node, p placed) {
	n.removeName(p)
	a.journal.update(n)
}

func (a *access) moveName(n *Node, from, to placed) {
	n.moveName(from, to)
	a.journal.update(n)
}

// dropEntry removes a node without references from the table, and reports whether it did. The
// journal forgets it before its object is closed: the descriptor may be another file's then.
func (a *access) dropEntry(n *Node) bool {
	if !a.nodes.Drop(n) {
		return false
	}
	if a.journal != nil {
		a.journal.Remove(n.Serial())
	}
	return true
}

// inheritedObject is the object of a node without a name.
func inheritedObject(fd int) *sys.Object {
	if fd < 0 {
		return nil
	}
	return sys.InheritObject(fd)
}
