package fs

import (
	"path"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/copyup"
	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// How much data copyUp is asked for, besides a size: all of a file's, or none, because attributes are to be changed alone.
var (
	wholeFile = copyup.Whole()
	noData    = copyup.Hole()
)

// copyUp makes n an object of the upper, its directories first. amount is how much of a regular file's data is needed there.
// Preconditions: none of n's locks and no directory's mu are held.
func (o *Overlay) copyUp(n *Node, amount copyup.Amount) error {
	if err := o.raise(n, amount); err != nil || amount == noData || n.place().data == nil {
		return err
	}
	return o.raiseData(n, amount)
}

// raise is copyUp that leaves the data out where it has been left out before.
func (o *Overlay) raise(n *Node, amount copyup.Amount) error {
	p := n.place()
	if p.layer == stack.Upper {
		return nil
	}
	if !o.stack.Writable() {
		return unix.EROFS
	}
	if p.parent != nil && !p.gone {
		if err := o.copyUp(p.parent, wholeFile); err != nil {
			return err
		}
	}
	n.upMu.Lock()
	broken, err := o.copyUpLocked(n, amount)
	if at := n.place(); err == nil && at.shared != nil && at.parent != nil && !at.gone {
		err = o.linkUp(n, at.placed)
	}
	n.upMu.Unlock()
	if broken && o.server != nil {
		o.conn.Slow() // the kernel may ask before it has done
		// The link count and the number that the kernel remembers, here and in listings, are the lower hard link's.
		o.forgetAttr(n)
		o.server.InodeNotify(n.place().parent.ID(), 0, 0)
	}
	return err
}

// copyUpLocked stages the copy with no other lock held, so that nothing waits for the data.
// broken: the object was one of several lower links and is now one of its own. Precondition: n.upMu is held.
func (o *Overlay) copyUpLocked(n *Node, amount copyup.Amount) (broken bool, err error) {
	if n.inUpper() {
		return false, nil
	}
	p := n.place()
	at, err := o.object(&p)
	for err != nil && (o.lost(n, &p, err) || n.place() != p) { // removed meanwhile
		p = n.place()
		at, err = o.object(&p)
	}
	src := stack.Source{Layer: p.layer, Data: p.data, Shared: p.shared}
	switch {
	case amount == noData && p.gone:
		amount = wholeFile
	case amount == noData && p.parent != nil:
		src.Path = path.Join(p.parent.pathIn(p.layer), p.name)
	}
	if err != nil {
		return false, err
	}
	defer at.release()
	src.Ref = at.Inode()
	var st sys.Stat
	staged, data, err := o.stack.Stage(&src, amount, &st)
	if err != nil {
		return false, err
	}
	defer staged.Discard()
	for {
		p := n.place()
		if p.gone {
			return false, o.raiseRemoved(n, staged, data)
		}
		published, err := o.publish(n, p, staged, data, &st)
		if published || err != nil {
			return published && manyLinks(&st) && p.shared == nil, err
		}
	}
}

// publish moves a staged copy, whose data is where data says, to its place, unless the object has left it meanwhile.
// Preconditions: n.upMu is held, and no directory's mu.
func (o *Overlay) publish(n *Node, p place, staged *copyup.Staged, data *stack.Data, st *sys.Stat) (done bool, err error) {
	dir := p.parent.dir
	d := o.open(p.parent)
	defer d.release()
	if p.shared == nil {
		if there, err := o.stillThere(n, &p, d); !there {
			return false, err
		}
	}
	up, notUp := d.upper()
	dir.mu.Lock()
	defer dir.mu.Unlock()
	if now := n.place(); now.placed != p.placed || now.gone {
		return false, nil
	}
	if p.shared != nil {
		return true, o.publishShared(n, p, staged, data)
	}
	if notUp != nil {
		return false, notUp
	}
	file := staged.File()
	if err := o.stack.MarkImpure(&dir.Dir, up); err != nil {
		return false, err
	}
	if err := staged.Publish(up, p.name); err != nil {
		return false, err
	}
	o.stack.CopiedUp(&dir.Dir, p.name)
	if n.dir != nil {
		n.dir.mu.Lock()
		n.dir.AddUpper()
		n.dir.mu.Unlock()
	}
	var now sys.Stat
	err = refTo(up, p.name, file).Stat(&now)
	o.keepStaged(n, file, data)
	n.mu.Lock()
	old := int(n.layer)
	n.layer, n.key = stack.Upper, keyOf(&now)
	n.setDataLocked(data)
	n.raisedLocked(&now)
	n.mu.Unlock()
	switch {
	case n.dir != nil, err != nil: // published all the same: the next attempt finds it done
	case manyLinks(st):
		n.ino.Store(o.numbers.Of(keyOf(&now)))
	default:
		o.numbers.SetOrigin(keyOf(&now), n.ino.Load())
	}
	o.handles.Evict(n.handleKey(old, useRead))
	return true, err
}

// keepStaged keeps the file of a copy that has been published for the writes that will follow, unless it has no data yet.
func (o *Overlay) keepStaged(n *Node, file *sys.File, data *stack.Data) {
	switch {
	case file == nil:
	case data != nil:
		file.Close()
	default:
		o.handles.Release(o.keepHandle(n, stack.Upper, useWrite, handle{file: file}))
	}
}

// raiseRemoved makes a removed object that somebody still has open writable: a copy without a name.
// Precondition: n.upMu is held.
func (o *Overlay) raiseRemoved(n *Node, staged *copyup.Staged, data *stack.Data) error {
	if n.kind != unix.S_IFREG {
		return unix.ENOENT
	}
	file, err := staged.Orphan()
	if err != nil {
		return err
	}
	kept, err := file.Ref().Open()
	if err != nil {
		file.Close()
		return err
	}
	n.mu.Lock()
	layer := int(n.layer)
	rare := n.setRareLocked()
	rare.former, rare.kept, n.layer = rare.kept, kept, stack.Upper
	rare.data = data
	n.mu.Unlock()
	o.keepStaged(n, file, data)
	o.handles.Evict(n.handleKey(layer, useRead))
	return nil
}

// raiseData gives a file of the upper that has attributes alone its data, in place: the file may have several names, and be
// open. The mark that its data is elsewhere goes last. Preconditions: those of copyUp.
func (o *Overlay) raiseData(n *Node, amount copyup.Amount) error {
	to, err := o.ownFile(n, useWrite)
	if err != nil {
		return err
	}
	n.upMu.Lock()
	defer n.upMu.Unlock()
	data := n.place().data
	if data == nil { // somebody else was first
		to.Close()
		return nil
	}
	left, err := o.stack.Complete(to, data, amount)
	n.mu.Lock()
	n.setDataLocked(left)
	n.mu.Unlock()
	o.handles.Evict(n.handleKey(stack.Upper, useRead)) // which knows the old data
	if err != nil {
		to.Close()
		return err
	}
	o.keepStaged(n, to, nil)
	return nil
}
