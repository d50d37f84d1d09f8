package fs

import (
	"errors"
	"fmt"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// xattr requests an attribute, as the kernel does.
func (k *kernel) xattr(id uint64, name string) (string, error) {
	value := make([]byte, 100)
	h := k.header(id)
	n, status := k.o.GetXAttr(nil, &h, name, value)
	return string(value[:n]), errorOf(status)
}

// xattrs requests the names of all.
func (k *kernel) xattrs(id uint64) (string, error) {
	value := make([]byte, 100)
	h := k.header(id)
	n, status := k.o.ListXAttr(nil, &h, value)
	return string(value[:n]), errorOf(status)
}

// A program that compares trees (podman, of every layer that it builds) requests a capability and
// the list of every file. That is one call for an object without attributes, and none after it.
func TestAbsentXattrsCostNothingAgain(t *testing.T) {
	s := newSite(t, "file up", "file low\ndir d\nsymlink l x\nfile noted\nxattr noted user.note x")
	for _, name := range []string{"up", "low", "d", "l"} {
		id, err := s.walk(name)
		must(t, err)
		send := func() {
			_, err := s.xattr(id, capability)
			want(t, name, err, unix.ENODATA)
			_, err = s.xattr(id, "user.other")
			want(t, name, err, unix.ENODATA)
			if list, err := s.xattrs(id); list != "" || err != nil {
				t.Errorf("%s: the list is %q, %v", name, list, err)
			}
		}
		if made := fmt.Sprint(names(calls(send))); made != "[listxattr]" {
			t.Errorf("%s: asking costs %s", name, made)
		}
		if made := names(calls(send)); len(made) > 0 {
			t.Errorf("%s: asking again costs %v", name, made)
		}
		_, err = s.xattr(id, "ceph.made.up")
		want(t, "an attribute that need not be listed", err, unix.EOPNOTSUPP)
	}
	id, err := s.walk("noted")
	must(t, err)
	for range 2 {
		_, err := s.xattr(id, capability)
		want(t, "an attribute it has not", err, unix.ENODATA)
		if v, err := s.xattr(id, "user.note"); v != "x" || err != nil {
			t.Errorf("an attribute it has: %q, %v", v, err)
		}
	}
}

// An attribute that is set is there from then on, whatever was known before.
func TestXattrsAreNotMissedOnceSet(t *testing.T) {
	for what, set := range map[string]func(s *site, id uint64) error{
		"set": func(s *site, _ uint64) error { return s.setxattr("d/f", "user.late", "v")() },
		"set, and then an error": func(s *site, id uint64) error {
			done := false
			sys.SetFault(func(op sys.Op) error {
				if done && op.Call == "fstatat" {
					return unix.EIO
				}
				done = done || op.Name == "user.late"
				return nil
			})
			defer sys.SetFault(nil)
			in := fuse.SetXAttrIn{InHeader: s.header(id), Size: 1, SetXAttrFlags: fuse.SETXATTR_ACL_KILL_SGID}
			if err := errorOf(s.o.SetXAttr(nil, &in, "user.late", []byte("v"))); err != unix.EIO {
				return fmt.Errorf("got %v, want EIO", err)
			}
			return nil
		},
		"set while somebody looks": func(s *site, id uint64) error {
			n, err := s.o.node(id)
			must(s.t, err)
			s.do(s.setxattr("d/f", "user.other", "")) // so that nothing else of the node changes below
			s.do(s.removexattr("d/f", "user.other"))
			before := n.flags.load()
			err = s.setxattr("d/f", "user.late", "v")()
			n.noteNoXattrs(before) // as a request that has read them before
			return err
		},
	} {
		for _, known := range []bool{true, false} {
			s := newSite(t, "", "file d/f")
			id, err := s.walk("d/f")
			must(t, err)
			if known {
				_, err = s.xattr(id, capability)
				want(t, what, err, unix.ENODATA)
			}
			must(t, set(s, id))
			if v, err := s.xattr(id, "user.late"); v != "v" || err != nil {
				t.Errorf("%s: %q, %v", what, v, err)
			}
			if list, err := s.xattrs(id); list != "user.late\x00" || err != nil {
				t.Errorf("%s: the list is %q, %v", what, list, err)
			}
			s.do(s.removexattr("d/f", "user.late"))
			_, err = s.xattr(id, "user.late")
			want(t, what+", and removed", err, unix.ENODATA)
		}
	}
}

// If another object gets the name during a request, the request does not return its attributes.
func TestXattrsAreOfTheObjectAskedFor(t *testing.T) {
	for _, call := range []string{"listxattr", "getxattr"} {
		s := newSite(t, "file d/f\nxattr d/f user.note x", "dir d")
		id, err := s.walk("d/f")
		must(t, err)
		unlink, mknod, met := s.unlink("d/f"), s.mknod("d/f", unix.S_IFREG|0o644, 0), false
		done := make(chan error, 1)
		sys.SetFault(func(op sys.Op) error {
			if op.Call == call {
				met = true
				sys.SetFault(nil)
				go func() { done <- errors.Join(unlink(), mknod()) }() // which wait
			}
			return nil
		})
		_, err = s.xattr(id, "user.none")
		sys.SetFault(nil)
		must(t, <-done)
		want(t, "an attribute that neither has", err, unix.ENODATA)
		if v, err := s.xattr(id, "user.note"); v != "x" || err != nil || !met {
			t.Errorf("%s: the removed file's attribute: %q, %v (met: %v)", call, v, err, met)
		}
	}
}
