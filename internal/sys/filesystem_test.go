package sys

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
)

// FSInfo describes real file systems.
func TestFileSystem(t *testing.T) {
	for _, c := range []struct {
		options string
		mkfs    []string
		kind    string
		has     string
		journal bool
	}{
		{"", nil, "ext4", "data=ordered", true},
		{"data=writeback", nil, "ext4", "data=writeback", true},
		{"", []string{"-O", "^has_journal"}, "ext4", "rw", false},
		{"", nil, "xfs", "rw", false},
	} {
		fs, err := openPlain(t, testkit.MountImage(t, c.kind, c.options, c.mkfs...)).FSInfo()
		if err != nil || fs.Type != c.kind || !slices.Contains(fs.Options, c.has) || fs.OwnJournal != c.journal {
			t.Errorf("%s %v %s: %+v, %v", c.kind, c.mkfs, c.options, fs, err)
		}
	}
	point := t.TempDir()
	must(t, unix.Mount("tmpfs", point, "tmpfs", 0, ""))
	d := openPlain(t, point)
	if fs, err := d.FSInfo(); err != nil || fs.Type != "tmpfs" || fs.OwnJournal {
		t.Errorf("tmpfs: %+v, %v", fs, err)
	}
	want(t, "detach", unix.Unmount(point, unix.MNT_DETACH), nil)
	_, err := d.FSInfo()
	want(t, "a file system that is mounted nowhere", err, unix.ENOENT)
	SetFault(func(op Op) error {
		if op.Call == "open" {
			return unix.EACCES
		}
		return nil
	})
	_, err = d.FSInfo()
	SetFault(nil)
	want(t, "without /proc", err, unix.EACCES)
}

func TestFindMount(t *testing.T) {
	table := `22 27 0:21 / /proc rw,relatime - proc proc rw
broken
40 27 8:17 /sub /mnt\040a rw shared:7 master:1 - xfs /dev/sdb1 rw,attr2,logdev=/dev/sdc
41 27 8:1 / / rw,noatime - ext4 /dev/root rw,data=journal
42 27 8:170 / /other rw - btrfs /dev/x
`
	for _, c := range []struct {
		major, minor uint32
		want         string
	}{
		{8, 17, "xfs rw,attr2,logdev=/dev/sdc"}, {8, 1, "ext4 rw,data=journal"}, {0, 21, "proc rw"},
		{8, 170, ""}, {8, 7, ""}, {0, 0, ""},
	} {
		fs, ok := findMount(table, unix.Mkdev(c.major, c.minor))
		if got := strings.TrimSpace(fs.Type + " " + strings.Join(fs.Options, ",")); got != c.want || ok != (c.want != "") {
			t.Errorf("%d:%d: %q %v, want %q", c.major, c.minor, got, ok, c.want)
		}
	}
}

// An O_TMPFILE file is written, synced, and gets its name by a link, as root and as a plain user.
// Without one it is gone.
func TestTmpfile(t *testing.T) {
	d, path := layer(t)
	must(t, os.Chmod(path, 0o777))
	for p := filepath.Dir(path); p != os.TempDir(); p = filepath.Dir(p) {
		must(t, os.Chmod(p, 0o755))
	}
	try := func(name string) error {
		f, err := d.CreateTmpfile(0o640)
		if err != nil {
			return err
		}
		defer f.Close()
		if _, err := f.Pwrite([]byte("text"), 0); err != nil {
			return err
		}
		if err := f.WriteBack(); err != nil {
			return err
		}
		if err := d.Link(f.Ref(), name); err != nil {
			return err
		}
		if err := d.Link(f.Ref(), name); err != unix.EEXIST {
			return fmt.Errorf("over a name: %w", err)
		}
		return nil
	}
	must(t, try("root"))
	testkit.AsUser(t, plainUser, func() {
		if err := try("user"); err != nil {
			t.Error(err)
		}
	})
	for _, name := range []string{"root", "user"} {
		if st := statOf(t, d.At(name)); st.Size != 4 || st.Mode != unix.S_IFREG|0o640 || st.Nlink != 1 {
			t.Errorf("%s: %d bytes, mode %o, %d names", name, st.Size, st.Mode, st.Nlink)
		}
	}
	f, err := d.CreateTmpfile(0)
	must(t, err)
	f.Close()
	n := 0
	must(t, d.List(func(Dirent) error { n++; return nil }))
	if n != 2 {
		t.Errorf("%d names, want 2", n)
	}
}
