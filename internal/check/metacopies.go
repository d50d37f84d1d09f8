package check

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/ondisk"
	"github.com/fuse-overlay/fuse-overlay/internal/quote"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/internal/view"
)

// metacopy checks a regular file whose data is in a layer below.
func (w *layerWalk) metacopy(o *object) error {
	x, err := w.names.ReadFile(o.ref)
	switch {
	case err == unix.EINVAL:
		w.add(InvalidMetacopy, o.path, "", nil)
		return nil
	case err != nil:
		w.unreadable(o.path, err)
		return nil
	case x.Redirect != "" && !ondisk.ValidRedirect(x.Redirect):
		w.add(InvalidRedirect, o.path, quote.Path(x.Redirect), nil)
		return nil
	case w.alone:
		return nil
	}
	parent, err := w.selfNode(o.in)
	if parent == nil || err != nil {
		return err
	}
	n, err := parent.Lookup(o.name)
	defer n.Forget()
	switch {
	case err == unix.EPERM:
		w.add(UntrustedMetacopy, o.path, "", nil)
	case err != nil:
		w.lacksData(o, &x, err)
	case n != nil && x.Digest != sys.Digest{} && w.isUpper():
		return w.digest(o, n, &x)
	case n != nil:
		w.lastByte(o, n, &x)
	}
	return nil
}

// lacksData reports a metacopy that cannot be looked up or read.
func (w *layerWalk) lacksData(o *object, x *ondisk.FileXattrs, err error) {
	detail := ""
	if x.Redirect != "" {
		detail = "its redirect is " + quote.Path(x.Redirect)
	}
	if err == unix.EIO {
		w.add(BrokenMetacopy, o.path, detail, nil)
		return
	}
	w.unreadable(o.path, err)
}

// lastByte reads the last byte of a metacopy, to learn whether the data is there.
func (w *layerWalk) lastByte(o *object, n *view.Node, x *ondisk.FileXattrs) bool {
	if n.Size == 0 {
		return true
	}
	switch got, err := n.ReadAt(make([]byte, 1), n.Size-1); {
	case err != nil:
		w.lacksData(o, x, err)
	case got == 0:
		w.add(ShortData, o.path, fmt.Sprintf("%d bytes are expected", n.Size), nil)
	default:
		return true
	}
	return false
}

// digest checks the data of a metacopy that has a digest.
func (w *layerWalk) digest(o *object, n *view.Node, x *ondisk.FileXattrs) error {
	if n.Size == 0 || !w.lastByte(o, n, x) {
		return nil
	}
	v, err := w.withDigests()
	if err != nil {
		return err
	}
	checked, err := v.Lookup(o.path)
	defer checked.Forget()
	if err == nil && checked != nil {
		_, err = checked.ReadAt(make([]byte, 1), n.Size-1)
	}
	if err != nil {
		w.add(OtherData, o.path, "", nil)
	}
	return nil
}
