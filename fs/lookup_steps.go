package fs

import (
	"strings"
)

// attachLocked gives the name the node of what was found, if the name has none yet. Preconditions:
// those of lookInUpperLocked.
func (l *lookup) attachLocked() (done bool, err error) {
	l.o.numbers.restore(l)
	if l.incomplete {
		if up, err := l.d.upper(); err == nil {
			l.o.stack.SetOrigin(up.At(l.name), l.handle)
		}
	}
	if l.newDir != nil {
		l.p.dir.children[l.newDir.name] = l.newDir
		l.node, l.newDir = l.newDir, nil
		return true, nil
	}
	l.node, err = l.nodeOfFoundLocked()
	return l.node != nil, err
}

// ownName is the name for a node to keep.
func (l *lookup) ownName() string {
	if l.nameStays {
		return l.name
	}
	return strings.Clone(l.name)
}

// release gives back the references that the result does not need. Preconditions: no directory's mu
// is held.
func (l *lookup) release() {
	if l.known != nil {
		l.o.forgetOne(l.known)
	}
	if l.unused != nil {
		l.o.forgetOne(l.unused)
	}
	l.known, l.unused = nil, nil
	if l.newDir != nil {
		l.o.discard(l.newDir)
		l.newDir = nil
	}
}

// nodeOfFoundLocked returns the node of what was found, which is not a directory, with one
// reference more. A further link of a known object gets the known node. nil: the lower object may
// have been copied up since it was found. Preconditions: p.dir.mu is held.
func (l *lookup) nodeOfFoundLocked() (*Node, error) {
	o, p := l.o, l.p
	n, known, err := o.knownObject(&l.found)
	if err != nil {
		l.unused = n
		return nil, err
	}
	name := l.ownName()
	if !known {
		n = o.newNode(p, name, &l.found, nil)
		first, made, err := o.linkShared(n, &l.found, l.copies)
		if err != nil {
			l.unused = n
			return nil, err
		}
		if made {
			o.numbers.claim(n)
		} else {
			o.unref(n)
			o.dropEntry(n)
			if first == n {
				return nil, nil
			}
			n, known = first, true // another of its names was looked up at the same time
		}
	}
	if known {
		o.addName(n, placed{p, name})
	}
	p.dir.children[name] = n
	return n, nil
}
