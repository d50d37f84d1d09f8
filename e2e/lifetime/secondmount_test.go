package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Container engines mount the upper of a running container a second time, to make a layer of it or to export it.

// secondOf is another overlay of the same layers, to be mounted beside o.
func secondOf(t *testing.T, o *overlay, opts ...string) *overlay {
	t.Helper()
	second := &overlay{
		t: t, env: o.env, lowers: o.lowers, upper: o.upper, work: o.work, mnt: o.env.dir + "/second", log: o.env.dir + "/second.log",
		opts: append(append([]string{}, o.opts...), opts...),
	}
	mkdir(t, second.mnt)
	return second
}

// inodesOf are the inode numbers in a tree.
func inodesOf(t *testing.T, dir string) map[string]string {
	t.Helper()
	lines, err := snapshot(dir, view{also: func(_ string, st *unix.Stat_t) string { return fmt.Sprintf(" ino %d", st.Ino) }})
	check(t, err)
	return lines
}

// With ro an upper in use is read beside the mount that has it, and a mount that writes comes up beside the reader. The reader
// changes nothing on disk and needs no work directory; it shows the same objects under the same numbers.
func TestReadOnlyMountOfAnUpperInUse(t *testing.T) {
	needDaemon(t)
	eachMode(t, allModes, func(t *testing.T, e *env) {
		o := e.mounted(t, "file d/f \"lower\"\nfile d/gone \"x\"\nfile kept \"k\"\ndir replaced\nfile replaced/x \"x\"")
		write(t, o.path("d/f"), "upper")
		write(t, o.path("d/new"), "new")
		check(t, os.Remove(o.path("d/gone")))
		check(t, os.RemoveAll(o.path("replaced")))
		mkdir(t, o.path("replaced"))
		for _, work := range []string{o.work, o.env.dir + "/none"} {
			before := listed(t, o.upper) + listed(t, o.work)
			reader := secondOf(t, o, "ro")
			reader.work = work
			reader.mount()
			if d := diffLines(inodesOf(t, o.mnt), inodesOf(t, reader.mnt)); d != "" {
				t.Errorf("the reader shows other objects:\n%s", d)
			}
			if err := os.WriteFile(reader.path("d/f"), nil, 0o644); !os.IsPermission(err) && !strings.Contains(err.Error(), "read-only") {
				t.Errorf("writing: %v", err)
			}
			if e.mode == modeRoot { // what the kernel lets root do, the daemon refuses
				check(t, unix.Mount("", reader.mnt, "", unix.MS_REMOUNT, ""))
				for what, err := range map[string]error{
					"create": os.WriteFile(reader.path("d/by reader"), nil, 0o644), "chmod": os.Chmod(reader.path("d/f"), 0o600),
					"remove": os.Remove(reader.path("d/f")), "truncate": os.Truncate(reader.path("d/f"), 0),
				} {
					if !strings.Contains(fmt.Sprint(err), "read-only file system") {
						t.Errorf("%s on a reader that is mounted anew as rw: %v", what, err)
					}
				}
			}
			equal(t, "the upper and the work directory", listed(t, o.upper)+listed(t, o.work), before)
			write(t, o.path("d/f"), "upper") // the mount that writes is not disturbed

			o.unmount()
			o.mount() // beside the reader
			wantText(t, o.path("d/f"), "upper")
			reader.unmount()
			wantAbsent(t, o.env.dir+"/none")
		}
	})
}

// compatProgram is the program by the name of fuse-overlayfs.
func compatProgram(t *testing.T, e *env) string {
	t.Helper()
	link := filepath.Join(e.dir, "fuse-overlayfs")
	check(t, os.Symlink(binPath, link))
	return link
}

// Under the name fuse-overlayfs, a second mount of an upper comes up without ro too. It is
// read-only, and the log contains a warning. It leaves the staged files of the first mount's
// copy-ups in place.
func TestSecondMountAsFuseOverlayfs(t *testing.T) {
	needDaemon(t)
	eachMode(t, allModes, func(t *testing.T, e *env) {
		table := ""
		for i := range 200 {
			table += fmt.Sprintf("file d/%d \"lower %d\"\n", i, i)
		}
		o := e.mounted(t, table)
		second := secondOf(t, o)
		second.name = compatProgram(t, e)
		done := make(chan error, 1)
		go func() {
			for i := range 200 {
				if err := os.Chmod(o.path(fmt.Sprintf("d/%d", i)), 0o600); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
		for range 5 {
			second.mount()
			if text := readText(t, second.path("d/7")); text != "lower 7" {
				t.Errorf("the second mount reads %q", text)
			}
			if err := os.WriteFile(second.path("d/other"), nil, 0o644); err == nil || !strings.Contains(err.Error(), "read-only") {
				t.Errorf("writing to the second mount: %v", err)
			}
			second.unmount()
		}
		if err := <-done; err != nil {
			t.Errorf("the first mount: %v", err)
		}
		holder := fmt.Sprintf("the mount on \\\"%s\\\", process %d ", o.mnt, o.pid)
		if log := readText(t, second.log); !strings.Contains(log, "WARN") || !strings.Contains(log, holder) {
			t.Errorf("the log does not name %q:\n%s", holder, log)
		}
		wantEmpty(t, filepath.Join(o.work, "work"))
		o.unmount()

		second.mount() // now it is the only one
		write(t, second.path("d/other"), "written")
		second.unmount()
		wantText(t, o.upper+"/d/other", "written")
		names, err := os.ReadDir(o.upper + "/d")
		check(t, err)
		equal(t, "copies in the upper", len(names), 201)
	})
}

// wantEmpty fails when a directory has entries.
func wantEmpty(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	check(t, err)
	if len(entries) > 0 {
		t.Errorf("%s holds %v", dir, entries)
	}
}
