package ondisk

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

func TestIndexNames(t *testing.T) {
	h, _ := ParseHandle(bytesOf(t, kernelWrote))
	if name := h.IndexName(); name != kernelWrote {
		t.Errorf("the entry is %s", name)
	}
	if again, ok := ParseIndexName(kernelWrote); !ok || again != h {
		t.Errorf("the entry is of %+v", again)
	}
	for _, bad := range []string{"", "x", "00fb", kernelWrote[:40], kernelWrote + "0", strings.Replace(kernelWrote, "0", "g", 1)} {
		if h, ok := ParseIndexName(bad); ok {
			t.Errorf("%q is of %+v", bad, h)
		}
	}
	h.ID = strings.Repeat("x", 107)
	if name := h.IndexName(); name != "" {
		t.Errorf("a name of %d bytes", len(name))
	}
}

func TestLinkCounts(t *testing.T) {
	for text, want := range map[string]LinkCount{
		"U+0": {}, "U+1": {Diff: 1}, "U-3": {Diff: -3}, "L+0": {OfLower: true}, "L-2": {OfLower: true, Diff: -2}, "U+12345": {Diff: 12345},
	} {
		if l, ok := ParseLinkCount([]byte(text)); !ok || l != want {
			t.Errorf("%s: %+v, %v", text, l, ok)
		}
		if got := string(want.Encode()); got != text {
			t.Errorf("%+v: %s", want, got)
		}
	}
	for _, bad := range []string{"", "U", "U+", "U1", "X+1", "U+x", "U+-1", "U+99999999999", "U+1234567890123", "L 1"} {
		if l, ok := ParseLinkCount([]byte(bad)); ok {
			t.Errorf("%q: %+v", bad, l)
		}
	}
}

func TestLinkAttributes(t *testing.T) {
	d, f := open(t, t.TempDir()), Trusted
	must(t, d.Mknod("f", unix.S_IFREG|0o600, 0))
	r := d.At("f")
	if _, ok, err := f.LinkCount(r); ok || err != nil {
		t.Errorf("a count where there is none: %v", err)
	}
	must(t, f.SetLinkCount(r, LinkCount{Diff: 2}))
	if l, ok, err := f.LinkCount(r); l.Diff != 2 || !ok || err != nil {
		t.Errorf("%+v, %v, %v", l, ok, err)
	}
	must(t, r.SetXattr(f.Name(Nlink), []byte("nonsense"), 0))
	if _, ok, err := f.LinkCount(r); ok || err != nil {
		t.Errorf("nonsense: %v, %v", ok, err)
	}
	refusing(func(op sys.Op) bool { return op.Call == "getxattr" }, unix.EIO, func() {
		if _, _, err := f.LinkCount(r); err != unix.EIO {
			t.Errorf("failing: %v", err)
		}
	})
	if !Trusted.OnAnyType() || User.OnAnyType() || NoXattrs.OnAnyType() {
		t.Error("OnAnyType is wrong")
	}
}
