package view

import (
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs"
)

// View is an open overlay. Any number of goroutines may use it.
type View struct{ overlay *fs.Overlay }

// Open opens the layers for reading. Of cfg the layers count, and what decides how their objects
// look. Work is read for its index, with Features.Index. An error is one line that names the
// directory and the reason.
func Open(cfg fs.Config) (*View, error) {
	cfg.ReadOnly, cfg.BesideOther = true, false
	cfg.LayersChange = true // a lookup lists no directory
	cfg.StaticNlink = true  // the link count of a directory would need its listing
	overlay, err := fs.Open(cfg)
	if err != nil {
		return nil, err
	}
	return &View{overlay}, nil
}

// Close closes the layers. No node of the view may be used any more.
func (v *View) Close() { v.overlay.Close() }

// ShowsACLs reports whether POSIX ACLs of the layers are visible.
func (v *View) ShowsACLs() bool { return v.overlay.ShowsACLs() }

// Root returns the root of the tree.
func (v *View) Root() (*Node, error) {
	in := fuse.GetAttrIn{InHeader: header(fuse.FUSE_ROOT_ID)}
	var out fuse.AttrOut
	if err := errorOf(v.overlay.GetAttr(nil, &in, &out)); err != nil {
		return nil, err
	}
	return &Node{view: v, id: fuse.FUSE_ROOT_ID, Attr: attrOf(&out.Attr)}, nil
}

// Lookup returns the object at a path of names between single slashes, below the root; "" is the
// root. It returns nil if there is none. It follows no symbolic link.
func (v *View) Lookup(path string) (*Node, error) {
	n, err := v.Root()
	if err != nil || path == "" {
		return n, err
	}
	for name := range strings.SplitSeq(path, "/") {
		if !n.IsDir() {
			n.Forget()
			return nil, nil
		}
		child, err := n.Lookup(name)
		n.Forget()
		if child == nil || err != nil {
			return nil, err
		}
		n = child
	}
	return n, nil
}

func header(id uint64) fuse.InHeader { return fuse.InHeader{NodeId: id} }

func errorOf(s fuse.Status) error {
	if s == fuse.OK {
		return nil
	}
	return unix.Errno(s)
}
