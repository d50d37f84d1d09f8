package ondisk

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

func TestProtectionValues(t *testing.T) {
	for value, want := range map[string]uint32{
		"": 0, "i": sys.FlagImmutable, "a": sys.FlagAppend, "ai": sys.FlagImmutable | sys.FlagAppend,
	} {
		if got := string(EncodeProtection(want)); got != value {
			t.Errorf("%#x: %q, want %q", want, got, value)
		}
		if got := ParseProtection([]byte(value)); got != want {
			t.Errorf("%q: %#x, want %#x", value, got, want)
		}
	}
	if got := ParseProtection([]byte("ia")); got != sys.FlagImmutable|sys.FlagAppend {
		t.Errorf("in another order: %#x", got)
	}
	for _, bad := range []string{"x", "ix", "i\x00", strings.Repeat("i", maxProtection+1)} {
		if got := ParseProtection([]byte(bad)); got != 0 {
			t.Errorf("%q: %#x", bad, got)
		}
	}
}

func TestProtectionAttribute(t *testing.T) {
	d, f := open(t, t.TempDir()), Trusted
	must(t, d.Mknod("f", unix.S_IFREG|0o600, 0))
	r := d.At("f")
	for _, flags := range []uint32{0, sys.FlagImmutable, 0, sys.FlagAppend | sys.FlagImmutable, sys.FlagAppend, 0} {
		must(t, f.SetProtection(r, flags))
		if got, err := f.Protection(r); got != flags || err != nil {
			t.Errorf("%#x: %#x, %v", flags, got, err)
		}
	}
	if names, err := r.ListXattr(); len(names) > 0 || err != nil {
		t.Errorf("attributes are left: %q, %v", names, err)
	}
	none := NoXattrs
	if err := none.SetProtection(r, sys.FlagImmutable); err != unix.EPERM {
		t.Errorf("without attributes: %v", err)
	}
	must(t, none.SetProtection(r, 0))
	if got, err := none.Protection(r); got != 0 || err != nil {
		t.Errorf("without attributes: %#x, %v", got, err)
	}
}
