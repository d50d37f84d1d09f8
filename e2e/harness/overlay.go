package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	commandLimit = 20 * time.Second // for a command that should end at once
	mountLimit   = 3 * time.Minute  // after this a mount is aborted and its test fails
)

// overlay is a set of layers and, while mounted, the mount of them.
type overlay struct {
	t                *testing.T
	env              *env
	lowers           []string // the topmost first
	data             []string // data-only layers, below the lowers
	upper, work, mnt string   // without upper: read-only
	log              string
	opts             []string // further -o
	kernelOpts       string   // the kernel's options, in place of those that kernelOptions has for the mode
	kernelFlags      uintptr  // MS_*, for the kernel's
	args             []string // further arguments
	name             string   // how the program is called, when not by its own name
	kernel           bool     // the kernel's overlayfs in place of the program
	pid              int      // of the daemon
	minor            int
	watchdog         *time.Timer
	hung             atomic.Bool
}

// overlay makes layers from tables, the topmost lower first, with an empty upper. It mounts nothing yet.
func (e *env) overlay(t *testing.T, lowers ...string) *overlay {
	t.Helper()
	o := &overlay{t: t, env: e, kernel: oracle, log: filepath.Join(e.dir, "log"), opts: e.opts}
	for i, table := range lowers {
		dir := filepath.Join(e.dir, fmt.Sprintf("lower%d", i))
		mkdir(t, dir)
		build(t, e, dir, table)
		o.lowers = append(o.lowers, dir)
	}
	o.upper, o.work, o.mnt = filepath.Join(e.dir, "upper"), filepath.Join(e.dir, "work"), filepath.Join(e.dir, "mnt")
	mkdir(t, o.upper, o.work, o.mnt)
	return o
}

// mounted is overlay followed by mount.
func (e *env) mounted(t *testing.T, lowers ...string) *overlay {
	t.Helper()
	o := e.overlay(t, lowers...)
	o.mount()
	return o
}

// path is a path in the mount.
func (o *overlay) path(rel string) string { return o.mnt + "/" + rel }

// options is the value of -o.
func (o *overlay) options() string {
	list := []string{o.lowerdir()}
	if o.upper != "" {
		list = append(list, "upperdir="+o.upper, "workdir="+o.work)
	}
	if o.log != "" {
		list = append(list, "log="+o.log)
	}
	return strings.Join(append(list, o.opts...), ",")
}

// lowerdir is the option that names the layers below.
func (o *overlay) lowerdir() string {
	list := "lowerdir=" + strings.Join(o.lowers, ":")
	for _, layer := range o.data {
		list += "::" + layer
	}
	return list
}

func (o *overlay) command() (string, []string) {
	program := binPath
	if o.name != "" {
		program = o.name
	}
	return program, append(append([]string{}, o.args...), "-o", o.options(), o.mnt)
}

// mount mounts and finds the daemon.
func (o *overlay) mount() {
	o.t.Helper()
	if out, err := o.tryMount(); err != nil {
		o.t.Fatalf("mounting: %v\n%s", err, out)
	}
}

// tryMount is mount for tests of failing mounts; the answer is what the command wrote.
func (o *overlay) tryMount() (string, error) {
	o.t.Helper()
	if o.kernel {
		return "", o.mountKernel()
	}
	program, args := o.command()
	out, err := runCommand(program, args...)
	if err != nil {
		return out, err
	}
	m, ok := mountAt(o.mnt)
	if !ok {
		return out, errors.New("the command ended well, but nothing is mounted")
	}
	o.minor = m.minor
	if pids := daemonsOf(o.mnt); len(pids) == 1 {
		o.pid = pids[0]
	} else {
		o.t.Errorf("daemons of %s: %v, want one", o.mnt, pids)
	}
	o.guard()
	return out, nil
}

func (o *overlay) mountKernel() error {
	data := o.lowerdir()
	if o.upper != "" {
		data += ",upperdir=" + o.upper + ",workdir=" + o.work
	}
	opts := o.kernelOpts
	if opts == "" {
		opts = kernelOptions(o.env)
	}
	data += "," + opts
	if err := mountOverlayfs(o.mnt, o.kernelFlags, data); err != nil {
		return fmt.Errorf("kernel overlayfs (%s): %w", data, err)
	}
	o.guard()
	return nil
}

// busyLimit is how long a mount may stay busy for reasons that the test cannot wait for: another
// process of the machine reads all mounts, or the kernel still frees the file system after its last
// user has ended.
const busyLimit = 5 * time.Second

// notBusy calls f until its error is another than EBUSY.
func notBusy(f func() error) (err error) {
	eventually(busyLimit, func() bool {
		err = f()
		return err != unix.EBUSY
	})
	return err
}

