package stack

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/copyup"
	"github.com/fuse-overlay/fuse-overlay/internal/ondisk"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// Origin completes a handle that an earlier mount wrote without the UUID. If SetOrigin fails, the
// next Origin completes it again.
func TestOriginIsCompleted(t *testing.T) {
	c := newFolders(t, "dir d", "file d/f \"text\"")
	c.Features.UUID = UUIDOff
	s := openSite(t, c)
	s.copyUp("d/f")
	want := lstat(t, filepath.Join(c.Lowers[0], "d/f"))
	s.cfg.Features.UUID = UUIDAuto
	s.remount()
	uuid := s.sources[0].uuid
	if uuid == (sys.UUID{}) {
		t.Fatal("the file system of the temporary directory has no UUID")
	}
	for _, round := range []struct {
		what       string
		errno      unix.Errno
		incomplete bool
		kept       sys.UUID
	}{
		{"the attribute cannot be written", unix.ENOSPC, true, sys.UUID{}},
		{"it can", 0, true, uuid},
		{"it is complete", 0, false, uuid},
	} {
		m, name, f := s.at("d/f")
		r := m.upper().At(name)
		h, ok, err := s.OriginHandle(r)
		must(t, err)
		var st sys.Stat
		found, incomplete, err := s.Origin(m.query(name), m, &h, &f, &st)
		if !ok || !found || err != nil || st.Ino != want.Ino || incomplete != round.incomplete {
			t.Fatalf("%s: found %v, %d, incomplete %v, %v", round.what, found, st.Ino, incomplete, err)
		}
		sys.SetFault(func(op sys.Op) error {
			if round.errno != 0 && op.Call == "setxattr" {
				return round.errno
			}
			return nil
		})
		if incomplete {
			s.SetOrigin(r, h)
		}
		sys.SetFault(nil)
		if h, ok, err := s.OriginHandle(r); h.UUID != round.kept || !ok || err != nil {
			t.Errorf("%s: the handle has UUID %x, want %x; %v", round.what, h.UUID, round.kept, err)
		}
	}
}

// FileAfter returns the regular files of lowers in the order of the listing.
func TestFileAfter(t *testing.T) {
	m := newSite(t, "file up\nwhite gone", "file a\nfile gone\ndir d\nsymlink l x\nfile b\nfile c").dir("").withNames()
	must(t, m.remove("c"))
	var want, got []string
	m.List(0, ^uint64(0), func(e *Listed) bool {
		if e.Layer != Upper && e.Type == unix.DT_REG {
			want = append(want, e.Name)
		}
		return true
	})
	for name, ok := m.FileAfter(""); ok; name, ok = m.FileAfter(name) {
		got = append(got, name)
	}
	if !slices.Equal(got, want) || len(got) != 2 {
		t.Errorf("%v, want %v", got, want)
	}
	if name, ok := m.FileAfter("none"); ok {
		t.Errorf("after a name that is not there comes %s", name)
	}
}

// The flags of an object of the upper are in an xattr, which does not count in a lower.
// SetProtection fails on an upper without xattrs.
func TestProtection(t *testing.T) {
	s := newSite(t, "file f", "file f\nfile low")
	root := s.dir("")
	up := root.upper().At("f")
	const both = sys.FlagImmutable | sys.FlagAppend
	for _, flags := range []uint32{sys.FlagAppend, both, 0} {
		must(t, s.SetProtection(up, flags))
		if got, err := s.Protection(Upper, up); got != flags || err != nil {
			t.Errorf("%x, %v, want %x", got, err, flags)
		}
		if err := os.WriteFile(filepath.Join(s.cfg.Upper, "f"), []byte("new"), 0o644); err != nil {
			t.Error("the inode itself is protected:", err)
		}
	}
	must(t, s.SetProtection(up, both))
	if got, err := s.Protection(1, up); got != 0 || err != nil {
		t.Errorf("the attribute counts in a lower: %x, %v", got, err)
	}
	if mark, ok := s.protattr(both); !ok || mark.Name != s.xattrs.Name(ondisk.Protattr) || len(mark.Value) == 0 {
		t.Errorf("a copy gets %+v, %v", mark, ok)
	}
	if err := failing("getxattr", unix.EIO, func() error { _, err := s.Protection(Upper, up); return err }); err != unix.EIO {
		t.Errorf("an attribute that cannot be read: %v", err)
	}
	s.xattrs = ondisk.NoXattrs
	if err := s.SetProtection(up, both); err != unix.EPERM {
		t.Errorf("an upper without attributes: %v", err)
	}
	if _, ok := s.protattr(both); ok {
		t.Error("a copy gets an attribute in an upper without")
	}
}

