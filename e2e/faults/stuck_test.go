package faults

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// stuckLimit is the time limit of operations that do not use the stalled layer.
const stuckLimit = time.Second

// within fails the test if f does not end in time. f then waits until the layer replies again, so
// the test has to make it reply.
func within(t *testing.T, what string, f func() error) {
	t.Helper()
	done := make(chan error, 1)
	start := time.Now()
	go func() { done <- f() }()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if took := time.Since(start); took > stuckLimit {
			t.Errorf("%s took %v", what, took)
		}
	case <-time.After(10 * stuckLimit):
		t.Fatalf("%s hangs", what)
	}
}

// stuckWork makes one request of each kind that does not need the stalled layer: in directories
// that have no part in that layer, and in the root, which has one.
func stuckWork(t *testing.T, mnt string, round int) {
	t.Helper()
	h := mnt + "/healthy"
	name := func(format string) string { return fmt.Sprintf(format, round) }
	d, e := h+name("/d%d"), h+name("/e%d")
	for _, c := range []struct {
		what string
		f    func() error
	}{
		{"stat of a directory", func() error { _, err := os.Lstat(h); return err }},
		{"stat of the root", func() error { _, err := os.Lstat(mnt); return err }},
		{"mkdir", func() error { return os.Mkdir(d, 0o755) }},
		{"mkdir beside", func() error { return os.Mkdir(e, 0o755) }},
		{"mkdir in the root", func() error { return os.Mkdir(mnt+name("/new%d"), 0o755) }},
		{"create and write", func() error { return os.WriteFile(d+"/f", []byte("text"), 0o644) }},
		{"create in the root", func() error { return os.WriteFile(mnt+name("/file%d"), []byte("text"), 0o644) }},
		{"read", func() error { _, err := os.ReadFile(d + "/f"); return err }},
		{"read of a lower", func() error { _, err := os.ReadFile(h + name("/low/f%d")); return err }},
		{"chmod of a lower", func() error { return os.Chmod(h+name("/low/f%d"), 0o600) }},
		{"append to a lower", func() error { return harness.AppendErr(h + name("/low/f%d")) }},
		{"link", func() error { return os.Link(d+"/f", e+"/link") }},
		{"symlink", func() error { return os.Symlink("f", d+"/symlink") }},
		{"setxattr", func() error { return unix.Setxattr(d+"/f", "user.x", []byte("x"), 0) }},
		{"rename", func() error { return os.Rename(d+"/f", d+"/g") }},
		{"rename in the root", func() error { return os.Rename(mnt+name("/file%d"), mnt+name("/renamed%d")) }},
		{"rename over another", func() error { return os.Rename(d+"/g", e+"/link2") }},
		{"rename across directories", func() error { return os.Rename(e+"/link2", d+"/f2") }},
		{"rename of a lower", func() error { return os.Rename(h+name("/low/f%d"), h+name("/low/moved%d")) }},
		{"rename of a directory", func() error { return os.Rename(e, d+"/e") }},
		{"readdir", func() error { _, err := os.ReadDir(d); return err }},
		{"readdir of a lower", func() error { _, err := os.ReadDir(h + "/low"); return err }},
		{"truncate", func() error { return os.Truncate(d+"/f2", 1) }},
		{"utimes", func() error { return os.Chtimes(d+"/f2", time.Now(), time.Now()) }},
		{"statfs", func() error { return syscall.Statfs(mnt, &syscall.Statfs_t{}) }},
		{"unlink of a lower", func() error { return os.Remove(h + name("/low/g%d")) }},
		{"unlink", func() error { return os.Remove(d + "/f2") }},
		{"rmdir", func() error { return os.Remove(mnt + name("/new%d")) }},
		{"removal of a tree", func() error { return os.RemoveAll(d) }},
	} {
		within(t, c.what, c.f)
	}
}

// stuckUses are uses of the stalled layer, each with a number of its own.
var stuckUses = []string{
	"exec cat silent/f%d", "exec cat silent/large%d", "exec stat silent/sub/f%d", "exec ls silent/d%d",
	"echo x >>silent/a%d", "exec chmod 600 silent/c%d", "exec mv -T silent/m%d silent/n%[1]d", "exec rm silent/r%d",
}

