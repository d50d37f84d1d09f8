package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/owner"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// bulk is the size, in bytes, of a request for a part of a large file. Other requests do not wait
// for such a READ.
const bulk = 128 << 10

// Read answers READ.
func (o *Overlay) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	n, status := o.ReadData(in, buf)
	if status != fuse.OK {
		return nil, status
	}
	return fuse.ReadResultData(buf[:n]), fuse.OK
}

// ReadData fills buf as far as there is data.
func (o *Overlay) ReadData(in *fuse.ReadIn, buf []byte) (int, fuse.Status) {
	n, err := o.node(in.NodeId)
	if err != nil {
		return 0, o.status("read", err)
	}
	switch {
	case len(buf) >= bulk:
		o.conn.Slow()
	case in.Offset == 0 && !o.cfg.LayersChange:
		if got, ok := o.prefetch.take(n, buf); ok {
			return got, fuse.OK
		}
	}
	if !readsDirectly(in) {
		n.willRead()
	}
	if got, done := o.readQuietly(n, in, buf); done {
		return got, fuse.OK
	}
	h, err := o.passthrough.readable(n, in.NodeId)
	if err != nil {
		return 0, o.status("read", err)
	}
	defer o.handles.Release(h)
	if data := h.Value.data; data != nil {
		buf = buf[:data.Within(int64(in.Offset), len(buf))]
	}
	got, err := h.Value.file.Pread(buf, int64(in.Offset))
	return got, o.status("read", err)
}

// WithData calls f with the file of a layer that has the data of a regular file, for reading. Only
// as many bytes as the object has belong to the object: the file may be longer.
func (o *Overlay) WithData(id uint64, f func(*sys.File) error) error {
	n, err := o.node(id)
	if err != nil {
		return err
	}
	h, err := o.file(n, forReading)
	if err != nil {
		return err
	}
	defer o.handles.Release(h)
	return f(h.Value.file)
}

// Readlink answers READLINK; the kernel keeps the answer.
func (o *Overlay) Readlink(_ <-chan struct{}, h *fuse.InHeader) ([]byte, fuse.Status) {
	n, err := o.node(h.NodeId)
	if err != nil {
		return nil, o.status("readlink", err)
	}
	if n.kind != unix.S_IFLNK {
		return nil, fuse.EINVAL
	}
	var target string
	err = o.with(n, func(r owner.Ref) (err error) { target, err = r.Readlink(); return err })
	return []byte(target), o.status("readlink", err)
}
