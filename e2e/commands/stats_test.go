package commands

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
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

// counted is a part of the output of stats --json.
type counted struct {
	Mount struct {
		PID       int
		Point     string `json:"mount_point"`
		Mode      string
		Device    string
		Upperdir  string
		Lowerdirs []string
	}
	Uptime   float64 `json:"uptime_seconds"`
	Requests []request
	CopyUps  struct{ Objects, Bytes uint64 } `json:"copy_ups"`
}

// request is what stats --json shows of one kind of requests.
type request struct {
	Kind           string
	Count, Pending uint64
	Seconds        float64
	P50            float64 `json:"p50_seconds"`
	Max            float64 `json:"max_seconds"`
}

// useRuntimeDir gives the programs of a test a runtime directory, and returns where their sockets
// are. Root has /run.
func useRuntimeDir(t *testing.T, e *harness.Env) (sockets string) {
	t.Helper()
	if e.Mode == harness.ModeRoot {
		return "/run/fuse-overlay"
	}
	dir := e.Dir + "/run"
	harness.Check(t, os.Mkdir(dir, 0o700))
	t.Setenv("XDG_RUNTIME_DIR", dir)
	return dir + "/fuse-overlay"
}

// socketOf returns the control socket of a mount, which is there as soon as the mount is.
func socketOf(t *testing.T, sockets, point string) string {
	t.Helper()
	var st unix.Stat_t
	harness.Check(t, unix.Stat(point, &st))
	path := fmt.Sprintf("%s/%d", sockets, unix.Minor(st.Dev))
	if _, err := os.Lstat(path); err != nil {
		t.Fatal(err)
	}
	return path
}

// statsOf returns the numbers of a mount.
func statsOf(t *testing.T, point string) (c counted) {
	t.Helper()
	r := command(t, "stats", "--json", point)
	r.want(t, 0, "")
	if err := json.Unmarshal([]byte(r.out), &c); err != nil {
		t.Fatalf("%v: %s", err, r.out)
	}
	return c
}

func (c counted) count(kind string) (n uint64) {
	for _, r := range c.Requests {
		if r.Kind == kind {
			n = r.Count
		}
	}
	return n
}

// stats shows what the daemon has done. The socket goes with the mount.
func TestStats(t *testing.T) {
	harness.Raced(t)
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		sockets := useRuntimeDir(t, e)
		text := strings.Repeat("x", 5000)
		o := e.Mounted(t, "file d/f "+text, "file g \"y\"")
		socket := socketOf(t, sockets, o.Point)
		harness.AppendTo(t, o.Path("d/f"), "more")
		harness.WantText(t, o.Path("g"), "y")
		var c counted
		harness.Eventually(harness.CommandLimit, func() bool { // a request is counted after its reply has been sent
			c = statsOf(t, o.Point)
			return !slices.ContainsFunc(c.Requests, func(r request) bool { return r.Pending > 0 })
		})
		if c.Mount.PID != o.PID || c.Mount.Point != o.Point || c.Mount.Mode != "read-write" || c.Mount.Upperdir != o.Upper ||
			len(c.Mount.Lowerdirs) != 2 || c.Mount.Lowerdirs[0] != o.Lowers[0] || c.Uptime <= 0 {
			t.Errorf("%+v; the daemon is %d", c.Mount, o.PID)
		}
		if c.count("LOOKUP") < 3 || c.CopyUps.Objects != 2 || c.CopyUps.Bytes != 5000 {
			t.Errorf("%d LOOKUPs, copy-ups %+v", c.count("LOOKUP"), c.CopyUps)
		}
		for _, r := range c.Requests {
			if r.Pending > 0 || r.Max < r.P50 || r.Kind != "FORGET" && (r.P50 <= 0 || r.Seconds <= 0) {
				t.Errorf("%+v", r)
			}
		}
		table := command(t, "stats", o.Point)
		table.want(t, 0, "")
		if !strings.HasPrefix(table.out, o.Point+": read-write, 3 layers") || !strings.Contains(table.out, "\nLOOKUP ") ||
			!strings.Contains(table.out, "\ncopy-ups     2, 4.9 KiB\n") || strings.Contains(table.out, "\x1b") {
			t.Errorf("%s", table.out)
		}
		page := command(t, "stats", "--prometheus", o.Point)
		page.want(t, 0, "")
		if want := fmt.Sprintf("\nfuse_overlay_copy_up_bytes_total{mount=%q} 5000\n", o.Point); !strings.Contains(page.out, want) {
			t.Errorf("%q is not in\n%s", want, page.out)
		}
		o.Unmount()
		if _, err := os.Lstat(socket); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the socket is left: %v", err)
		}
		command(t, "stats", o.Point).want(t, 1, "nothing is mounted on")
	})
}

