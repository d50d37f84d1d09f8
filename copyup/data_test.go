package copyup

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// extents lists the extents of a file that hold data, as the file system reports them.
func extents(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	var b bytes.Buffer
	for off := int64(0); ; {
		start, err := unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
		if err == unix.ENXIO {
			break
		}
		must(t, err)
		off, err = unix.Seek(int(f.Fd()), start, unix.SEEK_HOLE)
		must(t, err)
		fmt.Fprintf(&b, "%d-%d ", start, off)
	}
	st, err := f.Stat()
	must(t, err)
	fmt.Fprintf(&b, "of %d", st.Size())
	return b.String()
}

func sameData(t *testing.T, a, b string) {
	t.Helper()
	fa, err := os.Open(a)
	must(t, err)
	defer fa.Close()
	fb, err := os.Open(b)
	must(t, err)
	defer fb.Close()
	bufA, bufB := make([]byte, 1<<20), make([]byte, 1<<20)
	for off := int64(0); ; off += 1 << 20 {
		na, errA := fa.ReadAt(bufA, off)
		nb, errB := fb.ReadAt(bufB, off)
		if !bytes.Equal(bufA[:na], bufB[:nb]) || errA != errB {
			t.Fatalf("%s and %s differ at %d", a, b, off)
		}
		if errA == io.EOF {
			return
		}
		must(t, errA)
	}
}

// TestHoles checks that a copy has the holes of its source, with every call that copies data. If
// the kernel does not report holes, the copy must have the right data.
func TestHoles(t *testing.T) {
	const mib = 1 << 20
	files := []struct {
		name string
		size int64
		at   []int64
	}{
		{"all hole", 8 * mib, nil},
		{"hole first", 8 * mib, []int64{8*mib - 4096}},
		{"hole last", 8 * mib, []int64{0}},
		{"holes between", 64 * mib, []int64{0, 4096, 3 * mib, 40 * mib}},
		{"no whole block", 5*mib + 17, []int64{2 * mib}},
	}
	ways := []struct {
		name   string
		refuse string
		err    error
		keeps  bool
	}{
		{"copy_file_range", "none", nil, true},
		{"read and write", "copy_file_range", unix.EXDEV, true},
		{"this file only", "copy_file_range", unix.EINVAL, true},
		{"no SEEK_HOLE", "lseek", unix.EINVAL, false},
	}
	base := t.TempDir()
	s := newSite(t, base, base)
	for _, f := range files {
		makeSparse(t, filepath.Join(s.lowerPath, f.name), f.size, f.at...)
	}
	for _, way := range ways {
		for _, f := range files {
			lower, upper := filepath.Join(s.lowerPath, f.name), filepath.Join(s.upperPath, f.name)
			failing(call(way.refuse), way.err, func() { must(t, s.copyUp(s.copier(), s.stat(t, f.name), f.name)) })
			sameData(t, lower, upper)
			if got, want := extents(t, upper), extents(t, lower); way.keeps && got != want {
				t.Errorf("%s, %s: data at %s, want %s", way.name, f.name, got, want)
			}
			must(t, os.Remove(upper))
		}
	}
	s.wantEmptyWork(t)
}

// TestLarge copies a file of more than 4 GiB. It has data on both sides of 4 GiB, so one
// copy_file_range crosses that offset.
func TestLarge(t *testing.T) {
	base := t.TempDir()
	s := newSite(t, base, base)
	lower, upper := filepath.Join(s.lowerPath, "f"), filepath.Join(s.upperPath, "f")
	makeSparse(t, lower, 6<<30+123, 0, 4<<30-4096, 4<<30, 6<<30)
	must(t, s.copyUp(s.copier(), s.stat(t, "f"), "f"))
	if got, want := extents(t, upper), extents(t, lower); got != want {
		t.Errorf("data at %s, want %s", got, want)
	}
	for _, off := range []int64{0, 4<<30 - 4096, 4 << 30} {
		f, err := os.Open(upper)
		must(t, err)
		got := make([]byte, 4096)
		_, err = f.ReadAt(got, off)
		must(t, err)
		f.Close()
		if !bytes.Equal(got, pattern(4096)) {
			t.Errorf("other data at %d", off)
		}
	}
}

