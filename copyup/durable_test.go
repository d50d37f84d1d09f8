package copyup

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/ondisk"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
)

// TestTrustIn checks the trust for the types and options that the host reports.
func TestTrustIn(t *testing.T) {
	none, unnamed, all := trust{}, trust{tmpfile: true}, trust{ordered: true, tmpfile: true}
	for _, c := range []struct {
		fs   sys.FSInfo
		want trust
	}{
		{sys.FSInfo{Type: "ext4", Options: []string{"rw", "data=ordered"}, OwnJournal: true}, all},
		{sys.FSInfo{Type: "ext3", Options: []string{"rw", "data=ordered"}, OwnJournal: true}, all},
		{sys.FSInfo{Type: "ext4", Options: []string{"data=ordered", "fc_debug_force"}, OwnJournal: true}, unnamed},
		{sys.FSInfo{Type: "ext4", Options: []string{"data=ordered", "dax=always"}, OwnJournal: true}, unnamed},
		{sys.FSInfo{Type: "ext4", Options: []string{"data=writeback"}, OwnJournal: true}, unnamed},
		{sys.FSInfo{Type: "ext4", Options: []string{"data=ordered"}}, unnamed},
		{sys.FSInfo{Type: "ext4"}, unnamed},
		{sys.FSInfo{Type: "ext2", Options: []string{"rw"}}, none},
		{sys.FSInfo{Type: "xfs", Options: []string{"rw", "attr2", "noquota"}}, all},
		{sys.FSInfo{Type: "xfs", Options: []string{"rw", "logdev=/dev/x"}}, unnamed},
		{sys.FSInfo{Type: "xfs", Options: []string{"rw", "rtdev=/dev/x"}}, unnamed},
		{sys.FSInfo{Type: "xfs", Options: []string{"rw", "dax=inode"}}, unnamed},
		{sys.FSInfo{Type: "btrfs", OwnJournal: true}, none},
		{sys.FSInfo{Type: "fuse.sshfs"}, none},
		{sys.FSInfo{}, none},
	} {
		if got := trustIn(c.fs); got != c.want {
			t.Errorf("%+v: %+v, want %+v", c.fs, got, c.want)
		}
	}
}

// TestTrustInRealFileSystems checks the trust for file systems that the test makes and mounts.
func TestTrustInRealFileSystems(t *testing.T) {
	unnamed, all := trust{tmpfile: true}, trust{ordered: true, tmpfile: true}
	ext4 := func(options string, args ...string) func(t *testing.T) string {
		return func(t *testing.T) string { return testkit.MountImage(t, "ext4", options, args...) }
	}
	for _, c := range []struct {
		name  string
		mount func(t *testing.T) string
		want  trust
	}{
		{"ext4", ext4(""), all},
		{"ext3", func(t *testing.T) string { return testkit.MountImage(t, "ext3", "") }, all},
		{"ext4 data=journal", ext4("data=journal"), unnamed},
		{"ext4 data=writeback", ext4("data=writeback"), unnamed},
		{"ext4 journal_async_commit", ext4("data=writeback,journal_async_commit"), unnamed},
		{"ext4 with fast commits", ext4("", "-O", "fast_commit"), unnamed},
		{"ext4 without a journal", ext4("", "-O", "^has_journal"), unnamed},
		{"ext4 with an external journal", externalJournal, unnamed},
		{"ext2", func(t *testing.T) string { return testkit.MountImage(t, "ext2", "") }, trust{}},
		{"xfs", func(t *testing.T) string { return testkit.MountImage(t, "xfs", "") }, all},
		{"btrfs", func(t *testing.T) string { return testkit.MountImage(t, "btrfs", "") }, trust{}},
		{"tmpfs", func(t *testing.T) string { return mountFS(t, "tmpfs", "") }, trust{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			base := c.mount(t)
			if s := newSite(t, base, base); s.work.trust != c.want {
				t.Errorf("%+v, want %+v", s.work.trust, c.want)
			}
		})
	}
}

