package copyup

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/ondisk"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

const metacopyXattr = "trusted.overlay.metacopy"

// someCapability is a net capability, as setcap writes it (struct vfs_cap_data).
const someCapability = "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// hole stages and publishes the lower's f without data. It returns the open copy.
func (s *site) hole(t *testing.T, c *Copier) *sys.File {
	t.Helper()
	staged, err := c.Stage(asIs(s.lower.At("f")), s.stat(t, "f"), Data{Amount: Hole()}, Xattr{Name: metacopyXattr})
	must(t, err)
	defer staged.Discard()
	must(t, staged.Publish(s.upper, "f"))
	t.Cleanup(staged.File().Close)
	return staged.File()
}

// TestComplete checks that a copy without data has all metadata, and that Complete changes only the
// data, and the mtime of a file that gets another size.
func TestComplete(t *testing.T) {
	text := "head" + strings.Repeat("\x00", 100000) + "tail"
	for size, want := range map[Amount]string{Whole(): text, {}: "", First(3): "hea", First(int64(len(text)) + 5): text} {
		base := t.TempDir()
		s := newSite(t, base, base)
		lower := filepath.Join(s.lowerPath, "f")
		must(t, os.WriteFile(lower, []byte(text), 0o600))
		must(t, os.Chown(lower, 5, 6))
		must(t, unix.Chmod(lower, 0o6751))
		must(t, unix.Setxattr(lower, ondisk.Capability, []byte(someCapability), 0))
		must(t, unix.Setxattr(lower, "user.note", []byte("kept"), 0))
		c := s.copier()
		to := s.hole(t, c)
		before, upper := s.stat(t, "f"), filepath.Join(s.upperPath, "f")
		var st sys.Stat
		must(t, s.upper.At("f").Stat(&st))
		if st.Size != before.Size || st.Blocks > 16 {
			t.Errorf("a hole of %d bytes and %d blocks", st.Size, st.Blocks)
		}
		from, err := openSource(s.lower.At("f"))
		must(t, err)
		defer from.Close()
		must(t, c.Complete(to, from, size, metacopyXattr))
		must(t, s.upper.At("f").Stat(&st))
		if isOld := st.Mtim == before.Mtim; isOld != (want == text) {
			t.Errorf("size %d: mtime %v, it was %v", size, st.Mtim, before.Mtim)
		}
		must(t, unix.UtimesNano(upper, []unix.Timespec{before.Atim, before.Mtim}))
		must(t, os.WriteFile(lower, []byte(want), 0o600)) // clears what a write clears
		must(t, unix.Chmod(lower, 0o6751))
		must(t, unix.Setxattr(lower, ondisk.Capability, []byte(someCapability), 0))
		must(t, s.lower.At("f").Stat(&st))
		must(t, unix.UtimesNano(lower, []unix.Timespec{before.Atim, before.Mtim}))
		if got, want := describe(t, upper), describe(t, lower); got != want {
			t.Errorf("size %d:\n%s\nwant\n%s", size, got, want)
		}
	}
}

// TestEveryFaultOfComplete fails each call of Complete. The attribute metacopy must stay until the
// data is whole. Complete must restore the metadata that its writes change.
func TestEveryFaultOfComplete(t *testing.T) {
	text := strings.Repeat("data", 1000)
	for _, p := range plans {
		for i, fired := 0, true; fired; i++ {
			base := t.TempDir()
			s := newSite(t, base, base)
			lower := filepath.Join(s.lowerPath, "f")
			must(t, os.WriteFile(lower, []byte(text), 0o600))
			must(t, unix.Chmod(lower, 0o4755))
			c := s.copier()
			to := s.hole(t, c)
			upper := filepath.Join(s.upperPath, "f")
			from, err := openSource(s.lower.At("f"))
			must(t, err)
			n, failed := 0, ""
			sys.SetFault(func(op sys.Op) error {
				if n++; n-1 == i {
					failed = op.Call
				}
				if n-1 == i || p.kill && n-1 > i {
					return p.err
				}
				return nil
			})
			err = c.Complete(to, from, Whole(), metacopyXattr)
			sys.SetFault(nil)
			fired = n > i
			_, gone := s.upper.At("f").GetXattr(metacopyXattr)
			switch {
			case err == nil && gone == nil:
				t.Fatalf("%s at call %d: success, and the attribute is there", p.name, i)
			case err != nil && gone != nil:
				t.Fatalf("%s at call %d: %v, and the attribute is gone", p.name, i, err)
			case err != nil && err != p.err:
				t.Fatalf("%s at call %d: %v", p.name, i, err)
			}
			if err != nil {
				must(t, c.Complete(to, from, Whole(), metacopyXattr))
			}
			from.Close()
			if got, want := describe(t, upper), describe(t, lower); !p.kill && failed != "utimensat" && got != want {
				t.Fatalf("%s at call %d, %s:\n%s\nwant\n%s", p.name, i, failed, got, want)
			}
			if got, err := os.ReadFile(upper); err != nil || string(got) != text {
				t.Fatalf("%s at call %d: %d bytes, %v", p.name, i, len(got), err)
			}
		}
	}
}
