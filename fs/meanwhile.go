package fs

// Idle does what may be of use for the next request, in time that nobody waits for, and reports whether there was anything.
// A reader calls it that has found no request.
func (o *Overlay) Idle() (done bool) {
	done = o.readNext()
	if !o.fast.Load() {
		return done
	}
	if o.changes.Enter() != 0 {
		return done
	}
	defer o.changes.Leave()
	if !o.cfg.Disabled.has(PreparedTmpfile) && o.stack.Prepare() {
		done = true
	}
	if !o.fast.Load() { // no longer: who has said so may have been too early for this
		o.stack.Relax()
	}
	return done
}

// PaceChanged is called when requests begin to come fast, and when they no longer do.
func (o *Overlay) PaceChanged(fast bool) {
	o.fast.Store(fast)
	if !fast {
		o.stack.Relax()
	}
}
