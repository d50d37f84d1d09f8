package fsx

// Operations at the same time keep the model exact if they touch different bytes. Helpers write by
// mappings that they keep, next to the bytes of the caller's operation and mostly in the same page:
// one before these bytes, another after them. So a page is changed while the kernel or the file
// system replaces, writes back or drops it.

// simultaneous is an operation that a helper makes while the caller makes another one.
type simultaneous struct {
	worker int
	op     op
}

// beside builds operations of helpers for one of the caller. There may be none.
func (r *round) beside(o *op) (others []simultaneous) {
	begin, end, limit, ok := r.touched(o)
	if !ok || r.cfg.WriteBackFirst && r.extends(o) {
		return nil
	}
	helpers := r.rng.Perm(workers - 1)
	for i, side := range r.rng.Perm(2) {
		w, n := 1+helpers[i], r.rng.IntN(keptSlots)
		m := r.files[o.File].maps[w][n]
		from, to := m.off, min(limit, m.off+m.len)
		const most = 60
		if side == 0 {
			to = min(to, begin)
			from = max(from, to-1-r.rng.Int64N(most))
		} else {
			from = max(from, end)
			to = min(to, from+1+r.rng.Int64N(most))
		}
		if from < to {
			others = append(others, simultaneous{w, op{Kind: opKeptWrite, File: o.File, Name: o.Name, Slot: n, Off: from, Len: to - from}})
		}
	}
	return others
}

// touched returns the range of bytes that an operation of the caller reads or changes, and the size
// below which all other bytes keep their offsets. ok is false if nothing may happen beside it.
func (r *round) touched(o *op) (begin, end, limit int64, ok bool) {
	f := r.files[o.File]
	limit, begin, end = f.size(), o.Off, o.Off+o.Len
	switch o.Kind {
	case opRead, opWrite:
		// A write by O_DIRECT and a mapping of the same page are not coherent anywhere.
		return begin, end, limit, !f.fds[0][o.Slot].direct()
	case opFallocate:
		return begin, end, limit, !moves(o.Flags)
	case opAppend, opMapRead, opMapWrite, opKeptRead, opKeptWrite:
		return begin, end, limit, true
	case opCopy:
		return begin, end, limit, o.FromFile != o.File
	case opTruncate, opFtruncate:
		limit = min(limit, o.Len)
		return limit, limit, limit, true
	case opWriteBack, opStartBack, opDrop, opFsync, opFdatasync, opTouch, opClose, opChmod, opStat:
		return limit, limit, limit, true
	}
	return 0, 0, 0, false
}

// doAtOnce makes an operation, and others in the helpers' processes at the same time.
func (r *round) doAtOnce(w int, o *op, others []simultaneous) error {
	for i := range others {
		s := &others[i]
		r.enter(s.worker, &s.op, " at once with the next")
		if err := r.doers[s.worker].(*helper).start(&s.op); err != nil {
			return err
		}
	}
	err := r.do(w, o)
	results := make([]result, len(others))
	for i, s := range others {
		results[i] = r.doers[s.worker].(*helper).finish()
	}
	for i, s := range others {
		if err == nil {
			err = r.judge(s.worker, &s.op, &results[i])
		}
	}
	return err
}
