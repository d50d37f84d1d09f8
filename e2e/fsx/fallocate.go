package fsx

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// modes are the modes of fallocate(2) that operations use. Those at the front are used more often.
var modes = []struct {
	flags int
	name  string
}{
	{0, "plain"},
	{unix.FALLOC_FL_KEEP_SIZE, "keep size"},
	{unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE, "punch hole"},
	{unix.FALLOC_FL_ZERO_RANGE, "zero range"},
	{unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE, "zero range, keep size"},
	{unix.FALLOC_FL_COLLAPSE_RANGE, "collapse range"},
	{unix.FALLOC_FL_INSERT_RANGE, "insert range"},
	{unix.FALLOC_FL_UNSHARE_RANGE, "unshare range"},
	{unix.FALLOC_FL_UNSHARE_RANGE | unix.FALLOC_FL_KEEP_SIZE, "unshare range, keep size"},
	{unix.FALLOC_FL_PUNCH_HOLE, "punch hole, grow"}, // no file system has it
}

// frequentModes is the number of modes that every file system has.
const frequentModes = 5

func nameOfMode(flags int) string {
	for _, m := range modes {
		if m.flags == flags {
			return m.name
		}
	}
	return fmt.Sprintf("mode %#x", flags)
}

// MissingOnFUSE are the modes that Linux does not send to a FUSE server.
func MissingOnFUSE() []int {
	return []int{
		unix.FALLOC_FL_COLLAPSE_RANGE, unix.FALLOC_FL_INSERT_RANGE, unix.FALLOC_FL_UNSHARE_RANGE,
		unix.FALLOC_FL_UNSHARE_RANGE | unix.FALLOC_FL_KEEP_SIZE, unix.FALLOC_FL_PUNCH_HOLE,
	}
}

// MissingModes tries all modes in a folder and returns those that its file system does not have.
func MissingModes(dir string) (missing []int, err error) {
	f, err := os.CreateTemp(dir, "modes")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	for _, m := range modes {
		if err := f.Truncate(4 * pageSize); err != nil {
			return nil, err
		}
		switch err := unix.Fallocate(int(f.Fd()), uint32(m.flags), pageSize, pageSize); err {
		case nil:
		case unix.EOPNOTSUPP:
			missing = append(missing, m.flags)
		default:
			return nil, fmt.Errorf("fallocate, %s: %w", m.name, err)
		}
	}
	return missing, nil
}

// moves reports whether fallocate in a mode moves the bytes after the range.
func moves(flags int) bool {
	return flags&(unix.FALLOC_FL_COLLAPSE_RANGE|unix.FALLOC_FL_INSERT_RANGE) != 0
}

func (r *round) genFallocate(f int) (int, op, bool) {
	w, n, ok := r.pick(f, openFile.writable)
	if !ok {
		return r.openAs(f, unix.O_RDWR)
	}
	mode := modes[r.rng.IntN(frequentModes)].flags
	if r.rng.IntN(4) == 0 {
		mode = modes[frequentModes+r.rng.IntN(len(modes)-frequentModes)].flags
	}
	off := r.offset(f, r.maxSize-1)
	size := r.length(r.maxSize - off)
	if moves(mode) {
		size = (r.length(r.maxSize/8) + pageSize - 1) &^ (pageSize - 1)
		if r.rng.IntN(4) > 0 { // otherwise an error, mostly
			off &^= pageSize - 1
		}
		if mode == unix.FALLOC_FL_INSERT_RANGE && r.files[f].size()+size > r.maxSize {
			return 0, op{}, false
		}
	}
	return w, op{Kind: opFallocate, Slot: n, Off: off, Len: size, Flags: mode, Size: true}, true
}

// wantErrno is the result that fallocate must have.
func (r *round) wantErrno(f *file, o *op) unix.Errno {
	switch {
	case slices.Contains(r.cfg.Missing, o.Flags):
		return unix.EOPNOTSUPP
	case moves(o.Flags) && o.Off%pageSize != 0,
		o.Flags == unix.FALLOC_FL_COLLAPSE_RANGE && o.Off+o.Len >= f.size(),
		o.Flags == unix.FALLOC_FL_INSERT_RANGE && o.Off >= f.size():
		return unix.EINVAL
	}
	return 0
}

// applyFallocate compares the result of fallocate. A call that fails changes nothing.
func (r *round) applyFallocate(o *op, res *result) error {
	f := r.files[o.File]
	if want := r.wantErrno(f, o); res.Errno != want {
		return fmt.Errorf("%w, want %w", res.Errno, want)
	}
	if res.Errno == 0 {
		f.fallocate(o)
	}
	return f.compareSize(o, res)
}

// fallocate changes the model.
func (f *file) fallocate(o *op) {
	end := o.Off + o.Len
	switch o.Flags {
	case unix.FALLOC_FL_COLLAPSE_RANGE:
		f.data = slices.Delete(f.data, int(o.Off), int(end))
		f.changed = true
		return
	case unix.FALLOC_FL_INSERT_RANGE:
		f.data = slices.Insert(f.data, int(o.Off), make([]byte, o.Len)...)
		f.changed = true
		return
	}
	if o.Flags&unix.FALLOC_FL_KEEP_SIZE == 0 && end > f.size() {
		f.resize(end)
		f.changed = true
	}
	if o.Flags&(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_ZERO_RANGE) != 0 {
		f.zero(o.Off, end)
	}
}
