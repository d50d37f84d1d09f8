package fsx

import (
	"math/bits"

	"golang.org/x/sys/unix"
)

// choice is one row of the table of operations: its relative frequency and its builder. build
// returns a worker and an operation. ok is false if the state of the file allows none.
type choice struct {
	kind   kind
	weight int
	build  func(r *round, f int) (w int, o op, ok bool)
}

var choices = []choice{
	{opRead, 90, (*round).genRead},
	{opWrite, 90, (*round).genWrite},
	{opAppend, 80, (*round).genAppend},
	{opMapRead, 60, (*round).genMapRead},
	{opMapWrite, 60, (*round).genMapWrite},
	{opMap, 20, (*round).genMap},
	{opKeptRead, 60, (*round).genKept},
	{opKeptWrite, 90, (*round).genKept},
	{opUnmap, 10, (*round).genUnmap},
	{opTruncate, 20, (*round).genTruncate},
	{opFtruncate, 20, (*round).genTruncate},
	{opFallocate, 50, (*round).genFallocate},
	{opCopy, 30, (*round).genCopy},
	{opOpen, 50, (*round).genOpen},
	{opClose, 40, (*round).genClose},
	{opTouch, 60, (*round).genTouch},
	{opStat, 30, (*round).genPath},
	{opChmod, 10, (*round).genPath},
	{opWriteBack, 15, (*round).genSync},
	{opStartBack, 15, (*round).genSync},
	{opDrop, 15, (*round).genSync},
	{opFsync, 2, (*round).genSync},
	{opFdatasync, 2, (*round).genSync},
	{opSyncfs, 1, (*round).genSync},
	{opDisturb, 10, (*round).genDisturb},
}

// appending is the table for Config.Appends: a page is dirty through a mapping, and the file grows
// within that page.
var appending = []choice{
	{opMap, 5, (*round).genMap},
	{opKeptWrite, 40, (*round).genKept},
	{opAppend, 40, (*round).genAppend},
	{opRead, 5, (*round).genRead},
	{opMapRead, 5, (*round).genMapRead},
	{opOpen, 3, (*round).genOpen},
	{opTouch, 5, (*round).genTouch},
	{opDisturb, 3, (*round).genDisturb},
}

func (r *round) choose(table []choice) choice {
	sum := 0
	for _, c := range table {
		sum += c.weight
	}
	at := r.rng.IntN(sum)
	for _, c := range table {
		if at -= c.weight; at < 0 {
			return c
		}
	}
	return table[0]
}

// next builds an operation.
func (r *round) next() (w int, o op) {
	table := choices
	if r.cfg.Appends {
		table = appending
	}
	for {
		c, f := r.choose(table), r.rng.IntN(len(r.files))
		r.kind = c.kind
		w, o, ok := c.build(r, f)
		if !ok {
			continue
		}
		o.File, o.Name = f, r.files[f].name
		if r.cfg.WriteBackFirst && r.files[f].mapDirty && r.extends(&o) {
			return r.writeBack(f)
		}
		o.Size = o.Size || r.rng.IntN(4) == 0 && o.Kind != opDisturb && o.Kind != opRemove && o.Kind != opDropAll
		return w, o
	}
}

// extends reports whether the operation may make its file longer.
func (r *round) extends(o *op) bool {
	size := r.files[o.File].size()
	switch o.Kind {
	case opWrite, opCopy, opFallocate:
		return o.Off+o.Len > size || o.Kind == opFallocate && o.Flags == unix.FALLOC_FL_INSERT_RANGE
	case opTruncate, opFtruncate:
		return o.Len > size
	}
	return o.Kind == opAppend
}

// writeBack is an operation that leaves no dirty page of a file.
func (r *round) writeBack(f int) (int, op) {
	w, n, ok := r.pick(f, openFile.writable)
	if !ok {
		w, o, _ := r.openAs(f, unix.O_RDWR)
		o.File, o.Name = f, r.files[f].name
		return w, o
	}
	return w, op{Kind: opWriteBack, File: f, Name: r.files[f].name, Slot: n}
}

// pick chooses an open descriptor that fits, of either process with the same probability.
func (r *round) pick(f int, fits func(openFile) bool) (w, n int, ok bool) {
	seen := 0
	for i := range workers {
		for j, fd := range r.files[f].fds[i] {
			if !fd.open || !fits(fd) {
				continue
			}
			seen++
			if r.rng.IntN(seen) == 0 {
				w, n = i, j
			}
		}
	}
	return w, n, seen > 0
}

