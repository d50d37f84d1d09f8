package commands

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// merge runs fuse-overlay merge on the layers of o.
func merge(o *harness.Overlay, flags ...string) (out string, code int) {
	args := append([]string{"merge", "--workdir", o.Work}, flags...)
	out, err := harness.Run(harness.Program, append(append(args, o.Upper), o.Lowers...)...)
	return out, harness.ExitCode(err)
}

// mergeView is what a merge keeps. Link counts are left out: the names that a broken link leaves in
// the lower count no more.
var mergeView = harness.View{Mode: true, Owner: true, Xattrs: true, Also: func(_ string, st *unix.Stat_t) string {
	return fmt.Sprint(" ", st.Mtim)
}}

// shownBy returns the tree of a mount of o.
func shownBy(t *testing.T, o *harness.Overlay) map[string]string {
	t.Helper()
	o.Mount()
	defer o.Unmount()
	lines, err := harness.Snapshot(o.Point, mergeView)
	harness.Check(t, err)
	return lines
}

// wantMerged merges o, and fails the test unless its mounts show the same as before, those of the
// kernel too, and the upper is empty and valid.
func wantMerged(t *testing.T, o *harness.Overlay, kernel bool) {
	t.Helper()
	before := shownBy(t, o)
	if out, code := merge(o, "--yes"); code != 0 {
		t.Fatalf("exit code %d\n%s", code, out)
	}
	harness.WantNames(t, o.Upper)
	if code, out := checkCode(o); code != 0 {
		t.Errorf("a check after the merge:\n%s", out)
	}
	for _, o.Kernel = range []bool{false, true} {
		if o.Kernel && !kernel {
			break
		}
		if diff := harness.DiffLines(before, shownBy(t, o)); diff != "" {
			t.Errorf("mounted by the kernel %v after the merge:\n%s", o.Kernel, diff)
		}
	}
	o.Kernel = false
	if len(o.Lowers) == 1 {
		plain, err := harness.Snapshot(o.Lowers[0], mergeView)
		harness.Check(t, err)
		if diff := harness.DiffLines(before, plain); diff != "" {
			t.Errorf("the lower is another tree:\n%s", diff)
		}
	}
	if out, code := merge(o, "--yes"); code != 0 || out != "" {
		t.Errorf("a second merge: exit code %d\n%s", code, out)
	}
}

func checkCode(o *harness.Overlay) (code int, out string) {
	out, code = checkLayers(o)
	return code, out
}

// After a merge the mounts show what they showed, and the lower alone does, in each mode and with
// each feature of the format.
func TestMerge(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		isRoot := slices.Contains(harness.RootModes, e.Mode)
		for _, tt := range []struct {
			opts  []string
			kinds string
		}{
			{nil, ""},
			{[]string{"redirect_dir=on"}, ""},
			{[]string{"redirect_dir=on", "metacopy=on", "index=on"}, "root"},
			{[]string{"xattr_permissions=2"}, "owners"},
		} {
			if tt.kinds == "root" && !isRoot {
				continue
			}
			for _, lowers := range [][]string{{harness.BusyTree}, {harness.BusyTree, "file usr/lib/below\nfile etc/below\nfile etc/dir/g\nfile bin/tool2"}} {
				t.Run(fmt.Sprint(tt.opts, len(lowers)), func(t *testing.T) {
					e := harness.NewEnv(t, e.Mode)
					e.Opts = append(e.Opts, tt.opts...)
					lowers[0] += "\nfile links/a \"1\"\nlink links/b links/a\nlink links/c links/a"
					o := e.Mounted(t, lowers...)
					harness.Shell(t, o.Point, harness.Busywork+`
						echo 2 >>links/b; rm links/c; mv links moved 2>/dev/null || true; chmod 711 usr`)
					if out, code := merge(o, "--yes"); code != 1 || !strings.Contains(out, "mount on") {
						t.Errorf("a merge of mounted layers: exit code %d\n%s", code, out)
					}
					o.Unmount()
					if tt.kinds == "owners" {
						wantMergedOwners(t, o)
						return
					}
					wantMerged(t, o, isRoot && len(tt.opts) == 0)
				})
			}
		}
	})
}

// wantMergedOwners is wantMerged for an upper with owners in attributes.
func wantMergedOwners(t *testing.T, o *harness.Overlay) {
	t.Helper()
	before := shownBy(t, o)
	if out, code := merge(o, "--yes", "-o", "xattr_permissions=2"); code != 0 {
		t.Fatalf("exit code %d\n%s", code, out)
	}
	if diff := harness.DiffLines(before, shownBy(t, o)); diff != "" {
		t.Errorf("after the merge:\n%s", diff)
	}
}

