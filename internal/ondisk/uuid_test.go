package ondisk

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

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
		set := f.SetUUIDOfNew
		if c.always {
			set = f.SetUUID
		}
		must(t, set(d, one))
		if got := number(d); got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
		must(t, set(d, two))
		if got := number(d); got != c.want {
			t.Errorf("%+v, again: %q", c, got)
		}
	}
	d := open(t, t.TempDir())
	must(t, d.Ref().SetXattr("trusted.overlay.uuid", []byte("short"), 0))
	if err := f.SetUUID(d, one); err != unix.EINVAL || number(d) != "short" {
		t.Errorf("a number of another length: %v", err)
	}
	if err := NoXattrs.SetUUID(d, one); err != unix.EOPNOTSUPP {
		t.Errorf("without attributes: %v", err)
	}
}
