package harness

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// mountLimit is the age at which a mount is taken for one that hangs. It is aborted, and its test
	// fails.
	mountLimit = 3 * time.Minute
	// endLimit is the time that a daemon may take to end after the unmount.
	endLimit = 10 * time.Second
	// busyLimit is the time that a mount may be busy for reasons that a test cannot wait for: another
	// process reads all mounts, or the kernel still frees the file system after its last user has
	// ended.
	busyLimit = 5 * time.Second
)

// Overlay is a set of layers and, while it is mounted, their mount. A test may change the exported
// fields before Mount.
type Overlay struct {
	T           *testing.T
	Env         *Env
	Lowers      []string // the topmost first
	Data        []string // data-only layers, below the lowers.
	Upper, Work string   // without an upper the mount is read-only
	Point       string   // the mount point
	Log         string   // the log of the daemon.
	Opts        []string // options besides those for the fields above
	Args        []string // arguments before the options.
	Program     string   // the command, if it is not the path of the program under test
	Kernel      bool     // the kernel's overlayfs is mounted in place of the program
	KernelOpts  string   // options of the kernel's overlayfs, in place of those of the mode.
	KernelFlags uintptr  // MS_* flags of the kernel's overlayfs
	PID         int      // the daemon; 0 if there is none
	Minor       int      // the number of the FUSE connection, as in MountLine

	watchdog *time.Timer
	hung     atomic.Bool
}

// Overlay makes lowers from tables, the topmost first, and an empty upper. It does not mount them.
func (e *Env) Overlay(t *testing.T, lowers ...string) *Overlay {
	t.Helper()
	o := &Overlay{T: t, Env: e, Kernel: Oracle, Log: filepath.Join(e.Dir, "log"), Opts: e.Opts}
	for i, table := range lowers {
		dir := filepath.Join(e.Dir, fmt.Sprintf("lower%d", i))
		Mkdir(t, dir)
		Build(t, e, dir, table)
		o.Lowers = append(o.Lowers, dir)
	}
	o.Upper, o.Work, o.Point = filepath.Join(e.Dir, "upper"), filepath.Join(e.Dir, "work"), filepath.Join(e.Dir, "mnt")
	Mkdir(t, o.Upper, o.Work, o.Point)
	return o
}

// Mounted is Overlay followed by Mount.
func (e *Env) Mounted(t *testing.T, lowers ...string) *Overlay {
	t.Helper()
	o := e.Overlay(t, lowers...)
	o.Mount()
	return o
}

// Second is another overlay of the same layers, with a mount point and a log of its own, to be
// mounted beside o.
func (o *Overlay) Second(t *testing.T, opts ...string) *Overlay {
	t.Helper()
	second := &Overlay{
		T: t, Env: o.Env, Lowers: o.Lowers, Upper: o.Upper, Work: o.Work, Point: o.Env.Dir + "/second",
		Log: o.Env.Dir + "/second.log", Opts: append(append([]string{}, o.Opts...), opts...),
	}
	Mkdir(t, second.Point)
	return second
}

// Path is a path in the mount.
func (o *Overlay) Path(rel string) string { return o.Point + "/" + rel }

// MountOptions is the value of the program's -o.
func (o *Overlay) MountOptions() string {
	list := []string{o.Lowerdir()}
	if o.Upper != "" {
		list = append(list, "upperdir="+o.Upper, "workdir="+o.Work)
	}
	if o.Log != "" {
		list = append(list, "log="+o.Log)
	}
	return strings.Join(append(list, o.Opts...), ",")
}

// Lowerdir is the option that names the lowers and the data-only layers.
func (o *Overlay) Lowerdir() string {
	list := "lowerdir=" + strings.Join(o.Lowers, ":")
	for _, layer := range o.Data {
		list += "::" + layer
	}
	return list
}

// Command is the command line that mounts: the program and its arguments.
func (o *Overlay) Command() (program string, args []string) {
	program = Program
	if o.Program != "" {
		program = o.Program
	}
	return program, append(append([]string{}, o.Args...), "-o", o.MountOptions(), o.Point)
}

// Mount mounts, and finds the daemon. The mount ends with the test.
func (o *Overlay) Mount() {
	o.T.Helper()
	if out, err := o.TryMount(); err != nil {
		o.T.Fatalf("mounting: %v\n%s", err, out)
	}
}

