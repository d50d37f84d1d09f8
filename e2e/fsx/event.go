package fsx

import "errors"

// An event is an operation that costs as much as some hundred others, so that a round has one at
// most.

// Of so many rounds one has the event.
const (
	restartEach = 16
	remountEach = 32
	dropAllEach = 32
)

// drawEvent chooses the event of a round, and the number of operations before it.
func (r *round) drawEvent() {
	r.eventAt = r.rng.IntN(OpsOfRound)
	switch {
	case r.cfg.Appends:
	case r.number%restartEach == 1:
		r.event = (*round).restart
	case r.number%remountEach == 3 && r.cfg.Unmount != nil:
		r.event = (*round).remount
	case r.number%dropAllEach == 6 && r.cfg.DropCaches:
		r.event = (*round).dropAll
	}
}

// restart kills a helper, with its descriptors and mappings, and starts another process in its
// place.
func (r *round) restart() error {
	w := 1 + r.rng.IntN(workers-1)
	o := op{Kind: opRestart, Name: "-"}
	r.enter(w, &o, "")
	if err := r.doers[w].(*helper).kill(); err != nil {
		return err
	}
	other, err := startHelper(r.cfg.Dir, r.cfg.Helper())
	if err != nil {
		return err
	}
	r.doers[w] = other
	r.disturbing[w] = false
	for _, f := range r.files {
		clear(f.fds[w][:])
		clear(f.maps[w][:])
	}
	if err := r.judge(w, &o, &result{}); err != nil {
		return err
	}
	return r.readAll()
}

// remount closes everything, mounts the file system anew and compares all files, in the upper too.
func (r *round) remount() error {
	if err := errors.Join(r.stopDisturbers(), r.closeAll()); err != nil {
		return err
	}
	o := op{Kind: opRemount, Name: "-"}
	r.enter(0, &o, "")
	r.cfg.Unmount()
	for _, f := range r.files {
		if r.cfg.Upper != "" && f.changed {
			r.wrong = f.name
			if err := f.checkIn(r.cfg.Upper); err != nil {
				return err
			}
		}
	}
	r.cfg.Mount()
	if err := r.judge(0, &o, &result{}); err != nil {
		return err
	}
	return r.readAll()
}

// dropAll drops the caches of the machine and compares all files.
func (r *round) dropAll() error {
	if err := r.do(0, &op{Kind: opDropAll, Name: "-"}); err != nil {
		return err
	}
	return r.readAll()
}

// readAll compares all files, each as a process of its own sees it.
func (r *round) readAll() error {
	for i, f := range r.files {
		if err := r.readBy(r.someWorker(), i, f); err != nil {
			return err
		}
	}
	return nil
}

// stopDisturbers leaves no operation in progress.
func (r *round) stopDisturbers() error {
	for w := range workers {
		if err := r.do(w, &op{Kind: opDisturb, Name: "-"}); err != nil {
			return err
		}
		r.disturbing[w] = false
	}
	return nil
}
