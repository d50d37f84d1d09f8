package copyup

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/owner"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit/systest"
)

func TestMain(m *testing.M) { testkit.Main(m) }

var (
	must    = testkit.Must
	output  = testkit.Run
	asUser  = testkit.AsUser
	openFDs = testkit.OpenFDs
	calls   = systest.Calls
	failing = systest.While
	call    = systest.Call
)

// site is a lower, an upper and a work directory.
type site struct {
	lowerPath, upperPath, workPath string
	lower, upper                   *sys.Dir
	work                           *Work
}

// newSite makes and opens the layers: the lower below lowerBase, upper and work below upperBase.
func newSite(t *testing.T, lowerBase, upperBase string) *site {
	t.Helper()
	s := &site{
		lowerPath: filepath.Join(lowerBase, "lower"),
		upperPath: filepath.Join(upperBase, "upper"),
		workPath:  filepath.Join(upperBase, "work"),
	}
	for _, p := range []string{s.lowerPath, s.upperPath, s.workPath} {
		must(t, os.MkdirAll(p, 0o755))
	}
	s.open(t)
	return s
}

// open opens the layers, as a mount does.
func (s *site) open(t *testing.T) {
	t.Helper()
	lower, _, err := sys.OpenLower(s.lowerPath)
	must(t, err)
	upper, work, err := sys.OpenUpper(s.upperPath, s.workPath, 0)
	must(t, err)
	t.Cleanup(func() { lower.Close(); upper.Close(); work.Close() })
	s.lower, s.upper, s.work = lower, upper, OpenWork(work)
}

func (s *site) copier() *Copier {
	return &Copier{Work: s.work, Sync: true, CopiesXattr: func(string) bool { return true }}
}

func (s *site) stat(t *testing.T, name string) *sys.Stat {
	t.Helper()
	var st sys.Stat
	must(t, s.lower.At(name).Stat(&st))
	return &st
}

// copyUp stages and publishes a copy, and closes its file.
func (s *site) copyUp(c *Copier, st *sys.Stat, name string) error {
	staged, err := c.Stage(asIs(s.lower.At(name)), st, Data{Amount: Whole()})
	if err != nil {
		return err
	}
	defer staged.Discard()
	if err := staged.Publish(s.upper, name); err != nil {
		return err
	}
	if f := staged.File(); f != nil {
		f.Close()
	}
	return nil
}

// left returns the names in the work directory.
func (s *site) left(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir(s.workPath)
	must(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func (s *site) wantEmptyWork(t *testing.T) {
	t.Helper()
	if names := s.left(t); len(names) > 0 {
		t.Fatalf("left in the work directory: %v", names)
	}
}

// describe returns as text the data and metadata of an object that its copy must have too.
func describe(t *testing.T, path string) string {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Lstat(path, &st))
	var b strings.Builder
	fmt.Fprintf(&b, "mode %o owner %d:%d mtime %d.%09d\n", st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		data, err := os.ReadFile(path)
		must(t, err)
		fmt.Fprintf(&b, "size %d sum %x\n", st.Size, sha256.Sum256(data))
	case unix.S_IFLNK:
		target, err := os.Readlink(path)
		must(t, err)
		fmt.Fprintf(&b, "target %s\n", target)
	case unix.S_IFCHR, unix.S_IFBLK:
		fmt.Fprintf(&b, "rdev %d:%d\n", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	}
	for _, name := range xattrsOf(t, path) {
		fmt.Fprintf(&b, "%s=%x\n", name, xattrOf(t, path, name))
	}
	return b.String()
}

func xattrsOf(t *testing.T, path string) []string {
	t.Helper()
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, buf)
	if err == unix.EOPNOTSUPP {
		return nil
	}
	must(t, err)
	names := strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00")
	if n == 0 {
		names = nil
	}
	slices.Sort(names)
	return names
}

func xattrOf(t *testing.T, path, name string) []byte {
	t.Helper()
	buf := make([]byte, 64<<10)
	n, err := unix.Lgetxattr(path, name, buf)
	must(t, err)
	return buf[:n]
}

func setXattr(t *testing.T, path, name, value string) {
	t.Helper()
	if err := unix.Lsetxattr(path, name, []byte(value), 0); err != nil {
		t.Fatalf("setxattr %s %s: %v", path, name, err)
	}
}

// aclValue returns an ACL. It gives user 1234 read access, and the group class at most read and
// execute.
func aclValue() string {
	const none = ^uint32(0)
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range []struct {
		tag, perm uint16
		id        uint32
	}{{1, 7, none}, {2, 4, 1234}, {4, 4, none}, {16, 5, none}, {32, 0, none}} {
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, e.perm)
		b = binary.LittleEndian.AppendUint32(b, e.id)
	}
	return string(b)
}

