package fsx

import "golang.org/x/sys/unix"

// Operations on descriptors, and those that neither read nor write data.

// genOpen opens a file in one of the ways that programs do.
func (r *round) genOpen(f int) (int, op, bool) {
	flags := []int{
		unix.O_RDONLY, unix.O_RDONLY, unix.O_RDWR, unix.O_RDWR, unix.O_WRONLY, unix.O_RDWR | unix.O_APPEND,
		unix.O_WRONLY | unix.O_APPEND,
		unix.O_RDWR | unix.O_DIRECT, unix.O_RDONLY | unix.O_DIRECT, unix.O_RDWR | unix.O_CREAT,
	}[r.rng.IntN(10)]
	switch r.rng.IntN(100) {
	case 0, 1:
		flags |= unix.O_TRUNC
		if flags&unix.O_ACCMODE == unix.O_RDONLY {
			flags = unix.O_WRONLY | unix.O_TRUNC
		}
	case 2:
		flags |= unix.O_DSYNC
	}
	return r.openAs(f, flags)
}

func (r *round) genClose(f int) (int, op, bool) {
	w, n, ok := r.pick(f, func(openFile) bool { return true })
	return w, op{Kind: opClose, Slot: n}, ok
}

func (r *round) genTouch(int) (int, op, bool) {
	flags := []int{unix.O_RDONLY, unix.O_RDWR, unix.O_WRONLY}[r.rng.IntN(3)]
	return r.someWorker(), op{Kind: opTouch, Slot: noSlot, Flags: flags}, true
}

func (r *round) genPath(int) (int, op, bool) {
	return r.someWorker(), op{Kind: r.kind, Slot: noSlot, Size: true, Flags: []int{0o644, 0o600, 0o640}[r.rng.IntN(3)]},
		true
}

func (r *round) genSync(f int) (int, op, bool) {
	w, n, ok := r.pick(f, func(openFile) bool { return true })
	o := op{Kind: r.kind, Slot: n}
	if r.kind == opStartBack {
		o.Off = r.offset(f, r.maxSize)
	}
	return w, o, ok
}

// genDisturb begins or stops to disturb.
func (r *round) genDisturb(int) (int, op, bool) {
	w := r.someWorker()
	r.disturbing[w] = !r.disturbing[w] || r.cfg.Appends
	o := op{Kind: opDisturb, Slot: noSlot}
	if r.disturbing[w] {
		o.Flags = 1
		for _, f := range r.files {
			o.Names = append(o.Names, f.name)
		}
	}
	return w, o, true
}