func externalJournal(t *testing.T) string {
	journal := testkit.MakeImage(t, "mke2fs", "-O", "journal_dev", "-b", "4096")
	device := strings.TrimSpace(output(t, "losetup", "--find", "--show", journal))
	t.Cleanup(func() { run(t, "losetup", "-d", device) })
	return testkit.MountImage(t, "ext4", "", "-b", "4096", "-J", "device="+device)
}

// TestTrustNeedsTheHost checks that a file system is not trusted if the host does not describe it,
// or if the kernel refuses a call.
func TestTrustNeedsTheHost(t *testing.T) {
	base := mountFS(t, "ext4", "")
	s := newSite(t, base, base)
	hidden := func(name string) trust {
		var w *Work
		match := func(op sys.Op) bool { return op.Call == "open" && strings.HasPrefix(op.Name, name) }
		failing(match, unix.EACCES, func() { w = OpenWork(s.work.Dir()) })
		return w.trust
	}
	for _, name := range []string{"/proc/self/mountinfo", "/proc/fs/ext4"} {
		if got := hidden(name); got != (trust{}) {
			t.Errorf("without %s: %+v", name, got)
		}
	}
	for _, c := range []struct {
		refused string
		want    trust
	}{{"openat", trust{}}, {"sync_file_range", trust{tmpfile: true}}} {
		failing(call(c.refused), unix.EPERM, func() {
			if w := OpenWork(s.work.Dir()); w.trust != c.want {
				t.Errorf("without %s: %+v, want %+v", c.refused, w.trust, c.want)
			}
		})
	}
}

// TestCallOrder checks the order of the calls of a copy-up. The sync that the file system needs
// must be the last call before the publication. With option volatile there must be none.
func TestCallOrder(t *testing.T) {
	for _, base := range []string{
		mountFS(t, "ext4", ""), testkit.MountImage(t, "ext4", "", "-O", "^has_journal"), mountFS(t, "xfs", ""), mountFS(t, "tmpfs", ""),
	} {
		for _, k := range kinds() {
			s := newSite(t, subdir(t, base), subdir(t, base))
			k.build(t, filepath.Join(s.lowerPath, k.name))
			what := fmt.Sprintf("%s, trusted with %+v", k.name, s.work.trust)
			st := s.stat(t, k.name)
			for _, amount := range []Amount{Whole(), First(0), First(st.Size + 5), First(max(st.Size-5, 0))} {
				if amount != Whole() && st.Mode&unix.S_IFMT != unix.S_IFREG {
					continue
				}
				names := s.copyUpCalls(t, s.copier(), st, k.name, amount)
				checkSync(t, fmt.Sprintf("%s, %+v", what, amount), names, wantedSync(s.work.trust, st, amount))
			}
			names := s.copyUpCalls(t, s.copier(), st, k.name, Whole())
			checkSteps(t, what, names)
			c := s.copier()
			c.Sync = false
			checkSync(t, what+", volatile", s.copyUpCalls(t, c, st, k.name, Whole()), "")
		}
	}
}

// wantedSync returns the call that must sync a copy before its publication; empty: none.
func wantedSync(in trust, st *sys.Stat, amount Amount) string {
	kind := st.Mode & unix.S_IFMT
	switch {
	case !in.ordered && (kind == unix.S_IFREG || kind == unix.S_IFDIR):
		return "fsync"
	case in.ordered && kind == unix.S_IFREG && st.Size > 0 && amount != First(0):
		return "sync_file_range"
	}
	return ""
}

// copyUpCalls copies an object up and removes the copy. It returns the names of the system calls,
// and for the attribute security.capability also the name of the attribute.
func (s *site) copyUpCalls(t *testing.T, c *Copier, st *sys.Stat, name string, amount Amount) []string {
	t.Helper()
	ops := calls(func() {
		staged, err := c.Stage(asIs(s.lower.At(name)), st, Data{Amount: amount})
		must(t, err)
		must(t, staged.Publish(s.upper, name))
		if f := staged.File(); f != nil {
			f.Close()
		}
	})
	must(t, os.RemoveAll(filepath.Join(s.upperPath, name)))
	names := make([]string, len(ops))
	for i, op := range ops {
		names[i] = op.Call
		if op.Call == "setxattr" && op.Name == ondisk.Capability {
			names[i] += " " + op.Name
		}
	}
	return names
}

