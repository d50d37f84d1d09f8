package commands

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// When umount returns, the data is in the upper, the daemon has ended, and the upper is free.
func TestUmount(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "file f \"x\"")
		link := e.Dir + "/link"
		harness.Check(t, os.Symlink("mnt", link))
		for i, path := range []string{o.Point, o.Point + "/", link, o.Point + "/../mnt"} {
			o.Mount()
			text := strings.Repeat(fmt.Sprint(i), 1<<20)
			harness.Write(t, o.Path("f"), text)
			command(t, "umount", path).want(t, 0, "")
			if o.IsMounted() || harness.Alive(o.PID) {
				t.Errorf("%s: mounted %v, the daemon lives %v", path, o.IsMounted(), harness.Alive(o.PID))
			}
			for _, dir := range []string{o.Upper, o.Work} {
				f, err := os.Open(dir)
				harness.Check(t, err)
				harness.Check(t, unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB))
				f.Close()
			}
			harness.WantText(t, o.Upper+"/f", text)
			o.WaitEnd()
		}
	})
}

// umount waits for a daemon that does not end, but not without end.
func TestUmountWaits(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, "file f \"x\"")
		stop(t, o.PID)
		start := time.Now()
		command(t, "umount", "--timeout", "300ms", o.Point).
			want(t, 1, fmt.Sprintf("is unmounted, but after 300ms its daemon, process %d, still runs", o.PID))
		if took := time.Since(start); took < 300*time.Millisecond {
			t.Errorf("it has waited for %v", took)
		}
		harness.Kill(o.PID, syscall.SIGCONT)
		o.WaitEnd()

		o.Mount()
		stop(t, o.PID)
		timer := time.AfterFunc(700*time.Millisecond, func() { harness.Kill(o.PID, syscall.SIGCONT) })
		defer timer.Stop()
		start = time.Now()
		command(t, "umount", o.Point).want(t, 0, "")
		if took := time.Since(start); took < 700*time.Millisecond || harness.Alive(o.PID) {
			t.Errorf("it has waited for %v, and the daemon lives: %v", took, harness.Alive(o.PID))
		}
		o.WaitEnd()
	})
}

// A mount in use stays, unless --lazy takes it out of the tree.
func TestUmountInUse(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, "file f \"x\"")
		f, err := os.Open(o.Path("f"))
		harness.Check(t, err)
		defer f.Close()
		command(t, "umount", o.Point).want(t, 1, fmt.Sprintf("fuse-overlay umount: %q is in use; ", o.Point))
		if !o.IsMounted() {
			t.Error("it was unmounted all the same")
		}
		command(t, "umount", "-l", o.Point).want(t, 0, "")
		if o.IsMounted() || !harness.Alive(o.PID) {
			t.Errorf("with --lazy: mounted %v, the daemon lives %v", o.IsMounted(), harness.Alive(o.PID))
		}
		buf := make([]byte, 1)
		if _, err := f.ReadAt(buf, 0); err != nil || buf[0] != 'x' {
			t.Errorf("its user reads %q, %v", buf, err)
		}
		harness.Check(t, f.Close())
		o.WaitEnd()
	})
}

// umount does not wait for a daemon that serves the same mount elsewhere, and names that place.
func TestUmountOfOneOfTwo(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.RootModes, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, "file f \"x\"")
		other := e.Dir + "/other"
		harness.Mkdir(t, other)
		harness.Check(t, unix.Mount(o.Point, other, "", unix.MS_BIND, ""))
		start := time.Now()
		command(t, "umount", o.Point).want(t, 1, fmt.Sprintf("is mounted on %q", other))
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("it has waited for %v", took)
		}
		command(t, "umount", other).want(t, 0, "")
		o.WaitEnd()
		o.Mount()
		harness.Check(t, unix.Mount(o.Point, other, "", unix.MS_BIND, ""))
		command(t, "umount", o.Point, other).want(t, 0, "")
		if harness.Alive(o.PID) {
			t.Error("the daemon lives after both are unmounted")
		}
		o.WaitEnd()
	})
}

// umount refuses what is no mount of this program, and goes on with the others.
func TestUmountRefuses(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, "dir d")
		for path, errs := range map[string]string{
			o.Path("d"):     fmt.Sprintf("fuse-overlay umount: nothing is mounted on %q; ", o.Path("d")),
			e.Dir:           "nothing is mounted on ",
			e.Dir + "/none": "no such file or directory; ",
			"/proc":         `the mount on "/proc" is of type proc and not of this program; use umount`,
			"":              "no such file or directory; ",
		} {
			command(t, "umount", path).want(t, 1, errs)
		}
		command(t, "umount").want(t, 2, "fuse-overlay umount: no mount point given; see fuse-overlay umount --help")
		command(t, "umount", "--timeout", "x", o.Point).want(t, 2, "invalid argument")
		command(t, "umount", "--timeout", "-1s", o.Point).want(t, 2, "--timeout is negative")
		command(t, "umount", "--force", o.Point).want(t, 2, "unknown flag: --force")
		if !o.IsMounted() {
			t.Fatal("a refused call has unmounted")
		}
		command(t, "umount", e.Dir, o.Point).want(t, 1, "nothing is mounted on")
		if o.IsMounted() {
			t.Error("the second mount point was not unmounted")
		}
		o.WaitEnd()
	})
}

// A plain user cannot unmount root's mounts, and the program fuse-overlayfs keeps its own.
func TestUmountOfOthers(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, "file f \"x\"")
		program(t, asPlainUser(harness.Program, "umount", o.Point)...).
			want(t, 1, "was mounted by user 0; unmount it as that user, or as root")
		if !o.IsMounted() {
			t.Fatal("it was unmounted")
		}
		other, err := exec.LookPath("fuse-overlayfs")
		if err != nil {
			t.Skip("fuse-overlayfs is not installed")
		}
		point := e.Dir + "/theirs"
		harness.Mkdir(t, point)
		if out, err := harness.Run(other, "-o", "lowerdir="+o.Lowers[0], point); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		defer func() { harness.Check(t, harness.UnmountAt(point)) }()
		command(t, "umount", point).want(t, 1, "is of type fuse.fuse-overlayfs and not of this program; use umount")
		if at := listAt(t, command(t, "list", "--json"), point); len(at) != 0 {
			t.Errorf("listed: %+v", at)
		}
	})
}