// someWorker is the caller with a probability of a half, else a helper.
func (r *round) someWorker() int {
	if r.rng.IntN(2) == 0 {
		return 0
	}
	return 1 + r.rng.IntN(workers-1)
}

// openAs opens a file in a slot that is free, or closes one.
func (r *round) openAs(f, flags int) (w int, o op, ok bool) {
	w, n := r.someWorker(), r.rng.IntN(fdSlots)
	if n == fdSlots-1 && r.cfg.Appends { // stays open, see firstOpen
		n = 0
	}
	if r.rng.IntN(2) == 0 { // a helper process costs more
		w = 0
	}
	if r.files[f].fds[w][n].open {
		return w, op{Kind: opClose, Slot: n}, true
	}
	return w, op{Kind: opOpen, Slot: n, Flags: flags}, true
}

// length is a number of bytes up to limit. Small ones are as likely as large ones.
func (r *round) length(limit int64) int64 {
	if limit <= 1 {
		return limit
	}
	n := int64(1) << r.rng.IntN(bits.Len64(uint64(limit)))
	return min(limit, n+r.rng.Int64N(n))
}

// offset is an offset up to limit: anywhere, around the end of the file, or at a page.
func (r *round) offset(f int, limit int64) int64 {
	off := r.rng.Int64N(limit + 1)
	switch r.rng.IntN(4) {
	case 0:
		off = r.files[f].size() - 20 + r.rng.Int64N(40)
	case 1:
		off = r.files[f].size()
	case 2:
		off &^= pageSize - 1
	}
	return max(0, min(off, limit))
}

// aligned widens a range to one that O_DIRECT allows.
func (r *round) aligned(fd openFile, off, size int64) (int64, int64) {
	if a := r.cfg.Align; fd.direct() && a > 1 {
		return off &^ (a - 1), max(a, size&^(a-1))
	}
	return off, size
}

func (r *round) genRead(f int) (int, op, bool) {
	w, n, ok := r.pick(f, openFile.readable)
	if !ok {
		return r.openAs(f, unix.O_RDONLY)
	}
	off, size := r.aligned(r.files[f].fds[w][n], r.offset(f, r.maxSize), r.length(r.maxSize/2))
	return w, op{Kind: opRead, Slot: n, Off: off, Len: size}, true
}

func (r *round) genWrite(f int) (int, op, bool) {
	w, n, ok := r.pick(f, func(fd openFile) bool { return fd.writable() && !fd.appends() })
	if !ok {
		return r.openAs(f, unix.O_RDWR)
	}
	off := r.offset(f, r.maxSize-1)
	off, size := r.aligned(r.files[f].fds[w][n], off, r.length(min(r.maxSize-off, r.maxSize/4)))
	return w, op{Kind: opWrite, Slot: n, Off: off, Len: size, Size: off+size > r.files[f].size()}, true
}

func (r *round) genAppend(f int) (int, op, bool) {
	file := r.files[f]
	room := r.maxSize - file.size()
	if room <= 0 {
		return 0, op{}, false
	}
	size := r.length(min(room, r.maxSize/8))
	if r.rng.IntN(2) == 0 || r.cfg.Appends {
		size = min(room, 1+r.rng.Int64N(60))
	}
	w, n, ok := r.pick(f, func(fd openFile) bool { return fd.writable() && fd.appends() && !fd.direct() })
	if ok {
		return w, op{Kind: opAppend, Slot: n, Off: file.size(), Len: size, Size: true}, true
	}
	w, n, ok = r.pick(f, func(fd openFile) bool { return fd.writable() && !fd.appends() && !fd.direct() })
	if !ok || r.rng.IntN(10) == 0 {
		return r.openAs(f, unix.O_WRONLY|unix.O_APPEND)
	}
	return w, op{Kind: opWrite, Slot: n, Off: file.size(), Len: size, Size: true}, true
}

// mappable is the number of bytes of a file that a mapping can read: to the end of the last page.
func mappable(f *file) int64 { return (f.size() + pageSize - 1) &^ (pageSize - 1) }