// capabilityValue returns the value of security.capability for cap_net_raw+ep.
func capabilityValue() string {
	b := binary.LittleEndian.AppendUint32(nil, 0x02000001)
	b = binary.LittleEndian.AppendUint32(b, 1<<13)
	return string(append(b, make([]byte, 12)...))
}

// kind is one kind of object with all the metadata that it can have.
type kind struct {
	name  string
	build func(t *testing.T, path string)
}

func kinds() []kind {
	mknod := func(mode uint32, dev uint64) func(*testing.T, string) {
		return func(t *testing.T, path string) { must(t, unix.Mknod(path, mode, int(dev))) }
	}
	finish := func(build func(*testing.T, string), mode uint32, xattrs map[string]string) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			build(t, path)
			must(t, unix.Lchown(path, 1001, 1002))
			if mode != 0 {
				must(t, os.Chmod(path, os.FileMode(mode&0o777)))
				must(t, unix.Chmod(path, mode))
			}
			for name, value := range xattrs {
				setXattr(t, path, name, value)
			}
			ts := []unix.Timespec{{Sec: 1111111111, Nsec: 123456789}, {Sec: 999999999, Nsec: 987654321}}
			must(t, unix.UtimesNanoAt(unix.AT_FDCWD, path, ts, unix.AT_SYMLINK_NOFOLLOW))
		}
	}
	write := func(size int) func(*testing.T, string) {
		return func(t *testing.T, path string) { must(t, os.WriteFile(path, pattern(size), 0o600)) }
	}
	anywhere := map[string]string{"trusted.note": "t", "security.note": "s"}
	return []kind{
		{"regular", finish(write(30_000), 0o6755, map[string]string{
			"user.a": "1", "user.empty": "", "trusted.note": "t", "security.note": "s",
			"system.posix_acl_access": aclValue(), "security.capability": capabilityValue(),
		})},
		{"empty", finish(write(0), 0o000, nil)},
		{"sparse", finish(func(t *testing.T, path string) { makeSparse(t, path, 512<<10, 64<<10, 256<<10) }, 0o640, nil)},
		{"directory", finish(func(t *testing.T, path string) { must(t, os.Mkdir(path, 0o700)) }, 0o3575, map[string]string{
			"user.a": "1", "trusted.note": "t", "system.posix_acl_access": aclValue(), "system.posix_acl_default": aclValue(),
		})},
		{"symlink", finish(func(t *testing.T, path string) {
			must(t, os.Symlink("../"+strings.Repeat("x", 1000), path)) // xfs allows 1023 bytes
		}, 0, anywhere)},
		{"fifo", finish(mknod(unix.S_IFIFO|0o600, 0), 0o4621, anywhere)},
		{"socket", finish(mknod(unix.S_IFSOCK|0o600, 0), 0o755, anywhere)},
		{"chardev", finish(mknod(unix.S_IFCHR|0o600, unix.Mkdev(1, 3)), 0o666, anywhere)},
		{"blockdev", finish(mknod(unix.S_IFBLK|0o600, unix.Mkdev(260, 70000)), 0o660, anywhere)},
	}
}

// pattern returns size bytes of data. Every block of it differs.
func pattern(size int) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(i>>12) ^ byte(i*7) | 1
	}
	return b
}

// makeSparse makes a file of that size with 4 KiB of data at each offset.
func makeSparse(t *testing.T, path string, size int64, at ...int64) {
	t.Helper()
	f, err := os.Create(path)
	must(t, err)
	defer f.Close()
	for _, off := range at {
		_, err = f.WriteAt(pattern(4096), off)
		must(t, err)
	}
	must(t, f.Truncate(size))
	must(t, f.Sync()) // the file system reports an extent when it is on disk
}

// mountFS mounts a new file system: "tmpfs", "ramfs", or one on a loop device. Its ext4 reports no
// types of entries in listings.
func mountFS(t *testing.T, fstype, options string) string {
	t.Helper()
	switch fstype {
	case "tmpfs", "ramfs":
		return testkit.Mount(t, fstype, fstype, options)
	case "ext4":
		return testkit.MountImage(t, fstype, options, "-O", "^filetype")
	}
	return testkit.MountImage(t, fstype, options)
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	output(t, name, args...)
}

func count(ops []sys.Op, match func(sys.Op) bool) int {
	n := 0
	for _, op := range ops {
		if match(op) {
			n++
		}
	}
	return n
}

// asIs returns an object of a layer without a scheme.
func asIs(r sys.Ref) owner.Ref { return (*owner.Scheme)(nil).On(r) }
