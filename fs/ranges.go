package fs

import (
	"math"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs/conn/wire"
	"github.com/fuse-overlay/fuse-overlay/internal/host"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// The requests about a range of a file: FALLOCATE, LSEEK and COPY_FILE_RANGE.

// Fallocate answers FALLOCATE. Of its modes the kernel passes on KEEP_SIZE, PUNCH_HOLE and
// ZERO_RANGE (fuse_file_fallocate).
func (o *Overlay) Fallocate(_ <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	n, err := o.node(in.NodeId)
	if err != nil {
		return o.status("fallocate", err)
	}
	if err := o.guard.mayFallocate(n, in.Mode); err != nil {
		return o.status("fallocate", err)
	}
	o.conn.Slow()
	h, err := o.writable(n)
	if err != nil {
		return o.status("fallocate", err)
	}
	defer o.handles.Release(h)
	return o.status("fallocate", o.changeData(n, h, &in.InHeader, func(f *sys.File) error {
		if in.Mode&(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_ZERO_RANGE) != 0 {
			return o.clearRange(n, f, in)
		}
		return f.Fallocate(in.Mode, int64(in.Offset), int64(in.Length))
	}))
}

// clearRange writes zeros to a range of the file. The kernel clears the range in its pages only
// after the reply, and in memory alone. If a mapping changes a page beside the range meanwhile, the
// writeback of that page brings the old bytes. So what the page cache writes back to the range is
// ignored here. Pages that lie only partly in the range are dropped before the reply.
func (o *Overlay) clearRange(n *Node, f *sys.File, in *fuse.FallocateIn) error {
	from, size := int64(in.Offset), int64(in.Length)
	o.ranges.begin(n, rangeChange{size: math.MaxInt64, from: from, to: from + size})
	defer o.ranges.end(n)
	if err := f.Fallocate(in.Mode, from, size); err != nil {
		return err
	}
	if page := int64(host.PageSize()); from%page != 0 || (from+size)%page != 0 {
		o.kernel.dropPages(n.ID(), from, size)
	}
	return nil
}

// Lseek answers LSEEK: where data or a hole begins. The kernel does not write its dirty pages back
// before the request, and a copy of the file would take them for a hole. So they are invalidated,
// which writes them. That costs the file's clean pages, but only programs that copy sparse files
// send LSEEK.
func (o *Overlay) Lseek(_ <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	n, err := o.node(in.NodeId)
	if err != nil {
		return o.status("lseek", err)
	}
	if o.stack.Writable() {
		o.kernel.dropPages(n.ID(), int64(in.Offset), 0)
	}
	h, err := o.passthrough.readable(n, in.NodeId)
	if err != nil {
		return o.status("lseek", err)
	}
	defer o.handles.Release(h)
	off, err := h.Value.file.Seek(int64(in.Offset), int(in.Whence))
	out.Offset = uint64(off)
	return o.status("lseek", err)
}

// CopyFileRange answers COPY_FILE_RANGE. It shares the data if the file system can.
//
// After the reply the kernel drops each page that the range touches, even partly. With it goes what
// a mapping has written to the rest of that page since the last writeback (__fuse_copy_file_range).
// So only whole pages of the target are copied, and its end. For the rest, EOPNOTSUPP has the
// kernel copy by way of the page cache.
func (o *Overlay) CopyFileRange(_ <-chan struct{}, in *fuse.CopyFileRangeIn) (uint32, fuse.Status) {
	src, err := o.node(in.NodeId)
	if err != nil {
		return 0, o.status("copy_file_range", err)
	}
	dst, err := o.node(in.NodeIdOut)
	if err != nil {
		return 0, o.status("copy_file_range", err)
	}
	if err := o.guard.mayChange(dst); err != nil {
		return 0, o.status("copy_file_range", err)
	}
	o.conn.Slow()
	to, err := o.writable(dst) // first: source and target may be one file
	if err != nil {
		return 0, o.status("copy_file_range", err)
	}
	defer o.handles.Release(to)
	from, err := o.passthrough.readable(src, in.NodeId)
	if err != nil {
		return 0, o.status("copy_file_range", err)
	}
	defer o.handles.Release(from)
	const largest = math.MaxInt32 &^ 0xfff
	length, err := wholePages(from.Value.file, to.Value.file, int64(in.OffIn), int64(in.OffOut), int64(min(in.Len, largest)))
	if err != nil {
		return 0, o.status("copy_file_range", err)
	}
	done := 0
	err = o.changeData(dst, to, &in.InHeader, func(f *sys.File) (err error) {
		done, err = f.CopyRange(from.Value.file, int64(in.OffIn), int64(in.OffOut), int(length))
		return err
	})
	return uint32(done), o.status("copy_file_range", err)
}

// wholePages returns how much of a copy leaves no page of the target partly as it was; EOPNOTSUPP:
// nothing.
func wholePages(from, to *sys.File, offFrom, offTo, length int64) (int64, error) {
	var source, target sys.Stat
	if err := from.Ref().Stat(&source); err != nil {
		return 0, err
	}
	if err := to.Ref().Stat(&target); err != nil {
		return 0, err
	}
	length = min(length, source.Size-offFrom)
	if length <= 0 {
		return 0, nil // at the end of the source
	}
	if offTo%wire.PageSize != 0 {
		return 0, unix.EOPNOTSUPP
	}
	if end := offTo + length; end < target.Size {
		length -= end % wire.PageSize
	}
	if length <= 0 {
		return 0, unix.EOPNOTSUPP
	}
	return length, nil
}
