package journal

import (
	"errors"
	"sync/atomic"
	"unsafe"
)

// Flag is a fact about a node.
type Flag uint32

// The facts about a node.
const (
	// Unlinked: the object has no name.
	Unlinked Flag = 1 << iota
	// Linkable: the object has had no name yet and may get one.
	Linkable
	// Elsewhere: a redirect leads to the directory, so it has to be looked up again.
	Elsewhere
)

// Name is one name of an object: the id of its directory and the text.
type Name struct {
	Parent uint64
	Text   string
}

// Node is what the journal has of one node.
type Node struct {
	ID    uint64
	Name  Name   // Parent is 0 for the root
	Other []Name // further names
	Ino   uint64 // st_ino
	// Dev and Inode identify the object in the upper.
	Dev, Inode uint64
	Kind       uint32 // S_IFMT
	Layer      int
	Flags      Flag
	Descriptor int // of the object, which is kept; below 0: none
	// Layers are those that a directory may lie in. nil: as saved before, and Elsewhere as well.
	Layers []uint16

	Granted uint64 // of [Journal.Nodes]: references that the kernel has
}

// ErrFull is the error of a journal that has no room for a node.
var ErrFull = errors.New("the journal is full")

// Add stores a new node, to which the kernel has no reference yet.
func (j *Journal) Add(n *Node) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.saveLocked(n)
}

// Update stores a node anew. Its references stay as they are. It does nothing if the node was
// removed.
func (j *Journal) Update(n *Node) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	i, known := j.byID[n.ID]
	if !known {
		return nil
	}
	if n.Layers == nil {
		old := j.readLocked(j.node(i).record, nil)
		n.Layers, n.Flags = old.Layers, n.Flags|old.Flags&Elsewhere
	}
	return j.saveLocked(n)
}

func (j *Journal) saveLocked(n *Node) error {
	head, err := j.writeLocked(n)
	if err != nil {
		return err
	}
	if n.Descriptor >= 0 {
		if err := j.keepLocked(n.Descriptor); err != nil {
			j.freeLocked(head)
			return err
		}
	}
	i, known := j.byID[n.ID]
	if !known {
		if i, err = take(&j.freeNodes, &j.head.nodes, maxNodes); err != nil {
			j.freeLocked(head)
			return err
		}
		e := j.node(i)
		e.granted, e.record = 0, head
		j.head.lastID = max(j.head.lastID, n.ID)
		atomic.StoreUint64(&e.id, n.ID)
		j.byID[n.ID] = i
		return nil
	}
	old := j.node(i).record
	before, _ := j.record(old)
	if fd := int(before.fd) - 1; fd >= 0 && fd != n.Descriptor {
		defer j.releaseLocked(fd)
	}
	atomic.StoreUint32(&j.node(i).record, head)
	j.freeLocked(old)
	return nil
}

// Remove drops a node. Its descriptor is no longer kept.
func (j *Journal) Remove(id uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	i, known := j.byID[id]
	if !known {
		return
	}
	e := j.node(i)
	atomic.StoreUint64(&e.id, 0)
	delete(j.byID, id)
	if head, _ := j.record(e.record); head.fd > 0 {
		j.releaseLocked(int(head.fd) - 1)
	}
	j.freeLocked(e.record)
	j.freeNodes = append(j.freeNodes, i)
}

// Forget subtracts references that the kernel has given back.
func (j *Journal) Forget(id, count uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if i, known := j.byID[id]; known {
		e := j.node(i)
		atomic.StoreUint64(&e.granted, e.granted-min(count, e.granted))
	}
}

// writeLocked writes the records of a node, which do not count yet, and returns the first one.
func (j *Journal) writeLocked(n *Node) (first uint32, err error) {
	var next uint32
	for _, name := range n.Other {
		at, err := j.writeRecordLocked(&recordHead{parent: name.Parent, next: next}, name.Text, nil)
		if err != nil {
			j.freeLocked(next)
			return 0, err
		}
		next = at
	}
	at, err := j.writeRecordLocked(&recordHead{
		parent: n.Name.Parent, ino: n.Ino, dev: n.Dev, inode: n.Inode, kind: n.Kind, flags: uint32(n.Flags),
		layer: int32(n.Layer), fd: int32(n.Descriptor + 1), next: next,
	}, n.Name.Text, n.Layers)
	if err != nil {
		j.freeLocked(next)
	}
	return at, err
}