// TryMount is Mount for a mount that may fail. It returns the output of the command.
func (o *Overlay) TryMount() (string, error) {
	o.T.Helper()
	if o.Kernel {
		return "", o.MountKernel()
	}
	program, args := o.Command()
	out, err := Run(program, args...)
	if err != nil {
		return out, err
	}
	m, ok := MountAt(o.Point)
	if !ok {
		return out, errors.New("the command ended well, but nothing is mounted")
	}
	o.Minor = m.Minor
	if pids := DaemonsOf(o.Point); len(pids) == 1 {
		o.PID = pids[0]
	} else {
		o.T.Errorf("daemons of %s: %v, want one", o.Point, pids)
	}
	o.Guard()
	return out, nil
}

// Guard ends a mount that outlives its test, and one that hangs. It is for mounts that TryMount has
// not made.
func (o *Overlay) Guard() {
	o.T.Cleanup(o.cleanup)
	if o.Kernel {
		return
	}
	o.watchdog = time.AfterFunc(mountLimit, func() {
		o.hung.Store(true)
		o.T.Errorf("%s: aborted, because it was mounted for %v and seems to hang", o.Point, mountLimit)
		AbortConnection(o.Minor)
		Kill(o.PID, syscall.SIGKILL)
	})
}

// StopWatchdog stops the timer of Guard, for a test that ends the mount itself.
func (o *Overlay) StopWatchdog() {
	if o.watchdog != nil {
		o.watchdog.Stop()
	}
}

// IsMounted reports whether the mount point is one.
func (o *Overlay) IsMounted() bool {
	_, ok := MountAt(o.Point)
	return ok
}

// Unmount unmounts, and waits for the end of the daemon.
func (o *Overlay) Unmount() {
	o.T.Helper()
	if err := o.TryUnmount(); err != nil {
		o.T.Fatalf("unmounting: %v", err)
	}
	o.WaitEnd()
}

// TryUnmount unmounts as the mode does, and does not wait for the daemon.
func (o *Overlay) TryUnmount() error {
	if o.Env.Mode == ModeFusermount && !o.Kernel {
		if out, err := Run("fusermount3", "-u", o.Point); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}
	return UnmountAt(o.Point)
}

// WaitEnd waits for the end of a daemon after the unmount, and fails the test if the daemon does
// not end.
func (o *Overlay) WaitEnd() {
	o.T.Helper()
	o.StopWatchdog()
	if o.PID == 0 {
		return
	}
	if !WaitGone(o.PID, endLimit) {
		o.T.Errorf("the daemon %d is alive %v after the unmount; mounted still for %v, its threads:\n%s",
			o.PID, endLimit, whoMounts(o.Minor), kernelStacks(o.PID))
		Kill(o.PID, syscall.SIGKILL)
		WaitGone(o.PID, 5*time.Second)
	}
	o.PID = 0
}

// Remount is Unmount and Mount.
func (o *Overlay) Remount() {
	o.T.Helper()
	o.Unmount()
	o.Mount()
}

// Crash kills the daemon and unmounts the dead mount.
func (o *Overlay) Crash() {
	o.T.Helper()
	Kill(o.PID, syscall.SIGKILL)
	o.WaitEnd()
	if err := o.TryUnmount(); err != nil {
		Check(o.T, o.Detach())
	}
}

// Detach is a lazy unmount.
func (o *Overlay) Detach() error {
	if o.Env.Mode == ModeFusermount {
		_, err := Run("fusermount3", "-u", "-z", o.Point)
		return err
	}
	return unix.Unmount(o.Point, unix.MNT_DETACH)
}

func (o *Overlay) cleanup() {
	o.StopWatchdog()
	for o.IsMounted() {
		if o.hung.Load() {
			AbortConnection(o.Minor)
		}
		if err := o.Detach(); err != nil {
			o.T.Errorf("cleaning up: %v", err)
			break
		}
	}
	o.WaitEnd()
}

// ForgetVolatile removes what a volatile mount leaves, as container engines do before they mount
// again.
func (o *Overlay) ForgetVolatile() {
	o.T.Helper()
	Check(o.T, os.RemoveAll(filepath.Join(o.Work, "work/incompat")))
}

// UnmountAt unmounts a mount that the test itself has no longer in use.
func UnmountAt(point string) error {
	return notBusy(func() error { return unix.Unmount(point, 0) })
}

// notBusy calls f until its error is another than EBUSY.
func notBusy(f func() error) (err error) {
	Eventually(busyLimit, func() bool {
		err = f()
		return err != unix.EBUSY
	})
	return err
}
