package harness

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// WorkRest lists what lies in a work directory besides empty directories and empty files (locks).
func WorkRest(work string) []string {
	var rest []string
	_ = filepath.WalkDir(work, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil
		}
		if info, err := d.Info(); err == nil && (!info.Mode().IsRegular() || info.Size() > 0) {
			rest = append(rest, strings.TrimPrefix(path, work))
		}
		return nil
	})
	return rest
}

// IndexKinds tells of each object in the index its kind; the names are handles. Which names of the object are links of it need
// not be the same: a FUSE server is not told by which one a file is written to.
func IndexKinds(o *Overlay) (map[string]string, string) {
	entries, err := os.ReadDir(filepath.Join(o.Work, "index"))
	if err != nil {
		return nil, err.Error()
	}
	var kinds []string
	for _, entry := range entries {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(o.Work, "index", entry.Name()), &st); err != nil {
			return nil, err.Error()
		}
		if st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0 {
			continue // the whiteout of which the kernel links others
		}
		kinds = append(kinds, entry.Type().String())
	}
	slices.Sort(kinds)
	return map[string]string{"index": fmt.Sprintf("index %q", kinds)}, ""
}

const (
	CommandLimit = 20 * time.Second // for a command that should end at once
	mountLimit   = 3 * time.Minute  // after this a mount is aborted and its test fails
)

// Overlay is a set of layers and, while mounted, the mount of them.
type Overlay struct {
	T                  *testing.T
	Env                *Env
	Lowers             []string // the topmost first
	Data               []string // data-only layers, below the lowers
	Upper, Work, Point string   // without upper: read-only
	Log                string
	Opts               []string // further -o
	KernelOpts         string   // the kernel's options, in place of those that kernelOptions has for the mode
	KernelFlags        uintptr  // MS_*, for the kernel's
	Args               []string // further arguments
	Program            string   // how the program is called, when not by its own name
	Kernel             bool     // the kernel's overlayfs in place of the program
	PID                int      // of the daemon
	Minor              int
	Watchdog           *time.Timer
	hung               atomic.Bool
}

// Overlay makes layers from tables, the topmost lower first, with an empty upper. It mounts nothing yet.
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

// Mounted is overlay followed by mount.
func (e *Env) Mounted(t *testing.T, lowers ...string) *Overlay {
	t.Helper()
	o := e.Overlay(t, lowers...)
	o.Mount()
	return o
}

// Path is a path in the mount.
func (o *Overlay) Path(rel string) string { return o.Point + "/" + rel }

// MountOptions is the value of -o.
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

// Lowerdir is the option that names the layers below.
func (o *Overlay) Lowerdir() string {
	list := "lowerdir=" + strings.Join(o.Lowers, ":")
	for _, layer := range o.Data {
		list += "::" + layer
	}
	return list
}

func (o *Overlay) Command() (string, []string) {
	program := Program
	if o.Program != "" {
		program = o.Program
	}
	return program, append(append([]string{}, o.Args...), "-o", o.MountOptions(), o.Point)
}

// Mount mounts and finds the daemon.
func (o *Overlay) Mount() {
	o.T.Helper()
	if out, err := o.TryMount(); err != nil {
		o.T.Fatalf("mounting: %v\n%s", err, out)
	}
}

// TryMount is mount for tests of failing mounts; the answer is what the command wrote.
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

func (o *Overlay) MountKernel() error {
	data := o.Lowerdir()
	if o.Upper != "" {
		data += ",upperdir=" + o.Upper + ",workdir=" + o.Work
	}
	opts := o.KernelOpts
	if opts == "" {
		opts = kernelOptions(o.Env)
	}
	data += "," + opts
	if err := MountOverlayfs(o.Point, o.KernelFlags, data); err != nil {
		return fmt.Errorf("kernel overlayfs (%s): %w", data, err)
	}
	o.Guard()
	return nil
}

// busyLimit is how long a mount may stay busy for reasons that the test cannot wait for: another
// process of the machine reads all mounts, or the kernel still frees the file system after its last
// user has ended.
const busyLimit = 5 * time.Second

// notBusy calls f until its error is another than EBUSY.
func notBusy(f func() error) (err error) {
	Eventually(busyLimit, func() bool {
		err = f()
		return err != unix.EBUSY
	})
	return err
}

// MountOverlayfs mounts the kernel's overlayfs. With index=on it is EBUSY while the last mount of the upper is taken apart.
func MountOverlayfs(point string, flags uintptr, data string) error {
	return notBusy(func() error { return unix.Mount("overlay", point, "overlay", flags, data) })
}

// UnmountAt takes a mount away that this test has no longer in use.
func UnmountAt(point string) error {
	return notBusy(func() error { return unix.Unmount(point, 0) })
}

