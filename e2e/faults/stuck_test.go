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

// newStuckOverlay makes an overlay with a layer that stalls. It has the objects for stuckWork, and
// for uses of the stalled layer that are under way together.
func newStuckOverlay(e *harness.Env, t *testing.T, uses [][]string) (*harness.Overlay, *stall) {
	t.Helper()
	var silent, healthy strings.Builder
	for i := range max(len(uses), len(uses[0])) {
		for _, name := range []string{"f", "sub/f", "a", "c", "m", "r"} {
			fmt.Fprintf(&silent, "file silent/%s%d \"text\"\n", name, i)
		}
		fmt.Fprintf(&silent, "file silent/d%d/f \"text\"\nfile silent/large%d %q\n", i, i, strings.Repeat("x", 150<<10))
	}
	for i := range len(uses) + 3 {
		fmt.Fprintf(&healthy, "file healthy/low/f%d \"text\"\nfile healthy/low/g%d \"text\"\n", i, i)
	}
	o := e.Overlay(t, healthy.String(), silent.String())
	o.Opts = nil // no passthrough to what is FUSE itself
	layer := newStall(e, t, o.Lowers[1])
	o.Lowers[1] = layer.mnt
	return o, layer
}

func stuckLayer(t *testing.T, e *harness.Env, uses [][]string) {
	o, layer := newStuckOverlay(e, t, uses)
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

// stuckUsers are the processes of tests in which many wait for the stalled layer.
const stuckUsers = 64

// stuckOverlay makes an overlay with a layer that stalls, and uses of that layer for as many
// processes.
func stuckOverlay(t *testing.T, e *harness.Env) (o *harness.Overlay, layer *stall, uses []string) {
	t.Helper()
	uses = slices.Repeat(stuckUses, stuckUsers/len(stuckUses))
	o, layer = newStuckOverlay(e, t, [][]string{uses})
	return o, layer, uses
}

// startStuck mounts stuckOverlay, stalls the layer and starts the processes.
func startStuck(t *testing.T, e *harness.Env) (o *harness.Overlay, layer *stall, users []*exec.Cmd) {
	t.Helper()
	o, layer, uses := stuckOverlay(t, e)
	o.Mount()
	harness.Shell(t, o.Point, "ls -l silent >/dev/null")
	layer.stop()
	return o, layer, startUses(t, o, uses)
}

// startUses starts a process for each use.
func startUses(t *testing.T, o *harness.Overlay, uses []string) (users []*exec.Cmd) {
	t.Helper()
	for i, use := range uses {
		cmd := exec.Command("sh", "-c", fmt.Sprintf(use, i))
		cmd.Dir = o.Point
		harness.Check(t, cmd.Start())
		users = append(users, cmd)
	}
	time.Sleep(300 * time.Millisecond)
	return users
}

// waitAll returns when all processes have ended, with whatever exit code, and fails the test if one
// does not end.
func waitAll(t *testing.T, what string, users []*exec.Cmd) {
	t.Helper()
	ended := make(chan struct{})
	go func() {
		for _, user := range users {
			_ = user.Wait() // with an error, mostly
		}
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Fatalf("%s: processes that wait for the layer do not end", what)
	}
}

// The mount can be unmounted while a layer does not reply, and many requests wait for it. The calls
// of processes that wait for that layer then return.
func TestStuckLayerAndTheEnd(t *testing.T) {
	harness.NeedDaemon(t)
	umount := func(t *testing.T, want int, args ...string) {
		t.Helper()
		out, err := harness.RunIn("/", nil, 5*stuckLimit, harness.Program, append([]string{"umount"}, args...)...)
		if code := harness.ExitCode(err); err != nil && code != want || err == nil && want != 0 {
			t.Errorf("fuse-overlay umount %q: %v, want exit code %d: %s", args, err, want, out)
		}
	}
	for _, c := range []struct {
		name string
		end  func(t *testing.T, o *harness.Overlay)
		goOn bool // processes in the mount go on
	}{
		{"SIGTERM", func(t *testing.T, o *harness.Overlay) { harness.Check(t, syscall.Kill(o.PID, syscall.SIGTERM)) }, false},
		{"abort", func(t *testing.T, o *harness.Overlay) {
			harness.AbortConnection(o.Minor)
			harness.Check(t, unix.Unmount(o.Point, unix.MNT_DETACH))
		}, false},
		{"umount -f", func(t *testing.T, o *harness.Overlay) {
			harness.WantErr(t, "umount -f of a mount in use", unix.Unmount(o.Point, unix.MNT_FORCE), syscall.EBUSY)
			harness.Check(t, unix.Unmount(o.Point, unix.MNT_DETACH))
		}, false},
		{"umount -l", func(t *testing.T, o *harness.Overlay) { harness.Check(t, unix.Unmount(o.Point, unix.MNT_DETACH)) }, true},
		{"fuse-overlay umount", func(t *testing.T, o *harness.Overlay) {
			umount(t, 1, o.Point)
			umount(t, 0, "-l", o.Point)
		}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
				o, layer, users := startStuck(t, e)
				within(t, c.name, func() error {
					c.end(t, o)
					for {
						if _, ok := harness.MountAt(o.Point); !ok {
							return nil
						}
						time.Sleep(10 * time.Millisecond)
					}
				})
				if !c.goOn {
					waitAll(t, c.name, users)
				}
				layer.answer()
				if c.goOn {
					waitAll(t, c.name, users)
				}
				o.WaitEnd()
			})
		})
	}
}

// A process that is killed while the daemon works on its request does no harm: other parts of the
// mount go on, and when the layer answers, the process is gone and each object is as before or as
// after its request. A signal that a process handles does not make its call fail.
func TestStuckLayerAndSignals(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o, layer, users := startStuck(t, e)
		handler := exec.Command("perl", "-e", `$SIG{USR1} = sub { $n++ }; $| = 1; print "ready\n";
			open(F, "<", "silent/f1") or die "open: $!"; defined(sysread(F, $text, 9)) or die "sysread: $!"; print "$n$text"`)
		handler.Dir = o.Point
		var out strings.Builder
		handler.Stdout, handler.Stderr = &out, &out
		harness.Check(t, handler.Start())
		time.Sleep(300 * time.Millisecond)
		harness.Check(t, handler.Process.Signal(syscall.SIGUSR1))
		for i, user := range users {
			harness.Check(t, user.Process.Signal([]os.Signal{syscall.SIGKILL, syscall.SIGTERM}[i%2]))
		}
		time.Sleep(100 * time.Millisecond)
		stuckWork(t, o.Point, 0)
		layer.answer()
		waitAll(t, "killed processes, after the layer answers again", users)
		if err := handler.Wait(); err != nil || out.String() != "ready\n1text" {
			t.Errorf("a process that handles a signal: %v, %q", err, out.String())
		}
		stuckWork(t, o.Point, 1)
		o.Remount()
		for i := range users {
			for _, c := range []struct{ name, before, after string }{
				{"silent/a%d", "text", "textx\n"}, {"silent/c%d", "text", "text"}, {"silent/f%d", "text", "text"},
			} {
				text := harness.ReadText(t, o.Path(fmt.Sprintf(c.name, i)))
				if text != c.before && text != c.after {
					t.Errorf(c.name+" holds %q", i, text)
				}
			}
			_, was := os.Lstat(o.Path(fmt.Sprintf("silent/m%d", i)))
			_, is := os.Lstat(o.Path(fmt.Sprintf("silent/n%d", i)))
			if (was == nil) == (is == nil) {
				t.Errorf("silent/m%d, which was being renamed: %v, new name: %v", i, was, is)
			}
		}
	})
}