// TestReflink checks that a copy shares the data of its source if the file system can clone, and
// that it has the size of its amount.
func TestReflink(t *testing.T) {
	base := mountFS(t, "xfs", "")
	s := newSite(t, base, base)
	must(t, os.WriteFile(filepath.Join(s.lowerPath, "f"), pattern(5<<20+99), 0o600))
	st, c := s.stat(t, "f"), s.copier()
	for _, amount := range []Amount{Whole(), First(1), First(4096), First(2<<20 + 5), First(6 << 20)} {
		var staged *Staged
		ops := calls(func() {
			var err error
			staged, err = c.Stage(asIs(s.lower.At("f")), st, Data{Amount: amount})
			must(t, err)
		})
		if count(ops, call("copy_file_range"))+count(ops, call("pread64")) > 0 {
			t.Errorf("%+v: data was copied", amount)
		}
		want := pattern(5<<20 + 99)
		if amount != Whole() {
			want = append(want, make([]byte, 1<<20)...)[:amount.size]
		}
		got := make([]byte, 7<<20)
		n, err := staged.File().Pread(got, 0)
		must(t, err)
		if !bytes.Equal(got[:n], want) {
			t.Errorf("%+v: other data, %d bytes", amount, n)
		}
		staged.Discard()
	}
	s.wantEmptyWork(t)

	// If the source has shrunk since Stat, the copy has its new size. If it has grown, the copy has
	// the size of Stat.
	for _, now := range []int64{100, 8 << 20} {
		must(t, os.Truncate(filepath.Join(s.lowerPath, "f"), now))
		staged, err := c.Stage(asIs(s.lower.At("f")), st, Data{Amount: Whole()})
		must(t, err)
		var got sys.Stat
		must(t, staged.File().Ref().Stat(&got))
		if want := min(now, st.Size); got.Size != want {
			t.Errorf("source of %d bytes: copy of %d, want %d", now, got.Size, want)
		}
		staged.Discard()
	}
}

// TestRefusalsAreRemembered checks that a Copier remembers a refusal for all files of a source
// device. It must not remember a refusal that may depend on the file.
func TestRefusalsAreRemembered(t *testing.T) {
	other := t.TempDir()
	s := newSite(t, mountFS(t, "tmpfs", ""), other)
	must(t, os.WriteFile(filepath.Join(s.lowerPath, "f"), pattern(5000), 0o600))
	st := s.stat(t, "f")
	tries := func(c *Copier, st *sys.Stat) (clone, copyRange int) {
		ops := calls(func() {
			staged, err := c.Stage(asIs(s.lower.At("f")), st, Data{Amount: Whole()})
			must(t, err)
			staged.Discard()
		})
		return count(ops, call("ioctl")), count(ops, call("copy_file_range"))
	}
	c := s.copier()
	if a, b := tries(c, st); a != 1 || b != 1 {
		t.Errorf("first copy: FICLONE %d times, copy_file_range %d times, want 1 and 1", a, b)
	}
	if a, b := tries(c, st); a != 0 || b != 0 {
		t.Errorf("second copy: FICLONE %d times, copy_file_range %d times, want none", a, b)
	}
	elsewhere := *st
	elsewhere.Dev++
	if a, b := tries(c, &elsewhere); a != 1 || b != 1 {
		t.Errorf("other device: FICLONE %d times, copy_file_range %d times, want 1 and 1", a, b)
	}

	c = s.copier()
	for _, err := range []error{unix.EINVAL, unix.EPERM, unix.ETXTBSY} {
		failing(func(op sys.Op) bool { return op.Call == "ioctl" || op.Call == "copy_file_range" }, err, func() {
			must(t, s.copyUp(c, st, "f"))
		})
		sameData(t, filepath.Join(s.lowerPath, "f"), filepath.Join(s.upperPath, "f"))
		must(t, os.Remove(filepath.Join(s.upperPath, "f")))
	}
	if a, b := tries(c, st); a != 1 || b != 1 {
		t.Errorf("after a refusal of one file: FICLONE %d times, copy_file_range %d times, want 1 and 1", a, b)
	}
}

// TestCopyRangeThatStops checks that the copy has all data if copy_file_range returns 0 before the
// end of the file. It does so for files of /proc, and on broken file systems.
func TestCopyRangeThatStops(t *testing.T) {
	src, err := os.ReadFile("/proc/self/status")
	must(t, err)
	base := t.TempDir()
	s := newSite(t, base, base)
	proc, _, err := sys.OpenLower("/proc/self")
	must(t, err)
	defer proc.Close()
	var st sys.Stat
	must(t, proc.At("status").Stat(&st))
	st.Size = 1 << 20 // a file of /proc has size 0
	c := s.copier()
	staged, err := c.Stage(asIs(proc.At("status")), &st, Data{Amount: Whole()})
	must(t, err)
	defer staged.Discard()
	got := make([]byte, 1<<20)
	n, err := staged.File().Pread(got, 0)
	must(t, err)
	if !bytes.HasPrefix(got[:n], src[:20]) || n < len(src)/2 || n > 2*len(src) {
		t.Errorf("%d bytes, want about %d: %.60q", n, len(src), got[:n])
	}
}

