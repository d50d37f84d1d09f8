package fs

import (
	"path"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/copyup"
	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// wholeFile is all data of a regular file.
var wholeFile = copyup.Whole()

// copyUp makes n an object of the upper, its directories first. amount is how much of a regular
// file's data is needed there. Preconditions: none of n's locks and no directory's mu are held.
func (o *Overlay) copyUp(n *Node, amount copyup.Amount) error {
	if !n.inUpper() {
		if err := (&copyUp{o: o, n: n, amount: amount}).run(); err != nil {
			return err
		}
	}
	if n.place().data == nil {
		return nil
	}
	return o.copyUpData(n, amount)
}

// copyUpMetadata copies n up without its data where the format allows that (metacopy).
// Preconditions: those of copyUp.
func (o *Overlay) copyUpMetadata(n *Node) error {
	if n.inUpper() {
		return nil
	}
	return (&copyUp{o: o, n: n, metadataOnly: true}).run()
}

// copyUp is the copy-up of one object.
type copyUp struct {
	o            *Overlay
	n            *Node
	metadataOnly bool          // no data is needed
	amount       copyup.Amount // of the data that is needed otherwise

	before sys.Stat    // of the object before the copy-up
	data   *stack.Data // where the data of the copy is; nil: in it
	staged *copyup.Staged
}

// run copies the object up, its directories first. If the layer holds a metacopy already, its data
// stays where it is. Preconditions: those of Overlay.copyUp.
func (c *copyUp) run() error {
	o, n := c.o, c.n
	p := n.place()
	if !o.stack.Writable() {
		return unix.EROFS
	}
	if p.parent != nil && !p.unlinked {
		if err := o.copyUp(p.parent, wholeFile); err != nil {
			return err
		}
	}
	n.upMu.Lock()
	broken, err := c.runLocked()
	if at := n.place(); err == nil && at.shared != nil && at.parent != nil && !at.unlinked {
		err = o.linkUp(n, at.placed)
	}
	n.upMu.Unlock()
	if broken && o.kernel.connected() {
		o.conn.Slow() // the kernel may send requests before it returns
		// The link count and the number that the kernel remembers, here and in listings, are the lower
		// hard link's.
		o.kernel.dropAttr(n.ID())
		o.kernel.dropListing(n.place().parent.ID())
	}
	return err
}

// runLocked stages the copy with no other lock held, so that no request waits for the data. broken:
// the object was one of several lower links and is now an object of its own. Preconditions: n.upMu
// is held.
func (c *copyUp) runLocked() (broken bool, err error) {
	if c.n.inUpper() {
		return false, nil
	}
	if err := c.stageLocked(); err != nil {
		return false, err
	}
	defer c.staged.Discard()
	for {
		p := c.n.place()
		if p.unlinked {
			return false, c.keepUnlinkedLocked()
		}
		published, err := c.publishLocked(&p)
		if published || err != nil {
			return published && manyLinks(&c.before) && p.shared == nil, err
		}
	}
}

// stageLocked makes the copy in the work directory.
func (c *copyUp) stageLocked() error {
	o, n := c.o, c.n
	p := n.place()
	at, err := o.object(&p)
	for err != nil && (o.lostName(n, &p, err) || n.place() != p) { // removed meanwhile
		p = n.place()
		at, err = o.object(&p)
	}
	if err != nil {
		return err
	}
	defer at.release()
	src := stack.Source{Ref: at.Inode(), Layer: p.layer, Data: p.data, Shared: p.shared}
	amount := c.amount
	switch {
	case c.metadataOnly && p.unlinked:
		amount = wholeFile
	case c.metadataOnly:
		amount = copyup.Hole()
		if p.parent != nil {
			src.Path = path.Join(p.parent.pathIn(p.layer), p.name)
		}
	}
	c.staged, c.data, err = o.stack.Stage(&src, amount, &c.before)
	return err
}

// publishLocked moves the copy to the place p of the object. published is false if the object has
// left p meanwhile. Preconditions: n.upMu is held, and no directory's mu.
func (c *copyUp) publishLocked(p *place) (published bool, err error) {
	o, n, dir := c.o, c.n, p.parent.dir
	d := o.openDir(p.parent)
	defer d.release()
	if p.shared == nil {
		if there, err := o.stillThere(n, p, d); !there {
			return false, err
		}
	}
	up, notUp := d.upper()
	dir.mu.Lock()
	defer dir.mu.Unlock()
	if now := n.place(); now.placed != p.placed || now.unlinked {
		return false, nil
	}
	if p.shared != nil {
		return true, c.publishSharedLocked(p)
	}
	if notUp != nil {
		return false, notUp
	}
	file := c.staged.File()
	if err := o.stack.MarkImpure(&dir.Dir, up); err != nil {
		return false, err
	}
	if err := c.staged.Publish(up, p.name); err != nil {
		return false, err
	}
	o.copied.add(c)
	o.stack.CopiedUp(&dir.Dir, p.name)
	if n.dir != nil {
		n.dir.mu.Lock()
		n.dir.AddUpper()
		n.dir.mu.Unlock()
	}
	var now sys.Stat
	err = refTo(up, p.name, file).Stat(&now)
	o.keepCopy(n, file, c.data)
	n.mu.Lock()
	from := int(n.layer)
	n.layer, n.key = stack.Upper, keyOf(&now)
	n.setDataLocked(c.data)
	n.addUpperPartLocked(&now)
	n.mu.Unlock()
	switch {
	case n.dir != nil, err != nil: // published all the same: the next attempt finds it done
	case manyLinks(&c.before):
		n.ino.Store(o.numbers.Of(keyOf(&now)))
	default:
		o.numbers.SetOrigin(keyOf(&now), n.ino.Load())
	}
	o.journal.copiedUp(n)
	o.handles.Evict(n.handleKey(from, forReading))
	return true, err
}

// publishSharedLocked makes the copy the object of a lower's file, under all its names.
// Precondition: n.upMu is held.
func (c *copyUp) publishSharedLocked(p *place) error {
	o, n := c.o, c.n
	file := c.staged.File()
	if err := o.stack.PublishCopy(p.shared, c.staged); err != nil {
		return err
	}
	o.copied.add(c)
	o.sharedCopies.Add(1)
	var now sys.Stat
	err := o.stack.Copy(p.shared).Stat(&now)
	key := keyOf(&now)
	if err == nil {
		o.numbers.SetOrigin(key, n.ino.Load())
		o.nodes.Link(key, n)
	}
	n.mu.Lock()
	n.layer, n.key = stack.Upper, key
	n.setDataLocked(c.data)
	n.mu.Unlock()
	o.keepCopy(n, file, c.data)
	o.handles.Evict(n.handleKey(p.layer, forReading))
	return err
}

// keepUnlinkedLocked keeps the copy of an object that has lost its last name, which a process still
// has open. Preconditions: n.upMu is held.
func (c *copyUp) keepUnlinkedLocked() error {
	o, n := c.o, c.n
	if n.kind != unix.S_IFREG {
		return unix.ENOENT
	}
	file, err := c.staged.Orphan()
	if err != nil {
		return err
	}
	o.copied.add(c)
	object, err := file.Ref().Open()
	if err != nil {
		file.Close()
		return err
	}
	n.mu.Lock()
	from := int(n.layer)
	rare := n.setRareLocked()
	rare.previousObject, rare.object, n.layer = rare.object, object, stack.Upper
	rare.data = c.data
	n.mu.Unlock()
	o.journal.update(n)
	o.keepCopy(n, file, c.data)
	o.handles.Evict(n.handleKey(from, forReading))
	return nil
}

// keepCopy keeps the file of a published copy open for the writes that will follow, unless it has
// no data yet.
func (a *access) keepCopy(n *Node, file *sys.File, data *stack.Data) {
	switch {
	case file == nil:
	case data != nil:
		file.Close()
	default:
		a.handles.Release(a.keepHandle(n, stack.Upper, forWriting, handle{file: file}))
	}
}

// copyUpData gives a metacopy of the upper its data, in place: the file may have several names, and
// be open. The metacopy xattr goes last. Preconditions: those of copyUp.
func (o *Overlay) copyUpData(n *Node, amount copyup.Amount) error {
	to, err := o.ownFile(n, forWriting)
	if err != nil {
		return err
	}
	n.upMu.Lock()
	defer n.upMu.Unlock()
	data := n.place().data
	if data == nil { // another request was first
		to.Close()
		return nil
	}
	rest, err := o.stack.Complete(to, data, amount)
	n.mu.Lock()
	n.setDataLocked(rest)
	n.mu.Unlock()
	o.handles.Evict(n.handleKey(stack.Upper, forReading)) // which has the old data
	if err != nil {
		to.Close()
		return err
	}
	o.copied.bytes.Add(uint64(amount.Of(data.Size)))
	o.keepCopy(n, to, nil)
	return nil
}
