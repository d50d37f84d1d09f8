package faults

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// cgroup is a cgroup with one controller, of version 1 or 2, whichever has the controller.
type cgroup struct {
	t   *testing.T
	dir string
	v2  bool
}

// newCgroup makes a cgroup below the root of the hierarchy, until the test ends. It needs root.
func newCgroup(t *testing.T, controller string) *cgroup {
	t.Helper()
	root := filepath.Join(t.TempDir(), "cgroups")
	harness.Mkdir(t, root)
	c := &cgroup{t: t}
	if unix.Mount("cgroup", root, "cgroup", 0, controller) != nil {
		c.v2 = true
		harness.Check(t, unix.Mount("cgroup2", root, "cgroup2", 0, ""))
		harness.Check(t, os.WriteFile(root+"/cgroup.subtree_control", []byte("+"+controller), 0))
	}
	t.Cleanup(func() {
		if err := unix.Unmount(root, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	c.dir = filepath.Join(root, filepath.Base(harness.RunDir)+"-"+fmt.Sprint(time.Now().UnixNano()))
	harness.Check(t, os.Mkdir(c.dir, 0o755))
	t.Cleanup(func() {
		// A process that has ended stays until its parent has reaped it.
		if err := error(nil); !harness.Eventually(5*time.Second, func() bool { err = unix.Rmdir(c.dir); return err == nil }) {
			t.Errorf("removing %s: %v", c.dir, err)
		}
	})
	return c
}

// set writes a value to a file, whose name may differ between the versions.
func (c *cgroup) set(v1, v2, value string) {
	c.t.Helper()
	harness.Check(c.t, os.WriteFile(filepath.Join(c.dir, c.file(v1, v2)), []byte(value), 0))
}

// number is the number in a file, behind key if that is not empty.
func (c *cgroup) number(v1, v2, key string) (n int64) {
	c.t.Helper()
	for line := range strings.Lines(harness.ReadText(c.t, filepath.Join(c.dir, c.file(v1, v2)))) {
		if rest, ok := strings.CutPrefix(line, key); ok {
			_, err := fmt.Sscan(rest, &n)
			harness.Check(c.t, err)
			return n
		}
	}
	c.t.Fatalf("%s lacks %q", c.file(v1, v2), key)
	return 0
}

func (c *cgroup) file(v1, v2 string) string {
	if c.v2 {
		return v2
	}
	return v1
}

// hold has the daemon of an overlay run in the cgroup.
func (c *cgroup) hold(o *harness.Overlay) {
	c.t.Helper()
	o.Program = filepath.Join(o.Env.Dir, "in-cgroup")
	harness.Check(c.t, os.WriteFile(o.Program, fmt.Appendf(nil, "#!/bin/sh\necho $$ >%s/cgroup.procs && exec %s \"$@\"\n", c.dir,
		harness.Program), 0o755))
}