// TestSourceChanges changes the size of the source before each call of a copy-up. The copy-up must
// end without an error. The copy must have at most the size in st, and no zeros in place of data.
func TestSourceChanges(t *testing.T) {
	base := t.TempDir()
	s := newSite(t, base, base)
	path := filepath.Join(s.lowerPath, "f")
	data, got := pattern(1<<20+5000), make([]byte, 2<<20)
	for _, refuse := range []string{"", "copy_file_range", "lseek"} {
		for _, newSize := range []int64{0, 5000, 1<<20 + 1, 8 << 20} {
			for at, last := 0, 0; at <= last; at++ {
				must(t, os.WriteFile(path, data, 0o600))
				st, i := s.stat(t, "f"), 0
				sys.SetFault(func(op sys.Op) error {
					if i == at {
						_ = os.Truncate(path, newSize)
					}
					last = i
					i++
					if op.Call == refuse {
						return unix.EINVAL
					}
					return nil
				})
				c := s.copier()
				c.Sync = false
				staged, err := c.Stage(asIs(s.lower.At("f")), st, Data{Amount: Whole()})
				sys.SetFault(nil)
				must(t, err)
				n, err := staged.File().Pread(got, 0)
				must(t, err)
				staged.Discard()
				if int64(n) > st.Size || int64(n) < min(newSize, st.Size) || !bytes.Equal(got[:n], data[:n]) {
					t.Fatalf("refusing %q, size set to %d before call %d: %d bytes, not the data that was there",
						refuse, newSize, at, n)
				}
			}
		}
	}
	s.wantEmptyWork(t)
}

// TestFullDisk copies a file up to a full file system.
func TestFullDisk(t *testing.T) {
	s := newSite(t, t.TempDir(), mountFS(t, "tmpfs", "size=1m"))
	must(t, os.WriteFile(filepath.Join(s.lowerPath, "f"), pattern(4<<20), 0o600))
	st := s.stat(t, "f")
	if err := s.copyUp(s.copier(), st, "f"); err != unix.ENOSPC {
		t.Errorf("copy-up to a full disk: %v, want ENOSPC", err)
	}
	s.wantEmptyWork(t)
	if _, err := s.copier().Stage(asIs(s.lower.At("f")), st, Data{Amount: First(0)}); err != nil {
		t.Errorf("truncation on a full disk: %v", err)
	}
}

// TestSideBySide copies different files up at the same time.
func TestSideBySide(t *testing.T) {
	base := t.TempDir()
	s := newSite(t, base, base)
	c := s.copier()
	c.Sync = false
	const n = 40
	for i := range n {
		must(t, os.WriteFile(filepath.Join(s.lowerPath, fmt.Sprint(i)), pattern(10_000+i), 0o600))
	}
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			name := fmt.Sprint(i)
			var st sys.Stat
			if err := s.lower.At(name).Stat(&st); err != nil {
				t.Error(err)
			} else if err := s.copyUp(c, &st, name); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for i := range n {
		sameData(t, filepath.Join(s.lowerPath, fmt.Sprint(i)), filepath.Join(s.upperPath, fmt.Sprint(i)))
	}
	s.wantEmptyWork(t)
}

// TestWriteBackStarts checks that a copy-up starts the writeback of each chunk of a large file.
// With option volatile it must not.
func TestWriteBackStarts(t *testing.T) {
	base := mountFS(t, "ext4", "")
	s := newSite(t, base, base)
	must(t, os.WriteFile(filepath.Join(s.lowerPath, "f"), bytes.Repeat(pattern(1<<20), 40), 0o600))
	st := s.stat(t, "f")
	for _, sync := range []bool{true, false} {
		c := s.copier()
		c.Sync = sync
		want := 0
		if sync {
			want = 3 // two whole chunks, and the final wait
		}
		if got := count(calls(func() { must(t, s.copyUp(c, st, "f")) }), call("sync_file_range")); got != want {
			t.Errorf("sync %v: %d times sync_file_range, want %d", sync, got, want)
		}
		sameData(t, filepath.Join(s.lowerPath, "f"), filepath.Join(s.upperPath, "f"))
		must(t, os.Remove(filepath.Join(s.upperPath, "f")))
	}
	for _, c := range []struct{ err, want error }{{unix.EIO, unix.EIO}, {unix.EPERM, nil}} {
		first := true
		match := func(op sys.Op) bool { is := op.Call == "sync_file_range" && first; first = first && !is; return is }
		failing(match, c.err, func() {
			if err := s.copyUp(s.copier(), st, "f"); err != c.want {
				t.Errorf("writeback fails with %v: %v", c.err, err)
			}
		})
	}
	s.wantEmptyWork(t)
}