// Complete copies the data into a metacopy. If the data cannot be opened, the metacopy stays one.
func TestComplete(t *testing.T) {
	c := newFolders(t, meta("f"), "file f data")
	c.Redirects, c.Features.MetaCopy = RedirectsOn, true
	s := openSite(t, c)
	f, err := s.find("f")
	must(t, err)
	for off, want := range map[int64]int{0: 3, 2: 2, 3: 1, 4: 0, 9: 0} {
		if got := f.Data.Within(off, 3); got != want {
			t.Errorf("of 3 bytes at %d, %d are the metacopy's, want %d", off, got, want)
		}
	}
	moved := f.Data.Redirected("/elsewhere")
	if moved.Redirect != "/elsewhere" || f.Data.Redirect == moved.Redirect || moved.Size != f.Data.Size {
		t.Errorf("redirected: %+v of %+v", moved, f.Data)
	}
	root := s.dir("")
	must(t, s.SetRedirect(root.upper().At("f"), "/f"))
	to, err := root.upper().At("f").OpenFile(unix.O_RDWR)
	must(t, err)
	defer to.Close()
	openFailed := failing("fstatat", unix.EIO, func() error {
		left, err := s.Complete(to, f.Data, copyup.First(f.Data.Size))
		if err != nil && left != f.Data {
			t.Errorf("the data cannot be opened, and is in %+v", left)
		}
		return err
	})
	if openFailed != unix.EIO {
		t.Errorf("the data cannot be opened: %v", openFailed)
	}
	left, err := s.Complete(to, f.Data, copyup.First(f.Data.Size))
	if left != nil || err != nil {
		t.Fatalf("%+v, %v", left, err)
	}
	s.remount()
	if f, err := s.find("f"); err != nil || f.State != InUpper || f.Data != nil {
		t.Errorf("completed: %+v, %v", f, err)
	}
	if text, err := os.ReadFile(filepath.Join(c.Upper, "f")); string(text) != "data" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
}

// Recount finds the link count of an object after another of its names was copied up. Learn takes
// over only a count that is not known.
func TestRecount(t *testing.T) {
	s := newLinked(t)
	_, _, f := s.at("d/f")
	x := f.Shared
	must(t, s.Recount(x)) // no copy: nothing to count
	if x.Diff != 0 || x.Recorded {
		t.Errorf("without a copy: %+v", x)
	}
	s.copyUp("d/f")
	must(t, s.Recount(x))
	var st sys.Stat
	must(t, s.Copy(x).Stat(&st))
	if x.Count(&st); st.Nlink != 3 || !x.Recorded {
		t.Errorf("%d links, want 3; %+v", st.Nlink, x)
	}
	for _, call := range []string{"fstatat", "getxattr"} {
		if err := failing(call, unix.EIO, func() error { return s.Recount(x) }); err != unix.EIO {
			t.Errorf("%s fails: %v", call, err)
		}
	}
	unknown := &Shared{name: x.name}
	unknown.Learn(x)
	other := &Shared{links: 7}
	other.Learn(x)
	if unknown.links != 3 || other.links != 7 {
		t.Errorf("learned %d and %d links", unknown.links, other.links)
	}
}
