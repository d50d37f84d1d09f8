package ondisk

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

func TestOriginAttributes(t *testing.T) {
	for _, ns := range []Namespace{Trusted, User, NoXattrs} {
		d := open(t, t.TempDir())
		must(t, d.Mkdir("d", 0o755))
		sub, err := d.OpenDir("d")
		must(t, err)
		defer sub.Close()
		must(t, ns.SetImpure(sub))
		names, err := sub.Ref().ListXattr()
		must(t, err)
		var x DirXattrs
		for _, name := range names {
			if ns, attr, ok := both.Parse(name); ok {
				must(t, x.Read(sub.Ref(), ns, attr))
			}
		}
		if x.Impure != (ns != NoXattrs) {
			t.Errorf("%d: %+v", ns, x)
		}
		if _, ok, err := ns.Origin(d.At("d")); ok || err != nil {
			t.Errorf("%d: an origin where there is none: %v", ns, err)
		}
		if ns == NoXattrs {
			continue
		}
		must(t, d.At("d").SetXattr(ns.Name(Origin), bytesOf(t, kernelWrote), 0))
		if h, ok, err := ns.Origin(d.At("d")); !ok || err != nil || h.Type != 1 {
			t.Errorf("%d: %+v, %v, %v", ns, h, ok, err)
		}
		for call, errno := range map[string]unix.Errno{"setxattr": unix.EIO, "getxattr": unix.EIO} {
			refusing(func(op sys.Op) bool { return op.Call == call }, errno, func() {
				_, _, err := ns.Origin(d.At("d"))
				if call == "setxattr" {
					err = ns.SetImpure(sub)
				}
				if err != errno {
					t.Errorf("%d, failing %s: %v", ns, call, err)
				}
			})
		}
		refusing(func(op sys.Op) bool { return op.Call == "setxattr" }, unix.EOPNOTSUPP, func() { must(t, ns.SetImpure(sub)) })
	}
}

// An object with an origin, or without its data, is a copy.
func TestIsCopy(t *testing.T) {
	for _, ns := range []Namespace{Trusted, User, NoXattrs} {
		for _, attr := range []Attr{Origin, Metacopy, Impure} {
			d := open(t, t.TempDir())
			must(t, d.Mkdir("d", 0o755))
			if is, err := ns.IsCopy(d.At("d")); is || err != nil {
				t.Errorf("%d: a new object is a copy: %t, %v", ns, is, err)
			}
			name := Trusted.Name(attr)
			if ns != NoXattrs {
				name = ns.Name(attr)
			}
			must(t, d.At("d").SetXattr(name, bytesOf(t, kernelWrote), 0))
			want := ns != NoXattrs && attr != Impure
			if is, err := ns.IsCopy(d.At("d")); is != want || err != nil {
				t.Errorf("%d: an object with %s is a copy: %t, %v; want %t", ns, name, is, err, want)
			}
		}
	}
	d := open(t, t.TempDir())
	must(t, d.Mkdir("d", 0o755))
	for errno, want := range map[unix.Errno]error{unix.EIO: unix.EIO, unix.EOPNOTSUPP: nil, unix.EPERM: nil} {
		refusing(func(op sys.Op) bool { return op.Call == "getxattr" }, errno, func() {
			if is, err := Trusted.IsCopy(d.At("d")); is || err != want {
				t.Errorf("%v: %t, %v, want %v", errno, is, err, want)
			}
		})
	}
}

// A directory holds the handle of one other directory.
func TestVerifyHandle(t *testing.T) {
	f := Trusted
	one, _ := ParseHandle(bytesOf(t, kernelWrote))
	other := one
	other.ID = "12345678"
	for _, upper := range []bool{false, true} {
		d := open(t, t.TempDir())
		one.Upper, other.Upper = upper, upper
		if err := f.VerifyHandle(d.Ref(), one); err != unix.ENODATA {
			t.Errorf("before: %v", err)
		}
		must(t, d.Ref().SetXattr(f.handleXattr(one), nil, 0))
		if err := f.VerifyHandle(d.Ref(), one); err != unix.ENODATA {
			t.Errorf("to what is not known: %v", err)
		}
		must(t, f.SetHandle(d.Ref(), one))
		must(t, f.VerifyHandle(d.Ref(), one))
		if err := f.VerifyHandle(d.Ref(), other); err != unix.ESTALE {
			t.Errorf("to another: %v", err)
		}
	}
}