// mountOverlayfs mounts the kernel's overlayfs. With index=on it is EBUSY while the last mount of the upper is taken apart.
func mountOverlayfs(point string, flags uintptr, data string) error {
	return notBusy(func() error { return unix.Mount("overlay", point, "overlay", flags, data) })
}

// unmountAt takes a mount away that this test has no longer in use.
func unmountAt(point string) error {
	return notBusy(func() error { return unix.Unmount(point, 0) })
}

// kernelOptions are those under which the kernel's overlayfs is the model of ours.
func kernelOptions(e *env) string {
	if e.mode == modeUserns {
		return "index=off,xino=off,userxattr" // implies redirect_dir=nofollow, metacopy=off
	}
	if e.has(redirects) {
		return "index=off,metacopy=off,xino=off," + redirects
	}
	return "index=off,redirect_dir=off,metacopy=off,xino=off"
}

// redirects is for renaming directories that have lower parts.
const redirects = "redirect_dir=on"

// guard ends a mount that outlives its test, and one that hangs.
func (o *overlay) guard() {
	o.t.Cleanup(o.cleanup)
	if o.kernel {
		return
	}
	o.watchdog = time.AfterFunc(mountLimit, func() {
		o.hung.Store(true)
		o.t.Errorf("%s: mounted for %v: taken for a hang, aborted", o.mnt, mountLimit)
		abortConnection(o.minor)
		kill(o.pid, syscall.SIGKILL)
	})
}

func (o *overlay) isMounted() bool {
	_, ok := mountAt(o.mnt)
	return ok
}

// unmount unmounts and waits for the end of the daemon.
func (o *overlay) unmount() {
	o.t.Helper()
	if err := o.tryUnmount(); err != nil {
		o.t.Fatalf("unmounting: %v", err)
	}
	o.expectEnd()
}

func (o *overlay) tryUnmount() error {
	if o.env.mode == modeFusermount && !o.kernel {
		if out, err := runCommand("fusermount3", "-u", o.mnt); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}
	return unmountAt(o.mnt)
}

// expectEnd waits for a daemon whose mount is gone.
func (o *overlay) expectEnd() {
	o.t.Helper()
	if o.watchdog != nil {
		o.watchdog.Stop()
	}
	if o.pid == 0 {
		return
	}
	if !waitGone(o.pid, 10*time.Second) {
		o.t.Errorf("the daemon %d is alive 10 s after the unmount; mounted still for %v, its threads:\n%s", o.pid, whoMounts(o.minor), kernelStacks(o.pid))
		kill(o.pid, syscall.SIGKILL)
		waitGone(o.pid, 5*time.Second)
	}
	o.pid = 0
}

func (o *overlay) remount() {
	o.t.Helper()
	o.unmount()
	o.mount()
}

// crash kills the daemon and takes the dead mount away.
func (o *overlay) crash() {
	o.t.Helper()
	kill(o.pid, syscall.SIGKILL)
	o.expectEnd()
	if err := o.tryUnmount(); err != nil {
		check(o.t, o.detach())
	}
}

func (o *overlay) detach() error {
	if o.env.mode == modeFusermount {
		_, err := runCommand("fusermount3", "-u", "-z", o.mnt)
		return err
	}
	return unix.Unmount(o.mnt, unix.MNT_DETACH)
}

func (o *overlay) cleanup() {
	if o.watchdog != nil {
		o.watchdog.Stop()
	}
	for o.isMounted() {
		if o.hung.Load() {
			abortConnection(o.minor)
		}
		if err := o.detach(); err != nil {
			o.t.Errorf("cleaning up: %v", err)
			break
		}
	}
	o.expectEnd()
}

// runCommand runs a program to its end and to the end of its output, which a daemon must not hold open.
func runCommand(program string, args ...string) (string, error) {
	return runIn("", nil, commandLimit, program, args...)
}

func runIn(dir string, environ []string, limit time.Duration, program string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Dir, cmd.WaitDelay = dir, 3*time.Second
	cmd.Cancel = func() error {
		if len(args) > 0 { // a daemon that hangs before it lets go of our stderr tells there where
			for _, pid := range daemonsOf(args[len(args)-1]) {
				kill(pid, syscall.SIGQUIT)
			}
		}
		return cmd.Process.Kill()
	}
	if environ != nil {
		cmd.Env = append(os.Environ(), environ...)
	}
	err := cmd.Run()
	if ctx.Err() != nil {
		err = fmt.Errorf("not ended after %v: %w", limit, err)
	}
	return out.String(), err
}

// sh runs a shell script and fails the test when the script fails.
func sh(t *testing.T, dir, script string) string {
	t.Helper()
	out, err := runIn(dir, nil, time.Minute, "bash", "-euc", script)
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return out
}