// publishing returns the index of the call that publishes.
func publishing(names []string) int {
	return slices.IndexFunc(names, func(n string) bool { return n == "renameat" || n == "renameat2" || n == "linkat" })
}

// checkSync checks that the wanted sync is the only one. Between it and the publication there may
// only be the fstatat of the parent.
func checkSync(t *testing.T, what string, names []string, want string) {
	t.Helper()
	var syncs []string
	at := 0
	for i, n := range names {
		if strings.Contains(n, "sync") {
			syncs, at = append(syncs, n), i
		}
	}
	published := publishing(names)
	if published < 0 {
		t.Fatalf("%s: nothing was published: %v", what, names)
	}
	if want == "" {
		if len(syncs) > 0 {
			t.Errorf("%s: %v for nothing: %v", what, syncs, names)
		}
		return
	}
	if !slices.Equal(syncs, []string{want}) {
		t.Fatalf("%s: synced by %v, want %s: %v", what, syncs, want, names)
	}
	if at > published || slices.ContainsFunc(names[at+1:published], func(n string) bool { return n != "fstatat" }) {
		t.Errorf("%s: changed between sync and publication: %v", what, names)
	}
}

// checkSteps checks the order of the calls that set metadata.
func checkSteps(t *testing.T, what string, names []string) {
	t.Helper()
	last := -1
	order := []string{"fchownat", "fchmodat2", "setxattr " + ondisk.Capability, "utimensat", names[publishing(names)]}
	for _, n := range order {
		i := slices.Index(names, n)
		if i < 0 {
			continue
		}
		if i < last {
			t.Errorf("%s: %s at %d, want after %d: %v", what, n, i, last, names)
		}
		last = i
	}
}

// TestFewCalls checks the calls of the copy-up of common objects. A copy-up must not set the owner
// or mode that the copy was made with.
func TestFewCalls(t *testing.T) {
	base := mountFS(t, "ext4", "")
	s := newSite(t, base, base)
	c := s.copier()
	usual := []string{
		"openat", "getflags", "listxattr", "openat", "copy_file_range", "utimensat", "sync_file_range", "fstatat", "linkat",
		"utimensat",
	}
	for _, f := range []struct {
		name  string
		mode  uint32
		owner int
		note  bool
		want  []string
	}{
		{"first", 0o644, 0, false, slices.Insert(slices.Clone(usual), 4, "ioctl")}, // FICLONE, once
		{"usual", 0o644, 0, false, usual},
		{"executable", 0o755, 0, false, usual},
		{"closed", 0o000, 0, false, usual},
		{"setuid", 0o4755, 0, false, slices.Insert(slices.Clone(usual), 5, "fchmodat2")},
		{"sticky", 0o1644, 0, false, slices.Insert(slices.Clone(usual), 5, "fchmodat2")},
		{"others", 0o644, 1001, false, slices.Insert(slices.Clone(usual), 5, "fchownat")},
		{"noted", 0o640, 0, true, slices.Insert(slices.Clone(usual), 5, "getxattr", "setxattr", "fchmodat2")},
	} {
		path := filepath.Join(s.lowerPath, f.name)
		must(t, os.WriteFile(path, pattern(5000), 0o600))
		must(t, os.Chown(path, f.owner, f.owner))
		must(t, unix.Chmod(path, f.mode))
		if f.note {
			setXattr(t, path, "user.note", "x")
		}
		want := describe(t, path)
		ops := calls(func() { must(t, s.copyUp(c, s.stat(t, f.name), f.name)) })
		var names []string
		for _, op := range ops[1:] { // the first is s.stat of the test
			names = append(names, op.Call)
		}
		if !slices.Equal(names, f.want) {
			t.Errorf("%s: %v, want %v", f.name, names, f.want)
		}
		if got := describe(t, filepath.Join(s.upperPath, f.name)); got != want {
			t.Errorf("%s: upper\n%s\nwant\n%s", f.name, got, want)
		}
	}

	dir, link := filepath.Join(s.lowerPath, "dir"), filepath.Join(s.lowerPath, "link")
	must(t, os.Mkdir(dir, 0o755))
	must(t, os.Symlink("x", link))
	for _, k := range []struct {
		name string
		want []string
	}{
		{"dir", []string{"getflags", "listxattr", "mkdirat", "utimensat", "fstatat", "renameat2", "utimensat"}},
		{"link", []string{"listxattr", "readlinkat", "symlinkat", "utimensat", "fstatat", "renameat2", "utimensat"}},
	} {
		if names := s.copyUpCalls(t, c, s.stat(t, k.name), k.name, Whole()); !slices.Equal(names, k.want) {
			t.Errorf("%s: %v, want %v", k.name, names, k.want)
		}
	}

	// With a umask the owner and mode of new objects are not known, so a copy-up sets both.
	unix.Umask(0o077)
	s.work = OpenWork(s.work.Dir())
	unix.Umask(0)
	if s.work.known {
		t.Error("the mode of new objects is known in spite of a umask")
	}
	must(t, os.Remove(filepath.Join(s.upperPath, "usual")))
	names := s.copyUpCalls(t, s.copier(), s.stat(t, "usual"), "usual", Whole())
	if !slices.Contains(names, "fchownat") || !slices.Contains(names, "fchmodat2") {
		t.Errorf("owner and mode are not known, and not set: %v", names)
	}
}