// Each mount has a socket and numbers of its own.
func TestStatsOfTwoMounts(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		sockets := useRuntimeDir(t, e)
		a := e.Mounted(t, "file f \"x\"")
		e.Dir += "/second"
		harness.Check(t, os.Mkdir(e.Dir, 0o755))
		b := e.Mounted(t, "file f \"x\"")
		if socketOf(t, sockets, a.Point) == socketOf(t, sockets, b.Point) {
			t.Error("two mounts have one socket")
		}
		for i := range 10 {
			harness.Mkdir(t, a.Path(fmt.Sprint("new", i)))
		}
		if n, m := statsOf(t, a.Point).count("MKDIR"), statsOf(t, b.Point).count("MKDIR"); n != 10 || m != 0 {
			t.Errorf("%d and %d MKDIRs, want 10 and 0", n, m)
		}
		a.Unmount()
		if c := statsOf(t, b.Point); c.Mount.PID != b.PID {
			t.Errorf("after the end of the first: %+v", c.Mount)
		}
	})
}

// Each reason why there are no numbers has its error.
func TestStatsErrors(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		sockets := useRuntimeDir(t, e)
		command(t, "stats", e.Dir).want(t, 1, "nothing is mounted on")
		command(t, "stats", e.Dir+"/none").want(t, 1, "no such file or directory")
		command(t, "stats", "/proc").want(t, 1, `the mount on "/proc" is of type proc and not of this program`)
		o := e.Overlay(t, "file f \"x\"")
		o.Opts = append(o.Opts, "control=off")
		o.Mount()
		command(t, "stats", o.Point).want(t, 1, "the daemon has no control socket")
		o.Unmount()

		o.Opts = o.Opts[:len(o.Opts)-1]
		o.Mount()
		socket := socketOf(t, sockets, o.Point)
		stop(t, o.PID) // the socket takes the connection, and gives no reply
		harness.Kill(o.PID, syscall.SIGKILL)
		if !harness.WaitGone(o.PID, harness.CommandLimit) {
			t.Fatal("the daemon does not end")
		}
		command(t, "stats", o.Point).want(t, 1, "its daemon has ended; fuse-overlay umount removes the mount")
		if _, err := os.Lstat(socket); err != nil {
			t.Errorf("the socket of a killed daemon: %v", err)
		}
		command(t, "umount", o.Point).want(t, 0, "")
		if _, err := os.Lstat(socket); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the socket of a killed daemon after the unmount: %v", err)
		}
	})
}

// Only the user who has mounted it, and root, get the numbers of a mount.
func TestStatsOfOtherUsers(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, "file f \"x\"")
		socketOf(t, "/run/fuse-overlay", o.Point)
		program(t, asPlainUser(harness.Program, "stats", o.Point)...).
			want(t, 1, "only the user who has mounted it, and root, may use the control socket")

		user := harness.PlainUser
		runtime := fmt.Sprintf("/run/user/%d", user.UID)
		if _, err := os.Lstat(runtime); err == nil {
			t.Skipf("%s is there", runtime)
		}
		_, missing := os.Lstat("/run/user")
		harness.Check(t, os.MkdirAll(runtime, 0o700))
		t.Cleanup(func() {
			harness.Check(t, os.RemoveAll(runtime))
			if missing != nil {
				harness.Check(t, os.Remove("/run/user"))
			}
		})
		harness.Check(t, os.Chown(runtime, user.UID, user.GID))
		harness.Check(t, os.Chmod("/run/user", 0o755))
		lower, point := e.Dir+"/theirs", e.Dir+"/their mount"
		for _, dir := range []string{lower, point} {
			harness.Check(t, os.Mkdir(dir, 0o755))
			harness.Check(t, os.Chown(dir, user.UID, user.GID))
		}
		program(t, asPlainUser(harness.Program, "-o", "lowerdir="+lower, point)...).want(t, 0, "")
		t.Cleanup(func() { harness.Check(t, harness.UnmountAt(point)) })
		command(t, "stats", "--json", point).want(t, 0, "")
		program(t, asPlainUser(harness.Program, "stats", "--json", point)...).want(t, 0, "")
	})
}