// maxLayers is how many layers a long record has room for, beside the longest name.
const maxLayers = (longSize - headSize - 256) / 2

func (j *Journal) writeRecordLocked(head *recordHead, name string, layers []uint16) (at uint32, err error) {
	if len(layers) > maxLayers { // the directory is looked up again
		layers, head.flags = nil, head.flags|uint32(Elsewhere)
	}
	if len(name)+2*len(layers)+1 <= recordSize-headSize {
		at, err = take(&j.freeRecords[0], &j.head.records, maxRecords)
	} else {
		at, err = take(&j.freeRecords[1], &j.head.long, maxLong)
		at |= isLong
	}
	if err != nil {
		return 0, err
	}
	to, rest := j.record(at)
	*to = *head
	to.nameLength, to.layers = uint16(len(name)), uint16(len(layers))
	copy(rest, name)
	for i, l := range layers {
		rest[len(name)+2*i], rest[len(name)+2*i+1] = byte(l), byte(l>>8)
	}
	return at, nil
}

// freeLocked frees a record and those that follow it.
func (j *Journal) freeLocked(at uint32) {
	for at != 0 {
		head, _ := j.record(at)
		list := &j.freeRecords[0]
		if at&isLong != 0 {
			list = &j.freeRecords[1]
		}
		*list = append(*list, at&^isLong)
		at = head.next
	}
}

// take returns an entry of an array that is free.
func take(free *[]uint32, used *uint32, limit uint32) (uint32, error) {
	if last := len(*free) - 1; last >= 0 {
		i := (*free)[last]
		*free = (*free)[:last]
		return i, nil
	}
	if *used >= limit {
		return 0, ErrFull
	}
	*used++
	return *used - 1, nil
}

// Nodes returns all nodes of a journal that [Load] has opened, and the largest id ever stored. It
// finds what is free.
func (j *Journal) Nodes() (nodes []Node, lastID uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	used := [2][]bool{make([]bool, j.head.records), make([]bool, j.head.long)}
	used[0][0], used[1][0] = true, true
	nodes = make([]Node, 0, j.head.nodes)
	for i := range j.head.nodes {
		e := j.node(i)
		if e.id == 0 {
			j.freeNodes = append(j.freeNodes, i)
			continue
		}
		n := j.readLocked(e.record, &used)
		n.ID, n.Granted = e.id, e.granted
		nodes = append(nodes, n)
		j.byID[e.id] = i
	}
	for class, list := range used {
		for i, is := range list {
			if !is {
				j.freeRecords[class] = append(j.freeRecords[class], uint32(i))
			}
		}
	}
	return nodes, j.head.lastID
}

func (j *Journal) readLocked(at uint32, used *[2][]bool) (n Node) {
	mark := func(at uint32) {
		if used == nil {
			return
		}
		if at&isLong != 0 {
			used[1][at&^isLong] = true
		} else {
			used[0][at] = true
		}
	}
	mark(at)
	head, rest := j.record(at)
	n = Node{
		Name: Name{head.parent, string(rest[:head.nameLength])}, Ino: head.ino, Dev: head.dev, Inode: head.inode,
		Kind: head.kind, Flags: Flag(head.flags), Layer: int(head.layer), Descriptor: int(head.fd) - 1,
	}
	if head.layers > 0 {
		n.Layers = make([]uint16, head.layers)
		for i := range n.Layers {
			n.Layers[i] = uint16(rest[int(head.nameLength)+2*i]) | uint16(rest[int(head.nameLength)+2*i+1])<<8
		}
	}
	for next := head.next; next != 0; {
		mark(next)
		other, text := j.record(next)
		n.Other = append(n.Other, Name{other.parent, string(text[:other.nameLength])})
		next = other.next
	}
	return n
}

// Descriptors returns the descriptors that are kept.
func (j *Journal) Descriptors() (fds []int) {
	for i, word := range unsafe.Slice((*uint64)(unsafe.Pointer(&j.mem[keptAt])), KeptBytes/8) {
		for bit := range 64 {
			if word&(1<<bit) != 0 {
				fds = append(fds, i*64+bit)
			}
		}
	}
	return fds
}