func (r *round) genMapRead(f int) (int, op, bool) {
	limit := mappable(r.files[f])
	if limit == 0 {
		return 0, op{}, false
	}
	w, n, ok := r.pick(f, openFile.readable)
	if !ok {
		return r.openAs(f, unix.O_RDONLY)
	}
	off := r.offset(f, limit-1)
	return w, op{Kind: opMapRead, Slot: n, Off: off, Len: r.length(limit - off)}, true
}

func both(fd openFile) bool { return fd.readable() && fd.writable() }

func (r *round) genMapWrite(f int) (int, op, bool) {
	size := r.files[f].size()
	if size == 0 {
		return 0, op{}, false
	}
	w, n, ok := r.pick(f, both)
	if !ok {
		return r.openAs(f, unix.O_RDWR)
	}
	off := r.offset(f, size-1)
	return w, op{Kind: opMapWrite, Slot: n, Off: off, Len: r.length(size - off), Flags: r.msync()}, true
}

// msync is the flags for msync(2) after a write. Mostly there is no msync, because it waits for the
// disk.
func (r *round) msync() int {
	switch r.rng.IntN(80) {
	case 0:
		return unix.MS_SYNC
	case 1, 2, 3, 4, 5, 6, 7, 8:
		return unix.MS_ASYNC
	}
	return 0
}

func (r *round) genMap(f int) (int, op, bool) {
	w, n, ok := r.pick(f, both)
	if !ok {
		return r.openAs(f, unix.O_RDWR)
	}
	if n >= keptSlots || r.files[f].maps[w][n].len > 0 {
		return 0, op{}, false
	}
	off := r.rng.Int64N(r.maxSize/2) &^ (pageSize - 1)
	if r.cfg.Appends {
		off = 0
	}
	// The worker maps by the descriptor of the same number.
	return w, op{Kind: opMap, Slot: n, Off: off, Len: r.length(r.maxSize) + pageSize}, true
}

// genKept reads or writes by an existing mapping, within the file.
func (r *round) genKept(f int) (int, op, bool) {
	file := r.files[f]
	w, n := r.rng.IntN(workers), r.rng.IntN(keptSlots)
	m := file.maps[w][n]
	limit := file.size()
	if r.kind == opKeptRead {
		limit = mappable(file)
	}
	limit = min(limit, m.off+m.len)
	if m.len == 0 || limit <= m.off {
		return 0, op{}, false
	}
	off := m.off + r.rng.Int64N(limit-m.off)
	if r.rng.IntN(2) == 0 { // in the last page, where the file grows
		off = max(m.off, limit-1-r.rng.Int64N(60))
	}
	o := op{Kind: r.kind, Slot: n, Off: off, Len: r.length(limit - off)}
	if r.kind == opKeptWrite && !r.cfg.Appends {
		o.Flags = r.msync()
	}
	return w, o, true
}

func (r *round) genUnmap(f int) (int, op, bool) {
	w, n := r.rng.IntN(workers), r.rng.IntN(keptSlots)
	return w, op{Kind: opUnmap, Slot: n}, r.files[f].maps[w][n].len > 0
}

func (r *round) genTruncate(f int) (int, op, bool) {
	size := r.offset(f, r.maxSize)
	if r.kind == opTruncate {
		return r.someWorker(), op{Kind: opTruncate, Len: size, Size: true, Slot: noSlot}, true
	}
	w, n, ok := r.pick(f, openFile.writable)
	return w, op{Kind: opFtruncate, Slot: n, Len: size, Size: true}, ok
}

func (r *round) genCopy(f int) (int, op, bool) {
	w, n, ok := r.pick(f, func(fd openFile) bool { return fd.writable() && !fd.appends() && !fd.direct() })
	if !ok {
		return 0, op{}, false
	}
	from := r.rng.IntN(len(r.files))
	src := r.files[from]
	for m, fd := range src.fds[w] {
		if !fd.open || !fd.readable() || fd.direct() || src.size() == 0 {
			continue
		}
		o := op{Kind: opCopy, Slot: n, FromFile: from, FromSlot: m, FromOff: r.offset(from, src.size()-1),
			Off: r.offset(f, r.maxSize-1), Size: true}
		o.Len = r.length(min(r.maxSize-o.Off, src.size()-o.FromOff))
		overlap := from == f && o.Off < o.FromOff+o.Len && o.FromOff < o.Off+o.Len
		// The kernel would write dirty pages of the source back while the target grows.
		dirty := r.cfg.WriteBackFirst && src.mapDirty
		return w, o, !overlap && !dirty
	}
	return 0, op{}, false
}
