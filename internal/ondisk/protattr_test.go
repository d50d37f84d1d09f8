package ondisk

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

func TestProtattrValues(t *testing.T) {
	for value, want := range map[string]uint32{
		"": 0, "i": sys.FlagImmutable, "a": sys.FlagAppend, "ai": sys.FlagImmutable | sys.FlagAppend,
	} {
		if got := string(EncodeProtattr(want)); got != value {
			t.Errorf("%#x: %q, want %q", want, got, value)
		}
		if got := ParseProtattr([]byte(value)); got != want {
			t.Errorf("%q: %#x, want %#x", value, got, want)
		}
	}
	if got := ParseProtattr([]byte("ia")); got != sys.FlagImmutable|sys.FlagAppend {
		t.Errorf("in another order: %#x", got)
	}
	for _, bad := range []string{"x", "ix", "i\x00", strings.Repeat("i", maxProtattr+1)} {
		if got := ParseProtattr([]byte(bad)); got != 0 {
			t.Errorf("%q: %#x", bad, got)
		}
	}
}

func TestProtattr(t *testing.T) {
	d, f := open(t, t.TempDir()), Trusted
	must(t, d.Mknod("f", unix.S_IFREG|0o600, 0))
	r := d.At("f")
	for _, flags := range []uint32{0, sys.FlagImmutable, 0, sys.FlagAppend | sys.FlagImmutable, sys.FlagAppend, 0} {
		must(t, f.SetProtattr(r, flags))
		if got, err := f.Protattr(r); got != flags || err != nil {
			t.Errorf("%#x: %#x, %v", flags, got, err)
		}
	}
	if names, err := r.ListXattr(); len(names) > 0 || err != nil {
		t.Errorf("attributes are left: %q, %v", names, err)
	}
	none := NoXattrs
	if err := none.SetProtattr(r, sys.FlagImmutable); err != unix.EPERM {
		t.Errorf("without attributes: %v", err)
	}
	must(t, none.SetProtattr(r, 0))
	if got, err := none.Protattr(r); got != 0 || err != nil {
		t.Errorf("without attributes: %#x, %v", got, err)
	}
}
