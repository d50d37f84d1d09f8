package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// OpenDir answers OPENDIR. ENOSYS has the kernel open directories by itself and keep their listings
// (FUSE_NO_OPENDIR_SUPPORT).
func (o *Overlay) OpenDir(_ <-chan struct{}, _ *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	switch {
	case o.cfg.LayersChange:
		*out = fuse.OpenOut{} // the kernel requests each listing
		return fuse.OK
	case o.policy.NoOpendir:
		return fuse.ENOSYS
	}
	if !o.policy.StrictAtime {
		out.OpenFlags = fuse.FOPEN_KEEP_CACHE | fuse.FOPEN_CACHE_DIR
	}
	return fuse.OK
}

// ReleaseDir answers RELEASEDIR.
func (o *Overlay) ReleaseDir(*fuse.ReleaseIn) {}

// ReadDir answers READDIR at any offset, without a handle.
func (o *Overlay) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return o.status("readdir", o.list(in, out, namesOnly))
}

// ReadDirPlus answers READDIRPLUS. An entry comes with the reply that a LOOKUP of it would get.
func (o *Overlay) ReadDirPlus(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return o.status("readdirplus", o.list(in, out, withAttributes))
}

func (o *Overlay) list(in *fuse.ReadIn, out *fuse.DirEntryList, form listingForm) error {
	n, err := o.node(in.NodeId)
	if err != nil {
		return err
	}
	if n.dir == nil {
		return unix.ENOTDIR
	}
	l := listings.Get().(*listing)
	*l = listing{
		o: o, n: n, d: o.openDir(n), form: form, out: out, room: int(in.Size),
		entries: l.entries[:0], pending: l.pending[:0],
	}
	defer func() {
		for _, n := range l.unsent {
			o.forgetOne(n)
		}
		clear(l.entries)
		clear(l.pending)
		*l = listing{entries: l.entries, pending: l.pending}
		listings.Put(l)
	}()
	if err := l.collect(in.Pid, in.Offset); err != nil {
		return err
	}
	if form == withAttributes && in.Offset == 0 && !o.cfg.LayersChange {
		o.prefetch.noteListing(n)
	}
	return l.reply()
}

// Places of the entries that every directory has. Those of the name table follow.
const (
	placeDot    = 1
	placeDotDot = 2
)

// Sizes of struct fuse_direntplus and struct fuse_dirent without the name (linux/fuse.h).
const (
	direntSize     = 24
	direntPlusSize = 128 + direntSize
)

// unknownIno is the inode number of an entry whose number is not known, as in libfuse
// (FUSE_UNKNOWN_INO).
const unknownIno = 0xffffffff

// takes reports whether a further entry fits, and counts it.
func (l *listing) takes(name string) bool {
	size := direntSize
	if l.form == withAttributes {
		size = direntPlusSize
	}
	size += (len(name) + 7) &^ 7
	l.room -= size
	return l.room >= 0
}

// dotsLocked puts "." and ".." into the reply. The kernel needs no attributes of them.
// Precondition: n.dir.mu is held, n is listed.
func (l *listing) dotsLocked(place, end uint64) {
	if place >= placeDotDot {
		return
	}
	up := l.n
	if p := l.n.place(); p.parent != nil {
		up = p.parent
	}
	dots := [...]struct {
		name  string
		place uint64
		node  *Node
	}{{".", placeDot, l.n}, {"..", placeDotDot, up}}
	for _, e := range dots {
		if e.place > place && l.takes(e.name) {
			l.add(fuse.DirEntry{Name: e.name, Mode: unix.S_IFDIR, Ino: e.node.ino.Load(), Off: l.n.dir.Offset(e.place, end)})
		}
	}
}

// add puts an entry into the reply and returns where its attributes go; nil in a READDIR. An entry
// without a node ID is one without attributes (fuse_direntplus_link).
func (l *listing) add(e fuse.DirEntry) *fuse.EntryOut {
	if l.form == withAttributes {
		return l.out.AddDirLookupEntry(e)
	}
	l.out.AddDirEntry(e)
	return nil
}

// reply writes the reply, with no lock held: the link count of a directory may need its own
// listing.
func (l *listing) reply() error {
	entries := l.entries
	for i := range entries {
		e := &entries[i]
		if e.node == nil {
			l.add(fuse.DirEntry{Name: e.name, Mode: e.kind, Ino: e.ino, Off: e.offset})
			continue
		}
		var a fuse.Attr
		if err := l.o.attr(e.node, &e.st, &a); err != nil {
			for ; i < len(entries); i++ {
				if n := entries[i].node; n != nil {
					l.unsent = append(l.unsent, n)
				}
			}
			if i > 0 && len(l.out.Bytes()) > 0 {
				return nil // the READDIR that goes on from there returns it
			}
			return err
		}
		out := l.add(fuse.DirEntry{Name: e.name, Mode: e.node.kind, Ino: a.Ino, Off: e.offset})
		if out == nil {
			l.unsent = append(l.unsent, e.node)
			continue
		}
		out.Attr = a
		l.o.entryTimeouts(e.node, out)
	}
	return nil
}
