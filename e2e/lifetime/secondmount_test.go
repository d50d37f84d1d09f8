package lifetime

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// inodesOf are the inode numbers in a tree.
func inodesOf(t *testing.T, dir string) map[string]string {
	t.Helper()
	lines, err := harness.Snapshot(dir, harness.View{Also: func(_ string,
		st *unix.Stat_t) string {
		return fmt.Sprintf(" ino %d", st.Ino)
	}})
	harness.Check(t, err)
	return lines
}

// A mount with ro can read an upper that another mount uses, and a mount that writes is possible
// beside the reader. The reader changes nothing on disk and needs no work directory. It shows the
// same objects with the same numbers.
func TestReadOnlyMountOfAnUpperInUse(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, "file d/f \"lower\"\nfile d/gone \"x\"\nfile kept \"k\"\ndir replaced\nfile replaced/x \"x\"")
		harness.Write(t, o.Path("d/f"), "upper")
		harness.Write(t, o.Path("d/new"), "new")
		harness.Check(t, os.Remove(o.Path("d/gone")))
		harness.Check(t, os.RemoveAll(o.Path("replaced")))
		harness.Mkdir(t, o.Path("replaced"))
		for _, work := range []string{o.Work, o.Env.Dir + "/none"} {
			before := listed(t, o.Upper) + listed(t, o.Work)
			reader := o.Second(t, "ro")
			reader.Work = work
			reader.Mount()
			if d := harness.DiffLines(inodesOf(t, o.Point), inodesOf(t, reader.Point)); d != "" {
				t.Errorf("the reader shows other objects:\n%s", d)
			}
			if err := os.WriteFile(reader.Path("d/f"), nil, 0o644); !os.IsPermission(err) && !strings.Contains(err.Error(),
				"read-only") {
				t.Errorf("writing: %v", err)
			}
			if e.Mode == harness.ModeRoot { // the kernel allows it to root, the daemon refuses it
				harness.Check(t, unix.Mount("", reader.Point, "", unix.MS_REMOUNT, ""))
				for what, err := range map[string]error{
					"create": os.WriteFile(reader.Path("d/by reader"), nil, 0o644), "chmod": os.Chmod(reader.Path("d/f"), 0o600),
					"remove": os.Remove(reader.Path("d/f")), "truncate": os.Truncate(reader.Path("d/f"), 0),
				} {
					if !strings.Contains(fmt.Sprint(err), "read-only file system") {
						t.Errorf("%s on a reader that is mounted anew as rw: %v", what, err)
					}
				}
			}
			harness.Equal(t, "the upper and the work directory", listed(t, o.Upper)+listed(t, o.Work), before)
			harness.Write(t, o.Path("d/f"), "upper") // the mount that writes is not disturbed

			o.Unmount()
			o.Mount() // beside the reader
			harness.WantText(t, o.Path("d/f"), "upper")
			reader.Unmount()
			harness.WantAbsent(t, o.Env.Dir+"/none")
		}
	})
}

// compatProgram is the program under the name fuse-overlayfs.
func compatProgram(t *testing.T, e *harness.Env) string {
	t.Helper()
	link := filepath.Join(e.Dir, "fuse-overlayfs")
	harness.Check(t, os.Symlink(harness.Program, link))
	return link
}

// Under the name fuse-overlayfs, a second mount of an upper succeeds without ro too. It is
// read-only, and the log contains a warning. It leaves the staged files of the first mount's
// copy-ups in place.
func TestSecondMountAsFuseOverlayfs(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		table := ""
		for i := range 200 {
			table += fmt.Sprintf("file d/%d \"lower %d\"\n", i, i)
		}
		o := e.Mounted(t, table)
		second := o.Second(t)
		second.Program = compatProgram(t, e)
		done := make(chan error, 1)
		go func() {
			for i := range 200 {
				if err := os.Chmod(o.Path(fmt.Sprintf("d/%d", i)), 0o600); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
		for range 5 {
			second.Mount()
			if text := harness.ReadText(t, second.Path("d/7")); text != "lower 7" {
				t.Errorf("the second mount reads %q", text)
			}
			if err := os.WriteFile(second.Path("d/other"), nil, 0o644); err == nil || !strings.Contains(err.Error(),
				"read-only") {
				t.Errorf("writing to the second mount: %v", err)
			}
			second.Unmount()
		}
		if err := <-done; err != nil {
			t.Errorf("the first mount: %v", err)
		}
		holder := fmt.Sprintf("the mount on \\\"%s\\\", process %d ", o.Point, o.PID)
		if log := harness.ReadText(t, second.Log); !strings.Contains(log, "WARN") || !strings.Contains(log, holder) {
			t.Errorf("the log does not name %q:\n%s", holder, log)
		}
		wantEmpty(t, filepath.Join(o.Work, "work"))
		o.Unmount()

		second.Mount() // now it is the only one
		harness.Write(t, second.Path("d/other"), "written")
		second.Unmount()
		harness.WantText(t, o.Upper+"/d/other", "written")
		names, err := os.ReadDir(o.Upper + "/d")
		harness.Check(t, err)
		harness.Equal(t, "copies in the upper", len(names), 201)
	})
}
