package commands

import (
	"encoding/json"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// vacuum runs fuse-overlay vacuum on the layers of o.
func vacuum(o *harness.Overlay, flags ...string) (out string, code int) {
	args := append([]string{"vacuum", "--workdir", o.Work}, flags...)
	out, err := harness.Run(harness.Program, append(append(args, o.Upper), o.Lowers...)...)
	return out, harness.ExitCode(err)
}

// numbers returns the inode numbers of all objects in a tree.
func numbers(t *testing.T, root string) map[string]uint64 {
	t.Helper()
	all := map[string]uint64{}
	harness.Check(t, filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st syscall.Stat_t
		err = syscall.Lstat(path, &st)
		all[strings.TrimPrefix(path, root)] = st.Ino
		return err
	}))
	return all
}

// A mount shows the same before and after a vacuum, inode numbers too, and so does the kernel's
// overlayfs. What has changed stays in the upper.
func TestVacuum(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, harness.BusyTree+"\nfile same/a \"1\"\nfile same/b/c \"2\"\nsymlink same/l a", "file same/below")
		harness.Shell(t, o.Point, harness.Busywork+`
			chmod 700 same/a same/b; chmod 644 same/a; chmod 755 same/b; setfattr -n user.x -v 1 same/b/c; setfattr -x user.x same/b/c`)
		if out, code := vacuum(o, "--yes"); code != 1 || !strings.Contains(out, "in use by the mount on") {
			t.Errorf("a vacuum of mounted layers: exit code %d\n%s", code, out)
		}
		o.Remount()
		before, err := harness.Snapshot(o.Point, harness.ExactView)
		harness.Check(t, err)
		inodes := numbers(t, o.Point)
		o.Unmount()
		harness.Check(t, unix.Mknod(filepath.Join(o.Upper, "etc", "none"), unix.S_IFCHR, 0))
		upper := numbers(t, o.Upper)

		const drops = "whiteout\tetc/none\ncopy\tsame/a\ncopy\tsame/b/c\ndirectory\tsame/b\ndirectory\tsame\n"
		if out, code := vacuum(o, "--dry-run"); code != 0 || !strings.HasPrefix(out, drops) {
			t.Errorf("--dry-run: exit code %d\n%s", code, out)
		}
		var found []struct {
			Kind, Path string
			Bytes      int64
		}
		out, code := vacuum(o, "-n", "--json")
		if err := json.Unmarshal([]byte(out), &found); err != nil || code != 0 || len(found) < 5 || found[1].Path != "same/a" || found[1].Bytes == 0 {
			t.Errorf("--json: exit code %d, %v\n%s", code, err, out)
		}
		if out, code := vacuum(o); code != 2 || !strings.Contains(out, "--yes") {
			t.Errorf("without a terminal: exit code %d\n%s", code, out)
		}
		if now := numbers(t, o.Upper); !maps.Equal(now, upper) {
			t.Error("a dry run has changed the upper")
		}
		if out, code := vacuum(o, "--yes"); code != 0 || !strings.HasPrefix(out, drops) {
			t.Errorf("exit code %d\n%s", code, out)
		}
		for _, gone := range []string{"same", "etc/none"} {
			if _, err := os.Lstat(filepath.Join(o.Upper, gone)); !os.IsNotExist(err) {
				t.Errorf("%s is still in the upper: %v", gone, err)
			}
		}
		if out, code := vacuum(o, "--yes"); code != 0 || out != "" {
			t.Errorf("a second vacuum: exit code %d\n%s", code, out)
		}
		wantCheck(t, "after the vacuum", o, "", 0)
		for _, kernel := range []bool{false, true} {
			if o.Kernel = kernel; kernel && !slices.Contains(harness.RootModes, e.Mode) {
				break
			}
			o.Mount()
			after, err := harness.Snapshot(o.Point, harness.ExactView)
			harness.Check(t, err)
			if diff := harness.DiffLines(before, after); diff != "" {
				t.Errorf("mounted by the kernel %v after the vacuum:\n%s", kernel, diff)
			}
			if now := numbers(t, o.Point); !kernel && !maps.Equal(now, inodes) {
				t.Errorf("inode numbers have changed: %v, they were %v", now, inodes)
			}
			o.Unmount()
		}
	})
}