// kernelOptions are those under which the kernel's overlayfs is the model of ours.
func kernelOptions(e *Env) string {
	if e.Mode == ModeUserns {
		return "index=off,xino=off,userxattr" // implies redirect_dir=nofollow, metacopy=off
	}
	if e.Has(Redirects) {
		return "index=off,metacopy=off,xino=off," + Redirects
	}
	return "index=off,redirect_dir=off,metacopy=off,xino=off"
}

// Redirects is for renaming directories that have lower parts.
const Redirects = "redirect_dir=on"

// Guard ends a mount that outlives its test, and one that hangs.
func (o *Overlay) Guard() {
	o.T.Cleanup(o.Cleanup)
	if o.Kernel {
		return
	}
	o.Watchdog = time.AfterFunc(mountLimit, func() {
		o.hung.Store(true)
		o.T.Errorf("%s: mounted for %v: taken for a hang, aborted", o.Point, mountLimit)
		AbortConnection(o.Minor)
		Kill(o.PID, syscall.SIGKILL)
	})
}

func (o *Overlay) IsMounted() bool {
	_, ok := MountAt(o.Point)
	return ok
}

// Unmount unmounts and waits for the end of the daemon.
func (o *Overlay) Unmount() {
	o.T.Helper()
	if err := o.TryUnmount(); err != nil {
		o.T.Fatalf("unmounting: %v", err)
	}
	o.WaitEnd()
}

func (o *Overlay) TryUnmount() error {
	if o.Env.Mode == ModeFusermount && !o.Kernel {
		if out, err := Run("fusermount3", "-u", o.Point); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}
	return UnmountAt(o.Point)
}

// WaitEnd waits for a daemon whose mount is gone.
func (o *Overlay) WaitEnd() {
	o.T.Helper()
	if o.Watchdog != nil {
		o.Watchdog.Stop()
	}
	if o.PID == 0 {
		return
	}
	if !WaitGone(o.PID, 10*time.Second) {
		o.T.Errorf("the daemon %d is alive 10 s after the unmount; mounted still for %v, its threads:\n%s", o.PID, whoMounts(o.Minor), kernelStacks(o.PID))
		Kill(o.PID, syscall.SIGKILL)
		WaitGone(o.PID, 5*time.Second)
	}
	o.PID = 0
}

func (o *Overlay) Remount() {
	o.T.Helper()
	o.Unmount()
	o.Mount()
}

// Crash kills the daemon and takes the dead mount away.
func (o *Overlay) Crash() {
	o.T.Helper()
	Kill(o.PID, syscall.SIGKILL)
	o.WaitEnd()
	if err := o.TryUnmount(); err != nil {
		Check(o.T, o.Detach())
	}
}

func (o *Overlay) Detach() error {
	if o.Env.Mode == ModeFusermount {
		_, err := Run("fusermount3", "-u", "-z", o.Point)
		return err
	}
	return unix.Unmount(o.Point, unix.MNT_DETACH)
}

func (o *Overlay) Cleanup() {
	if o.Watchdog != nil {
		o.Watchdog.Stop()
	}
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

const Ours, Kernels = "ours", "kernel"

// Container engines mount the upper of a running container a second time, to make a layer of it or to export it.

// SecondOf is another overlay of the same layers, to be mounted beside o.
func SecondOf(t *testing.T, o *Overlay, opts ...string) *Overlay {
	t.Helper()
	second := &Overlay{
		T: t, Env: o.Env, Lowers: o.Lowers, Upper: o.Upper, Work: o.Work, Point: o.Env.Dir + "/second", Log: o.Env.Dir + "/second.log",
		Opts: append(append([]string{}, o.Opts...), opts...),
	}
	Mkdir(t, second.Point)
	return second
}

// MountKernelWith mounts the kernel's overlayfs on the layers of o, with options of the kernel's own.
func (o *Overlay) MountKernelWith(options ...string) error {
	data := []string{"lowerdir=" + strings.Join(o.Lowers, ":")}
	if o.Upper != "" {
		data = append(data, "upperdir="+o.Upper, "workdir="+o.Work)
	}
	err := MountOverlayfs(o.Point, 0, strings.Join(append(data, options...), ","))
	if err == nil {
		o.T.Cleanup(o.Cleanup)
	}
	return err
}

// KernelUserOption is what the kernel's overlayfs needs where it may not use trusted attributes; else nothing that matters.
func (e *Env) KernelUserOption() string {
	if e.Mode == ModeRoot {
		return "index=off"
	}
	return "userxattr"
}

// ForgetVolatile removes what a volatile mount leaves, as container engines do before they mount again.
func (o *Overlay) ForgetVolatile() {
	o.T.Helper()
	Check(o.T, os.RemoveAll(filepath.Join(o.Work, "work/incompat")))
}