// TestSyncFails checks that a copy-up fails if its sync fails. The upper must not change.
func TestSyncFails(t *testing.T) {
	for _, c := range []struct{ fstype, call string }{
		{"ext4", "sync_file_range"}, {"xfs", "sync_file_range"}, {"tmpfs", "fsync"},
	} {
		base := mountFS(t, c.fstype, "")
		s := newSite(t, base, base)
		must(t, os.WriteFile(filepath.Join(s.lowerPath, "f"), pattern(5000), 0o644))
		st := s.stat(t, "f")
		for _, errno := range []unix.Errno{unix.EIO, unix.ENOSPC} {
			failing(call(c.call), errno, func() {
				if err := s.copyUp(s.copier(), st, "f"); err != errno {
					t.Errorf("%s: %v, want %v", c.fstype, err, errno)
				}
			})
			if _, err := os.Lstat(filepath.Join(s.upperPath, "f")); !os.IsNotExist(err) {
				t.Errorf("%s: published in spite of %v", c.fstype, errno)
			}
			s.wantEmptyWork(t)
		}
	}
}

// TestSlowIsCalledBeforeWaits checks that a copy-up calls Slow before it waits for the disk and
// before a large copy. It must not call it otherwise, because the call takes time too.
func TestSlowIsCalledBeforeWaits(t *testing.T) {
	for _, c := range []struct {
		name  string
		trust trust
		sync  bool
		size  int
		want  bool
	}{
		{"synced", trust{}, true, 100, true},
		{"written back", trust{ordered: true, tmpfile: true}, true, 100, true},
		{"ordered, and nothing to be written", trust{ordered: true, tmpfile: true}, true, 0, false},
		{"volatile", trust{tmpfile: true}, false, 100, false},
		{"volatile and large", trust{tmpfile: true}, false, minSlowBytes, true},
	} {
		s := newSite(t, t.TempDir(), t.TempDir())
		s.work.trust = c.trust
		must(t, os.WriteFile(filepath.Join(s.lowerPath, "f"), make([]byte, c.size), 0o644))
		called := false
		copier := s.copier()
		copier.Sync, copier.Slow = c.sync, func() { called = true }
		sys.SetFault(func(op sys.Op) error {
			if (op.Call == "fsync" || op.Call == "sync_file_range") && !called {
				t.Errorf("%s: Slow was not called before %s", c.name, op.Call)
			}
			return nil
		})
		err := s.copyUp(copier, s.stat(t, "f"), "f")
		sys.SetFault(nil)
		must(t, err)
		if called != c.want {
			t.Errorf("%s: called %v", c.name, called)
		}
	}
}
