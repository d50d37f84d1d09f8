package ocilayer

import (
	"archive/tar"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/quote"
	"github.com/fuse-overlay/fuse-overlay/internal/view"
)

// xattrPrefix begins the PAX records of extended attributes, as star, GNU tar and libarchive name
// them.
const xattrPrefix = "SCHILY.xattr."

var errShrunk = errors.New("has become shorter while it was read")

// write writes one object.
func (w *Writer) write(p string, n *view.Node) error {
	h, err := w.header(p, n)
	if err == nil {
		err = w.tar.WriteHeader(h)
	}
	if err == nil && h.Typeflag == tar.TypeReg {
		err = w.data(n)
	}
	return failed(p, err)
}

// header describes an object. For a further name of a file it is a link to the first one.
func (w *Writer) header(p string, n *view.Node) (*tar.Header, error) {
	h := &tar.Header{
		Format: tar.FormatPAX, Name: p, Mode: int64(n.Mode & 0o7777), Uid: int(n.UID), Gid: int(n.GID),
		ModTime: time.Unix(n.Mtime.Unix()),
	}
	if !n.IsDir() && n.Nlink > 1 {
		if first, ok := w.names[n.Ino]; ok {
			h.Typeflag, h.Linkname = tar.TypeLink, first
			return h, nil
		}
		w.names[n.Ino] = p
	}
	var err error
	switch n.Type() {
	case unix.S_IFREG:
		h.Typeflag, h.Size = tar.TypeReg, n.Size
	case unix.S_IFDIR:
		h.Typeflag, h.Name = tar.TypeDir, strings.TrimSuffix(p, "/")+"/"
	case unix.S_IFLNK:
		h.Typeflag = tar.TypeSymlink
		h.Linkname, err = n.Readlink()
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	case unix.S_IFCHR, unix.S_IFBLK:
		h.Typeflag = tar.TypeChar
		if n.Type() == unix.S_IFBLK {
			h.Typeflag = tar.TypeBlock
		}
		h.Devmajor, h.Devminor = int64(unix.Major(n.Rdev)), int64(unix.Minor(n.Rdev))
	}
	if err != nil {
		return nil, err
	}
	xattrs, err := n.Xattrs()
	for name, value := range xattrs {
		if strings.Contains(name, "=") {
			return nil, fmt.Errorf("%w: %s", errXattrName, quote.Word(name))
		}
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords[xattrPrefix+name] = value
	}
	return h, err
}

// data writes the data of a file. Holes become zeroes: layers should have no sparse entries, which
// programs read in different ways (OCI Image Format Specification, layer.md, "Sparse Files").
func (w *Writer) data(n *view.Node) error {
	for off := int64(0); off < n.Size; {
		got, err := n.ReadAt(w.buf[:min(n.Size-off, bufferSize)], off)
		if err != nil {
			return err
		}
		if got == 0 {
			return errShrunk
		}
		if _, err := w.tar.Write(w.buf[:got]); err != nil {
			return err
		}
		off += int64(got)
	}
	return nil
}
