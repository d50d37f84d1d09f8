package ondisk

import (
	"encoding/hex"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// What Linux 6.18 wrote for a file of an ext4 file system.
const kernelWrote = "00fb1d00010123456789ab4cde8f0123456789abcd0d0000005ca43f7a"

func bytesOf(t *testing.T, text string) []byte {
	t.Helper()
	value, err := hex.DecodeString(text)
	must(t, err)
	return value
}

func TestHandleAsTheKernelWritesIt(t *testing.T) {
	want := Handle{
		Handle: sys.Handle{Type: 1, ID: "\x0d\x00\x00\x00\x5c\xa4\x3f\x7a"},
		UUID:   [16]byte{0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0x4c, 0xde, 0x8f, 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd},
	}
	h, ok := ParseHandle(bytesOf(t, kernelWrote))
	if !ok || h != want {
		t.Errorf("it is read as %+v, %v", h, ok)
	}
	if got := hex.EncodeToString(want.Encode()); got != kernelWrote {
		t.Errorf("it is written as %s", got)
	}
	want.Upper = true
	if h, ok := ParseHandle(want.Encode()); !ok || h != want {
		t.Errorf("of the upper: %+v, %v", h, ok)
	}
}

// Whatever an attribute says that is none or of an unknown kind, there is no origin.
func TestBadHandles(t *testing.T) {
	for what, change := range map[string]func(v []byte) []byte{
		"empty":              func([]byte) []byte { return nil },
		"cut in the header":  func(v []byte) []byte { return v[:handleSize-1] },
		"cut in the handle":  func(v []byte) []byte { return v[:len(v)-1] },
		"later version":      func(v []byte) []byte { v[0] = 1; return v },
		"other magic":        func(v []byte) []byte { v[1] = 0xfa; return v },
		"shorter than it is": func(v []byte) []byte { v[2] = handleSize - 1; return v },
		"unknown flags":      func(v []byte) []byte { v[3] = 8; return v },
		"other byte order":   func(v []byte) []byte { v[3] = cpuEndian ^ handleBigEndian; return v },
	} {
		if h, ok := ParseHandle(change(bytesOf(t, kernelWrote))); ok {
			t.Errorf("%s: %+v", what, h)
		}
	}
	either := bytesOf(t, kernelWrote)
	either[3] = cpuEndian ^ handleBigEndian | handleAnyEndian
	if _, ok := ParseHandle(append(either, "more"...)); !ok {
		t.Error("one in any order of bytes, with something behind it, is refused")
	}
	for what, h := range map[string]sys.Handle{
		"too long": {Type: 1, ID: strings.Repeat("x", 240)}, "invalid": {Type: 0xff, ID: "x"}, "negative": {Type: -1, ID: "x"},
	} {
		if v := (Handle{Handle: h}).Encode(); v != nil {
			t.Errorf("%s: %x", what, v)
		}
	}
}

func FuzzParseHandle(f *testing.F) {
	f.Add([]byte(nil))
	f.Add([]byte("\x00\xfb\x15\x00\x01................"))
	f.Fuzz(func(t *testing.T, value []byte) {
		h, ok := ParseHandle(value)
		if !ok {
			return
		}
		if again, ok := ParseHandle(h.Encode()); h.Type < 0xff && (!ok || again != h) {
			t.Errorf("%x is %+v and then %+v", value, h, again)
		}
	})
}

func TestOriginAttributes(t *testing.T) {
	for _, f := range []Namespace{Trusted, User, NoXattrs} {
		d := open(t, t.TempDir())
		must(t, d.Mkdir("d", 0o755))
		sub, err := d.OpenDir("d")
		must(t, err)
		defer sub.Close()
		must(t, f.SetImpure(sub))
		names, err := sub.Ref().ListXattr()
		must(t, err)
		var x DirXattrs
		for _, name := range names {
			if ns, attr, ok := both.Parse(name); ok {
				must(t, x.Read(sub.Ref(), ns, attr))
			}
		}
		if x.Impure != (f != NoXattrs) {
			t.Errorf("%d: %+v", f, x)
		}
		if _, ok, err := f.Origin(d.At("d")); ok || err != nil {
			t.Errorf("%d: an origin where there is none: %v", f, err)
		}
		if f == NoXattrs {
			continue
		}
		must(t, d.At("d").SetXattr(f.Name(Origin), bytesOf(t, kernelWrote), 0))
		if h, ok, err := f.Origin(d.At("d")); !ok || err != nil || h.Type != 1 {
			t.Errorf("%d: %+v, %v, %v", f, h, ok, err)
		}
		for call, errno := range map[string]unix.Errno{"setxattr": unix.EIO, "getxattr": unix.EIO} {
			refusing(func(op sys.Op) bool { return op.Call == call }, errno, func() {
				_, _, err := f.Origin(d.At("d"))
				if call == "setxattr" {
					err = f.SetImpure(sub)
				}
				if err != errno {
					t.Errorf("%d, failing %s: %v", f, call, err)
				}
			})
		}
		refusing(func(op sys.Op) bool { return op.Call == "setxattr" }, unix.EOPNOTSUPP, func() { must(t, f.SetImpure(sub)) })
	}
}

// A number is given once; with auto only to an upper in which nothing has been copied up yet.
func TestSetUUID(t *testing.T) {
	f := Trusted
	number := func(d *sys.Dir) string {
		value, err := d.Ref().GetXattr("trusted.overlay.uuid")
		if err == unix.ENODATA {
			return ""
		}
		must(t, err)
		return string(value)
	}
	one, two := [16]byte{1}, [16]byte{2}
	for _, c := range []struct {
		impure, always bool
		want           string
	}{{false, false, string(one[:])}, {false, true, string(one[:])}, {true, false, ""}, {true, true, string(one[:])}} {
		d := open(t, t.TempDir())
		if c.impure {
			must(t, f.SetImpure(d))
		}
		must(t, f.SetUUID(d, one, c.always))
		if got := number(d); got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
		must(t, f.SetUUID(d, two, c.always))
		if got := number(d); got != c.want {
			t.Errorf("%+v, again: %q", c, got)
		}
	}
	d := open(t, t.TempDir())
	must(t, d.Ref().SetXattr("trusted.overlay.uuid", []byte("short"), 0))
	if err := f.SetUUID(d, one, true); err != unix.EINVAL || number(d) != "short" {
		t.Errorf("a number of another length: %v", err)
	}
	if err := NoXattrs.SetUUID(d, one, true); err != unix.EOPNOTSUPP {
		t.Errorf("without attributes: %v", err)
	}
}
