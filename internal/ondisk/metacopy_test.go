package ondisk

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

func TestReadFile(t *testing.T) {
	d := open(t, t.TempDir())
	sum := strings.Repeat("s", 32)
	for _, c := range []struct {
		xattrs map[string]string
		want   FileXattrs
		err    error
	}{
		{nil, FileXattrs{}, nil},
		{map[string]string{"trusted.overlay.redirect": "x", "user.note": "n"}, FileXattrs{}, nil},
		{map[string]string{"trusted.overlay.metacopy": ""}, FileXattrs{Metacopy: true}, nil},
		{map[string]string{"trusted.overlay.metacopy": "\x00\x04\x00\x00", "trusted.overlay.redirect": "/x"}, FileXattrs{Metacopy: true, Redirect: "/x"}, nil},
		{map[string]string{"trusted.overlay.metacopy": "\x00\x24\x00\x01" + sum}, FileXattrs{Metacopy: true, Digest: sys.NewDigest(1, []byte(sum))}, nil},
		{map[string]string{"user.overlay.metacopy": "", "user.overlay.redirect": "x"}, FileXattrs{Metacopy: true, Redirect: "x", ByUser: true}, nil},
		{map[string]string{"trusted.overlay.metacopy": "", "user.overlay.metacopy": "no"}, FileXattrs{Metacopy: true}, nil},
		{map[string]string{"trusted.overlay.metacopy": "", "user.overlay.redirect": "x"}, FileXattrs{Metacopy: true, Redirect: "x", ByUser: true}, nil},
		{map[string]string{"trusted.overlay.metacopy": "", "user.overlay.redirect": "no", "trusted.overlay.redirect": "x"}, FileXattrs{Metacopy: true, Redirect: "x"}, nil},
		{map[string]string{"trusted.overlay.metacopy": "x"}, FileXattrs{}, unix.EINVAL},
		{map[string]string{"trusted.overlay.metacopy": "\x00\x24\x00\x00" + sum}, FileXattrs{}, unix.EINVAL},
		{map[string]string{"trusted.overlay.metacopy": "\x00\x45\x00\x01" + strings.Repeat("s", 65)}, FileXattrs{}, unix.EINVAL},
	} {
		f, err := d.CreateFile("f", 0o600)
		must(t, err)
		f.Close()
		for name, value := range c.xattrs {
			must(t, d.At("f").SetXattr(name, []byte(value), 0))
		}
		if got, err := both.ReadFile(d.At("f")); got != c.want || err != c.err {
			t.Errorf("%q: %+v, %v; want %+v, %v", c.xattrs, got, err, c.want, c.err)
		}
		if c.want.Metacopy && !c.want.ByUser {
			name, value := Trusted.MetacopyXattr(c.want.Digest)
			if old := c.xattrs[name]; string(value) != old && len(old) != metacopyHeader {
				t.Errorf("written as %q, read from %q", value, old)
			}
		}
		refusing(func(op sys.Op) bool { return op.Call == "getxattr" }, unix.ENODATA, func() {
			if m, err := both.ReadFile(d.At("f")); err != nil || m != (FileXattrs{}) {
				t.Errorf("xattrs removed meanwhile: %+v, %v", m, err)
			}
		})
		for _, call := range []string{"listxattr", "getxattr"} {
			refusing(func(op sys.Op) bool { return op.Call == call }, unix.EIO, func() {
				if m, err := both.ReadFile(d.At("f")); err == nil && (call == "listxattr" || m.Metacopy) {
					t.Errorf("failing %s: %+v, %v", call, m, err)
				}
			})
		}
		must(t, d.Unlink("f"))
	}
}
