package fsx

import "math/rand/v2"

// Two operations at the same time keep the model exact if they touch different bytes. The helper
// writes by a mapping that it keeps, next to the bytes of the caller's operation and mostly in the
// same page. So a page is changed while the kernel or the file system replaces, writes back or
// drops it.

// beside builds the helper's operation for one of the caller. ok is false if there is none.
func (r *round) beside(o *op) (other op, ok bool) {
	f := r.files[o.File]
	limit, begin, end := f.size(), o.Off, o.Off+o.Len
	switch o.Kind {
	case opRead, opWrite:
		// A write by O_DIRECT and a mapping of the same page are not coherent anywhere.
		if f.fds[0][o.Slot].direct() {
			return op{}, false
		}
	case opAppend, opFallocate, opMapRead, opMapWrite, opKeptRead, opKeptWrite:
	case opCopy:
		if o.FromFile == o.File {
			return op{}, false
		}
	case opTruncate, opFtruncate:
		limit = min(limit, o.Len)
		begin, end = limit, limit
	case opWriteBack, opStartBack, opDrop, opFsync, opFdatasync, opTouch, opClose, opChmod, opStat:
		begin, end = limit, limit
	default:
		return op{}, false
	}
	if r.cfg.WriteBackFirst && r.extends(o) {
		return op{}, false
	}
	n := r.rng.IntN(keptSlots)
	m := f.maps[1][n]
	from, to := nearby(r.rng, begin, end, m.off, min(limit, m.off+m.len))
	return op{Kind: opKeptWrite, File: o.File, Name: o.Name, Slot: n, Off: from, Len: to - from}, to > from
}

// nearby is a range within low and high, right before begin or right after end.
func nearby(rng *rand.Rand, begin, end, low, high int64) (from, to int64) {
	const most = 60
	before, after := min(begin, high), max(end, low)
	if rng.IntN(2) == 0 && before > low || after >= high {
		return max(low, before-1-rng.Int64N(most)), before
	}
	return after, min(high, after+1+rng.Int64N(most))
}

// doBoth makes an operation here and one in the helper's process at once.
func (r *round) doBoth(o, other *op) error {
	h := r.doers[1].(*helper)
	r.enter(1, other, " at once with the next")
	if err := h.start(other); err != nil {
		return err
	}
	err := r.do(0, o)
	res := h.finish()
	if err != nil {
		return err
	}
	return r.judge(1, other, &res)
}
