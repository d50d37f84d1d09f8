package copyup

import (
	"sync"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

const (
	// copyChunk is the most that one copy_file_range copies, in bytes. A killed daemon ends after
	// the chunk, not after the file. The disk writes one chunk while the kernel copies the next.
	copyChunk = 16 << 20
	// bufferSize is the size of a read and a write in bytes, if the kernel cannot copy by itself.
	bufferSize = 1 << 20
	// minSlowBytes is the smallest copy for which a copy-up calls [Copier].Slow. From the page cache
	// such a copy takes about 0.3 ms, longer than the wake-up of another thread.
	minSlowBytes = 1 << 20
)

var buffers = sync.Pool{New: func() any { b := make([]byte, bufferSize); return &b }}

// deviceSet is a set of source devices for which the kernel refuses a call, whatever the file. A
// wrong entry costs time, never data.
type deviceSet struct{ m sync.Map }

func (s *deviceSet) has(dev uint64) bool { _, ok := s.m.Load(dev); return ok }
func (s *deviceSet) add(dev uint64)      { s.m.Store(dev, struct{}{}) }

// copyData copies the data into the empty file of s. st are the attributes of the source.
func (c *Copier) copyData(s *Staged, st *sys.Stat, data Data) error {
	from, amount := data.From, data.Amount
	switch {
	case amount.extent == hole:
		return s.file.Truncate(st.Size)
	case from == nil && amount.size == 0:
		return nil
	case from == nil:
		return s.file.Truncate(amount.size)
	}
	s.hasData = true
	end, err := c.fill(s.file, from, data.st, amount.Of(st.Size))
	if err != nil {
		return err
	}
	final := amount.size
	if amount.extent == whole {
		final = st.Size
		if end < final { // a hole ends the source, or it has shrunk: then the copy gets no zeros
			var now sys.Stat
			if err := from.Ref().Stat(&now); err != nil {
				return err
			}
			final = min(final, max(now.Size, end))
		}
	}
	if final == end {
		return nil
	}
	return s.file.Truncate(final)
}

// fill copies at least the first limit bytes. It returns the offset at which to ends now: fill does
// not copy a hole at the end. st are the attributes of from.
func (c *Copier) fill(to, from *sys.File, st *sys.Stat, limit int64) (end int64, err error) {
	if limit >= minSlowBytes {
		c.slow()
	}
	if !c.noClone.has(st.Dev) {
		switch err := to.Clone(from); {
		case err == nil:
			var now sys.Stat
			err := to.Ref().Stat(&now)
			return now.Size, err
		case refusedForAll(err):
			c.noClone.add(st.Dev)
		case !refused(err):
			return 0, err
		}
	}
	dense := st.Blocks*512 >= st.Size // no holes, or only small ones
	for off := int64(0); off < limit; {
		start, stop, err := off, limit, error(nil)
		if !dense {
			start, stop, err = nextExtent(from, off, limit)
		}
		if err != nil {
			return 0, err
		}
		if start >= limit {
			break
		}
		off = stop
		copied, err := c.copyExtent(to, from, st.Dev, start, stop)
		if err != nil {
			return 0, err
		}
		if copied > start {
			end = copied
		}
		if copied < stop { // the source ends here now
			break
		}
	}
	return end, nil
}

// nextExtent returns the next extent of data from off on. If there is none, start is limit. If the
// file system does not report holes, the extent ends at limit.
func nextExtent(from *sys.File, off, limit int64) (start, stop int64, err error) {
	start, err = from.Seek(off, unix.SEEK_DATA)
	switch {
	case err == unix.ENXIO:
		return limit, limit, nil
	case refused(err):
		return off, limit, nil
	case err != nil:
		return 0, 0, err
	}
	start = min(max(start, off), limit)
	stop, err = from.Seek(start, unix.SEEK_HOLE)
	switch {
	case err == unix.ENXIO || refused(err): // a process has truncated the file: a read finds the end
		return start, limit, nil
	case err != nil:
		return 0, 0, err
	case stop <= start: // invalid: a read finds the end
		return start, limit, nil
	}
	return start, min(stop, limit), nil
}

// copyExtent copies the bytes from off to stop. It returns the offset that it reached. Without an
// error that is less than stop only if the source ends there.
func (c *Copier) copyExtent(to, from *sys.File, dev uint64, off, stop int64) (int64, error) {
	for off < stop && !c.noCopyRange.has(dev) {
		n, err := to.CopyRange(from, off, off, int(min(stop-off, copyChunk)))
		if refusedForAll(err) {
			c.noCopyRange.add(dev)
			break
		}
		if refused(err) || (err == nil && n == 0) { // some file systems return 0 where a read finds data
			break
		}
		if err != nil {
			return off, err
		}
		off += int64(n)
		if c.Sync && n == copyChunk {
			if err := to.StartWriteBack(off-int64(n), int64(n)); err != nil && !refused(err) {
				return off, err
			}
		}
	}
	if off >= stop {
		return off, nil
	}
	return copyThroughMemory(to, from, off, stop)
}

func copyThroughMemory(to, from *sys.File, off, stop int64) (int64, error) {
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	for off < stop {
		n, err := from.Pread((*buf)[:min(stop-off, bufferSize)], off)
		if err != nil {
			return off, err
		}
		if n == 0 {
			break
		}
		if _, err := to.Pwrite((*buf)[:n], off); err != nil {
			return off, err
		}
		off += int64(n)
	}
	return off, nil
}

// refusedForAll reports whether the kernel refuses the call between the two file systems, whatever
// the file.
func refusedForAll(err error) bool {
	return err == unix.EXDEV || err == unix.EOPNOTSUPP || err == unix.ENOSYS || err == unix.ENOTTY
}

// refused reports whether the kernel refuses the call here. Then the caller tries a simpler call,
// and returns the error of that one. EPERM comes from seccomp filters and for immutable sources,
// ETXTBSY for swap files. Errors of the disk are not refusals.
func refused(err error) bool {
	return refusedForAll(err) || err == unix.EINVAL || err == unix.EPERM || err == unix.ETXTBSY
}