// A layer that does not reply stops the processes that use it, however many, and no other process.
func TestStuckLayer(t *testing.T) {
	harness.NeedDaemon(t)
	for _, c := range []struct {
		name string
		uses [][]string // what is under way together
	}{
		{"one", slices.Collect(slices.Chunk(stuckUses, 1))},
		{"64", [][]string{slices.Repeat(stuckUses, 8)}},
		{"200", [][]string{slices.Repeat(stuckUses, 25)}},
		{"200 that read ahead", [][]string{slices.Repeat(stuckUses[1:2], 200)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) { stuckLayer(t, e, c.uses) })
		})
	}
}

func stuckLayer(t *testing.T, e *harness.Env, uses [][]string) {
	var silent, healthy strings.Builder
	for i := range max(len(uses), len(uses[0])) {
		for _, name := range []string{"f", "sub/f", "a", "c", "m", "r"} {
			fmt.Fprintf(&silent, "file silent/%s%d \"text\"\n", name, i)
		}
		fmt.Fprintf(&silent, "file silent/d%d/f \"text\"\nfile silent/large%d %q\n", i, i, strings.Repeat("x", 150<<10))
	}
	for i := range len(uses) + 2 {
		fmt.Fprintf(&healthy, "file healthy/low/f%d \"text\"\nfile healthy/low/g%d \"text\"\n", i, i)
	}
	o := e.Overlay(t, healthy.String(), silent.String())
	o.Opts = nil // no passthrough to what is FUSE itself
	layer := newStall(e, t, o.Lowers[1])
	o.Lowers[1] = layer.mnt
	o.Mount()
	stuckWork(t, o.Point, 0)
	harness.Shell(t, o.Point, "ls -l silent >/dev/null")
	for round, together := range uses {
		layer.stop()
		var users []*exec.Cmd
		for i, use := range together {
			cmd := exec.Command("sh", "-c", fmt.Sprintf(use, max(i, round)))
			cmd.Dir = o.Point
			harness.Check(t, cmd.Start())
			users = append(users, cmd)
		}
		time.Sleep(300 * time.Millisecond)
		stuckWork(t, o.Point, 1+round)
		layer.answer()
		for i, cmd := range users {
			if err := cmd.Wait(); err != nil {
				t.Errorf("%s, after the layer answers again: %v", together[i], err)
			}
		}
	}
}

// The mount can be unmounted while a layer does not reply. The calls of processes that wait for
// that layer then return.
func TestStuckLayerAndTheEnd(t *testing.T) {
	harness.NeedDaemon(t)
	for _, c := range []struct {
		name string
		end  func(t *testing.T, o *harness.Overlay)
	}{
		{"SIGTERM", func(t *testing.T, o *harness.Overlay) { harness.Check(t, syscall.Kill(o.PID, syscall.SIGTERM)) }},
		{"abort", func(t *testing.T, o *harness.Overlay) {
			harness.AbortConnection(o.Minor)
			harness.Check(t, unix.Unmount(o.Point, unix.MNT_DETACH))
		}},
		{"umount -l", func(t *testing.T, o *harness.Overlay) { harness.Check(t, unix.Unmount(o.Point, unix.MNT_DETACH)) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
				o := e.Overlay(t, "file healthy/f", "file silent/f \"text\"\nfile silent/g \"text\"")
				o.Opts = nil
				layer := newStall(e, t, o.Lowers[1])
				o.Lowers[1] = layer.mnt
				o.Mount()
				harness.Shell(t, o.Point, "ls -l silent >/dev/null")
				layer.stop()
				user := exec.Command("cat", o.Path("silent/f"))
				harness.Check(t, user.Start())
				time.Sleep(200 * time.Millisecond)
				within(t, c.name, func() error {
					c.end(t, o)
					for {
						if _, ok := harness.MountAt(o.Point); !ok {
							return nil
						}
						time.Sleep(10 * time.Millisecond)
					}
				})
				ended := make(chan struct{})
				go func() {
					_ = user.Wait() // with an error, mostly
					close(ended)
				}()
				if c.name != "umount -l" { // after which processes in the mount go on
					select {
					case <-ended:
					case <-time.After(10 * time.Second):
						t.Error("a process that waits for the layer is not let go")
					}
				}
				layer.answer()
				o.WaitEnd()
			})
		})
	}
}