// Hostile clients do not hurt the mount: its data is right, it does not run out of descriptors, and
// others get their replies.
func TestHostileClients(t *testing.T) {
	harness.Raced(t)
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		sockets := useRuntimeDir(t, e)
		o := e.Mounted(t, harness.ThousandFiles())
		socket := socketOf(t, sockets, o.Point)
		ctx, end := context.WithCancel(t.Context())
		defer end()
		const hostile = 200
		done := make(chan int, hostile)
		for i := range hostile {
			go func() {
				sent := 0
				for ctx.Err() == nil {
					if annoy(socket, i) == nil {
						sent++
					}
				}
				done <- sent
			}()
		}
		for i := range 20 {
			text := strings.Repeat(fmt.Sprint(i), 100_000)
			harness.Write(t, o.Path("new"), text)
			harness.WantText(t, o.Path("new"), text)
		}
		harness.Visit(t, o.Point)
		if n := len(harness.OpenFDs(o.PID)); n > 1200 {
			t.Errorf("the daemon has %d descriptors open", n)
		}
		statsOf(t, o.Point)
		end()
		total := 0
		for range hostile {
			total += <-done
		}
		if total < hostile/4 {
			t.Errorf("the daemon has taken only %d connections", total)
		}
		if c := statsOf(t, o.Point); c.Mount.PID != o.PID {
			t.Errorf("%+v", c.Mount)
		}
		o.Unmount()
	})
}

// annoy is one connection of a hostile client.
func annoy(socket string, i int) error {
	c, err := net.DialTimeout("unix", socket, time.Second)
	if err != nil {
		time.Sleep(time.Millisecond)
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		return err
	}
	switch i % 5 {
	case 0: // sends nothing
		_, err = c.Read(make([]byte, 1))
	case 1:
		_, err = c.Write(bytes.Repeat([]byte{0}, 1<<16))
	case 2: // takes no reply
		_, err = io.WriteString(c, "stats\n")
	case 3:
		_, err = io.WriteString(c, "sta")
	default:
		if _, err = io.WriteString(c, "stats\n"); err == nil {
			_, err = io.Copy(io.Discard, c)
		}
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	return err
}

// --watch goes on until it is interrupted, or until the mount has gone.
func TestStatsWatch(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		useRuntimeDir(t, e)
		o := e.Mounted(t, "file f \"x\"")
		for _, unmounts := range []bool{false, true} {
			var out, errs bytes.Buffer
			cmd := exec.Command(harness.Program, "stats", "--watch=100ms", "--json", o.Point)
			cmd.Stdout, cmd.Stderr = &out, &errs
			harness.Check(t, cmd.Start())
			time.Sleep(500 * time.Millisecond)
			if unmounts {
				o.Unmount()
			} else {
				harness.Check(t, cmd.Process.Signal(syscall.SIGINT))
			}
			code := harness.ExitCode(cmd.Wait())
			if n := strings.Count(out.String(), "\n"); n < 2 {
				t.Errorf("%d reports", n)
			}
			if unmounts != (code == 1) || unmounts != strings.Contains(errs.String(), "it has been unmounted") {
				t.Errorf("unmounted %v: exit %d, %q", unmounts, code, &errs)
			}
		}
	})
}
