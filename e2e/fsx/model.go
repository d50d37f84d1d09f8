package fsx

import (
	"bytes"
	"fmt"

	"golang.org/x/sys/unix"
)

const (
	workers   = 3 // the caller's process and those of the helpers
	fdSlots   = 4 // descriptors of one file in one process
	keptSlots = 2 // mappings of one file in one process
	pageSize  = 4096
)

// file is the expected content of one file, and its open descriptors and mappings.
type file struct {
	name string
	data []byte
	fds  [workers][fdSlots]openFile
	maps [workers][keptSlots]region

	changed  bool // data was written: the upper must have all of it
	mapDirty bool // a mapping was written to since the last writeback
}

// openFile is an open slot.
type openFile struct {
	open  bool
	flags int
}

func (f openFile) readable() bool { return f.open && f.flags&unix.O_ACCMODE != unix.O_WRONLY }
func (f openFile) writable() bool { return f.open && f.flags&unix.O_ACCMODE != unix.O_RDONLY }
func (f openFile) direct() bool   { return f.flags&unix.O_DIRECT != 0 }
func (f openFile) appends() bool  { return f.flags&unix.O_APPEND != 0 }

// region is a mapping that stays. A len of 0 means none.
type region struct{ off, len int64 }

func (f *file) size() int64 { return int64(len(f.data)) }

// resize truncates or extends with zeros.
func (f *file) resize(size int64) {
	if size <= f.size() {
		f.data = f.data[:size]
		return
	}
	if size <= int64(cap(f.data)) {
		old := f.size()
		f.data = f.data[:size]
		clear(f.data[old:])
		return
	}
	grown := make([]byte, size, size+size/2)
	copy(grown, f.data)
	f.data = grown
}

func (f *file) put(off int64, b []byte) {
	if len(b) == 0 {
		return
	}
	if end := off + int64(len(b)); end > f.size() {
		f.resize(end)
	}
	copy(f.data[off:], b)
	f.changed = true
}

func (f *file) zero(off, end int64) {
	if end = min(end, f.size()); off < end {
		clear(f.data[off:end])
	}
	f.changed = true
}

// want is the expected result of a read by a mapping: the bytes of the file, and zeros after its
// end.
func (f *file) want(off, size int64) []byte {
	b := make([]byte, size)
	if off < f.size() {
		copy(b, f.data[off:])
	}
	return b
}

// apply makes the change of an operation to the model, and compares the result of the operation.
func (r *round) apply(w int, o *op, res *result) error {
	if res.Fault != "" {
		return fmt.Errorf("%s", res.Fault)
	}
	if o.Kind == opFallocate {
		return r.applyFallocate(o, res)
	}
	if res.Errno != 0 {
		return fmt.Errorf("%w", res.Errno)
	}
	f := r.files[o.File]
	if err := f.applyData(r, w, o, res); err != nil {
		return err
	}
	return f.compareSize(o, res)
}

func (f *file) compareSize(o *op, res *result) error {
	if o.Size && res.Size != f.size() {
		return fmt.Errorf("the size is %#x, want %#x", res.Size, f.size())
	}
	return nil
}

func (f *file) applyData(r *round, w int, o *op, res *result) error {
	switch o.Kind {
	case opOpen:
		f.fds[w][o.Slot] = openFile{true, o.Flags}
		f.truncated(o.Flags)
	case opTouch:
		f.truncated(o.Flags)
	case opClose:
		f.fds[w][o.Slot] = openFile{}
	case opMap:
		f.maps[w][o.Slot] = region{o.Off, o.Len}
	case opUnmap:
		f.maps[w][o.Slot] = region{}
	case opRead:
		want := f.want(o.Off, max(0, min(o.Len, f.size()-o.Off)))
		return compare(o.Off, res.Data, want)
	case opMapRead, opKeptRead:
		return compare(o.Off, res.Data, f.want(o.Off, o.Len))
	case opWrite:
		f.put(o.Off, bytesOf(o.N, o.Len))
		return whole(o, res)
	case opAppend:
		f.put(f.size(), bytesOf(o.N, o.Len))
		return whole(o, res)
	case opMapWrite, opKeptWrite:
		f.put(o.Off, bytesOf(o.N, o.Len))
		f.mapDirty = true
	case opTruncate, opFtruncate:
		f.changed = f.changed || o.Len != f.size()
		f.resize(o.Len)
	case opCopy:
		from := r.files[o.FromFile]
		want := max(0, min(o.Len, from.size()-o.FromOff))
		if res.N > want || res.N == 0 && want > 0 {
			return fmt.Errorf("copied %#x bytes, want %#x", res.N, want)
		}
		f.put(o.Off, bytes.Clone(from.data[o.FromOff:o.FromOff+res.N]))
	case opFsync, opFdatasync, opWriteBack:
		f.mapDirty = false
	}
	return nil
}

func (f *file) truncated(flags int) {
	if flags&unix.O_TRUNC != 0 {
		f.changed = f.changed || f.size() > 0
		f.resize(0)
	}
}

// whole reports a short write.
func whole(o *op, res *result) error {
	if res.N != o.Len {
		return fmt.Errorf("wrote %#x bytes, want %#x", res.N, o.Len)
	}
	return nil
}

// compare returns an error with the first offset at which bytes differ.
func compare(off int64, got, want []byte) error {
	if bytes.Equal(got, want) {
		return nil
	}
	if len(got) != len(want) {
		return fmt.Errorf("read %#x bytes at %#x, want %#x", len(got), off, len(want))
	}
	first, last, differ, zeros := -1, 0, 0, 0
	for i := range got {
		if got[i] != want[i] {
			if first < 0 {
				first = i
			}
			last = i
			differ++
			if got[i] == 0 {
				zeros++
			}
		}
	}
	return fmt.Errorf("%#x bytes from %#x to %#x differ, %#x of them are zero: got % x, want % x", differ,
		off+int64(first),
		off+int64(last), zeros, got[first:min(first+16, len(got))], want[first:min(first+16, len(want))])
}
