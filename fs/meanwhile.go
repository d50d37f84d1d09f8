package fs

// meanwhile does what may be of use for the next request, in time that nobody waits for, and reports whether there was anything.
// A reader calls it that has found no request.
func (o *Overlay) meanwhile() (done bool) {
	defer func() {
		if v := recover(); v != nil {
			_ = o.panicked(v)
		}
	}()
	done = o.readNext()
	if !o.fast.Load() {
		return done
	}
	if o.changes.enter() != 0 {
		return done
	}
	defer o.changes.leave()
	if !o.cfg.Disabled.has(PreparedTmpfile) && o.stack.Prepare() {
		done = true
	}
	if !o.fast.Load() { // no longer: who has said so may have been too early for this
		o.stack.Relax()
	}
	return done
}

// pace is told when requests begin to come fast, and when they no longer do. It answers whether idle CPUs stay awake.
func (o *Overlay) pace(fast bool) (awake bool) {
	o.fast.Store(fast)
	if !fast {
		o.stack.Relax()
	}
	return o.waker.ask(fast)
}