// What a merge prints, and what it refuses.
func TestMergeCommand(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, "file a\nfile gone")
		harness.Shell(t, o.Point, "echo 1 >>a; rm gone; mkdir d; touch -d @1000 .")
		o.Unmount()
		const lines = "M .\ttimes\nM a\tcontent,times\nA d\nD gone\n"
		if out, code := merge(o, "--dry-run"); code != 0 || out != lines {
			t.Errorf("--dry-run: exit code %d\n%s", code, out)
		}
		if out, code := merge(o, "-n", "--json"); code != 0 || !strings.Contains(out, `{"kind":"D","path":"gone"`) {
			t.Errorf("--json: exit code %d\n%s", code, out)
		}
		if out, code := merge(o); code != 2 || !strings.Contains(out, "--yes") {
			t.Errorf("without a terminal: exit code %d\n%s", code, out)
		}
		harness.WantNames(t, o.Upper, "a", "d", "gone")

		user := o.Second(t)
		user.Upper, user.Work = "", ""
		user.Lowers = append([]string{e.Dir}, o.Lowers...)
		user.Lowers[0] = filepath.Join(e.Dir, "other")
		harness.Mkdir(t, user.Lowers[0])
		user.Mount()
		if out, code := merge(o, "--yes"); code != 1 || !strings.Contains(out, "is a layer of the mount on") {
			t.Errorf("a lower of another mount: exit code %d\n%s", code, out)
		}
		user.Unmount()

		into := filepath.Join(e.Dir, "copy")
		before := shownBy(t, o)
		if out, code := merge(o, "--into", into); code != 0 || out != "" {
			t.Errorf("--into: exit code %d\n%s", code, out)
		}
		got, err := harness.Snapshot(into, mergeView)
		harness.Check(t, err)
		if diff := harness.DiffLines(before, got); diff != "" {
			t.Errorf("the copy:\n%s", diff)
		}
		if out, code := merge(o, "--yes"); code != 0 || out != lines {
			t.Errorf("exit code %d\n%s", code, out)
		}
	})
}

// Upper and lower may lie on different file systems.
func TestMergeToAnotherFileSystem(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		memory := filepath.Join(e.Dir, "memory")
		harness.Mkdir(t, memory)
		harness.Check(t, unix.Mount("none", memory, "tmpfs", 0, ""))
		defer func() { harness.Check(t, harness.UnmountAt(memory)) }()
		o := e.Overlay(t, harness.BusyTree)
		o.Upper, o.Work = filepath.Join(memory, "upper"), filepath.Join(memory, "work")
		harness.Mkdir(t, o.Upper, o.Work)
		o.Opts = append(o.Opts, "redirect_dir=on", "metacopy=on")
		o.Mount()
		harness.Shell(t, o.Point, harness.Busywork+"\nmknod var/null c 1 3; setfattr -n user.x -v y new; touch -d '2001-02-03 04:05:06.123456789' new/deep/f")
		o.Unmount()
		wantMerged(t, o, false)
	})
}

// A merge that is killed at any time leaves layers that show what they showed, or that no mount
// takes. A second one completes it.
func TestMergeKilled(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "")
		for i := range 300 {
			harness.Write(t, fmt.Sprint(o.Lowers[0], "/old", i), "old")
		}
		o.Mount()
		harness.Shell(t, o.Point, `for i in $(seq 0 299); do echo new >new$i; case $i in *[05]) rm old$i;; *) echo more >>old$i;; esac; done`)
		o.Unmount()
		before, killed := shownBy(t, o), 0
		for wait := 4 * time.Millisecond; wait < time.Second; wait += wait / 4 {
			cmd := exec.Command(harness.Program, "merge", "--yes", "--workdir", o.Work, o.Upper, o.Lowers[0])
			harness.Check(t, cmd.Start())
			timer := time.AfterFunc(wait, func() { _ = cmd.Process.Kill() })
			err := cmd.Wait()
			timer.Stop()
			if err == nil {
				break
			}
			killed++
			if out, err := o.TryMount(); err != nil {
				if !strings.Contains(out, "the same fuse-overlay merge completes it") {
					t.Fatalf("after a kill: %v\n%s", err, out)
				}
				continue
			}
			now, err := harness.Snapshot(o.Point, mergeView)
			harness.Check(t, err)
			o.Unmount()
			if diff := harness.DiffLines(before, now); diff != "" {
				t.Fatalf("after a kill:\n%s", diff)
			}
		}
		if out, code := merge(o, "--yes"); code != 0 {
			t.Fatalf("exit code %d\n%s", code, out)
		}
		if diff := harness.DiffLines(before, shownBy(t, o)); diff != "" || killed == 0 {
			t.Errorf("after %d kills:\n%s", killed, diff)
		}
		if _, err := os.Lstat(filepath.Join(o.Work, "work/incompat")); !os.IsNotExist(err) {
			t.Errorf("work/incompat: %v", err)
		}
	})
}
