package faults

import (
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/disklog"
	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
)

// envDisk is set for the process that serves the image of a disk, see serveDisk.
const envDisk = "FUSE_OVERLAY_E2E_DISK"

// envAlone is set for the process of runAlone.
const envAlone = "FUSE_OVERLAY_E2E_ALONE"

// runAlone runs the calling test in a process with a mount namespace of its own. If another process
// of the machine copied a mount of a disk, by unshare(2), its file system would outlive the
// unmount.
func runAlone(t *testing.T) {
	t.Helper()
	self, err := os.Executable()
	harness.Check(t, err)
	pattern := "^" + t.Name() + "$"
	if _, subtests, some := strings.Cut(flag.Lookup("test.run").Value.String(), "/"); some {
		pattern += "/" + subtests
	}
	// The cuts are checked side by side: most of the time they wait for mounts and unmounts.
	cmd := exec.Command(self, "-test.v", "-test.count=1", "-test.timeout=0", "-test.parallel=8",
		"-test.run="+pattern)
	cmd.Env = append(os.Environ(), envAlone+"=1", "FUSE_OVERLAY_BIN="+harness.Program)
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	// The child ends if this process is killed. The kernel sends the signal at the end of the thread
	// that starts it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	harness.Check(t, cmd.Run())
}

// serveDisk is the role of that process.
func serveDisk(words string) error {
	var mnt, image, log string
	if _, err := fmt.Sscan(words, &mnt, &image, &log); err != nil {
		return err
	}
	s, err := disklog.Serve(mnt, image, log)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	return s.Wait()
}

// Power cuts below a file system: the requests that a disk gets during many changes are recorded.
// Then the disk is rebuilt as it may be after a cut at each flush and at random moments, with any
// part of the writes since the last flush. The file system recovers, and a mount here and one of
// the kernel's overlayfs show the tree as it was before or after one step, with all that was
// synced.
func TestPowerCutOfADisk(t *testing.T) {
	harness.NeedDaemon(t)
	if os.Getenv(envAlone) == "" {
		runAlone(t)
		return
	}
	harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		const short = 8
		cuts := int(harness.EnvNumber(harness.EnvCuts, short))
		seed := harness.EnvNumber(harness.EnvSeed, uint64(time.Now().UnixNano()))
		t.Logf("again with %s=%d %s=%d", harness.EnvSeed, seed, harness.EnvCuts, cuts)
		for i, s := range diskScenarios {
			for j, kind := range diskKinds {
				if cuts <= short && (uint64(i+j)+seed)%2 != 0 {
					continue // the other file system has its turn in another run
				}
				t.Run(s.name+"/"+kind.fstype, func(t *testing.T) {
					c := &diskCut{s: s, kind: kind, r: rand.New(rand.NewPCG(seed, uint64(i))), found: &cutCounts{states: map[int]int{}}}
					c.use(t, e.Mode)
					c.prepare()
					c.record()
					c.checkCuts(cuts)
				})
			}
		}
	})
}

// diskKind is a file system on the disk.
type diskKind struct {
	fstype, options string
	size            int64
	mkfs            []string
	check           []string // the program that checks an image that is not mounted, and its arguments
}

var diskKinds = []diskKind{
	{"ext4", "loop", 96 << 20, []string{"-q", "-b", "4096", "-E", "lazy_itable_init=0,lazy_journal_init=0"}, []string{"e2fsck", "-fn"}},
	{"xfs", "loop,nouuid", 300 << 20, []string{"-q"}, []string{"xfs_repair", "-n"}},
}

// diskCut is one run of a scenario.
type diskCut struct {
	s    diskScenario
	kind diskKind
	r    *rand.Rand

	// Of one disk that is mounted, see use.
	t     *testing.T
	e     *harness.Env
	point string // the mount point of the disk
	o     *harness.Overlay

	memory string // a tmpfs for images
	start  string // the image before the recording
	view   harness.View
	steps  []cutStep
	states []cutState
	names  map[string]bool // all that the layers may have
	log    []disklog.Entry
	found  *cutCounts
}

// cutCounts is what was found after the cuts.
type cutCounts struct {
	sync.Mutex
	refused int         // disks whose layers no side mounts, because of a volatile mount or a merge
	states  map[int]int // how many mounts show each state
}

// diskLimit is the time limit of a recovery, a check and an unmount of the file system: many cuts
// are checked side by side.
const diskLimit = 2 * time.Minute

// Words of the marks.
const (
	markBegun  = "begun"  // the step with this number is about to begin
	markSynced = "synced" // the step with this number has synced, and all before it is durable
)

// use gives c a mount point, and an overlay of the layers there, for one test.
func (c *diskCut) use(t *testing.T, mode harness.Mode) {
	t.Helper()
	c.t, c.e = t, harness.NewEnv(t, mode)
	c.o = c.e.Overlay(t, "")
	c.o.Opts, c.o.KernelOpts = append(c.o.Opts, c.s.opts...), c.s.kernel
	c.point = filepath.Join(c.e.Dir, "disk")
	harness.Mkdir(t, c.point)
	c.o.Lowers, c.o.Upper, c.o.Work = []string{c.point + "/lower"}, c.point+"/upper", c.point+"/work"
}

// prepare makes the image with the layers, and finds out which trees there may be.
func (c *diskCut) prepare() {
	c.t.Helper()
	c.memory = filepath.Join(c.e.Dir, "memory")
	harness.Mkdir(c.t, c.memory)
	harness.Check(c.t, unix.Mount("none", c.memory, "tmpfs", 0, ""))
	c.t.Cleanup(func() { harness.Check(c.t, harness.UnmountAt(c.memory)) })
	c.start = filepath.Join(c.memory, "start")
	harness.Check(c.t, os.WriteFile(c.start, nil, 0o600))
	harness.Check(c.t, os.Truncate(c.start, c.kind.size))
	testkit.Run(c.t, "mkfs."+c.kind.fstype, append(slices.Clone(c.kind.mkfs), c.start)...)
	harness.Check(c.t, c.mountDisk(c.start))

	lower, model := c.o.Lowers[0], filepath.Join(c.e.Dir, "model")
	harness.Mkdir(c.t, lower, c.o.Upper, c.o.Work, model)
	table := cutTree(c.r)
	harness.Build(c.t, c.e, lower, table)
	c.view = cutView(c.s.nlink)
	if c.s.command == "" {
		harness.Build(c.t, c.e, model, table)
		c.steps = c.s.steps(c.r)
		c.states = statesOf(c.t, model, c.steps, c.view)
	} else {
		c.o.Mount()
		harness.Shell(c.t, c.o.Point, c.s.before)
		c.o.Remount()
		tree := stateOf(c.t, c.o.Point, nil, c.view)
		c.states = []cutState{tree, tree}
		c.o.Unmount()
	}
	c.names = map[string]bool{".": true}
	for _, s := range c.states {
		for path := range s.lines {
			c.names[filepath.Base(path)] = true
		}
	}
	c.allowNames(lower)
	c.unmountDisk(c.start)
}

// allowNames adds the names below a folder to those that layers may have.
func (c *diskCut) allowNames(dir string) {
	harness.Check(c.t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		c.names[filepath.Base(path)] = true
		return err
	}))
}

func (c *diskCut) mountDisk(image string) error {
	out, err := harness.RunIn("", nil, diskLimit, "mount", "-t", c.kind.fstype, "-o", c.kind.options, image, c.point)
	if err != nil {
		return fmt.Errorf("mounting the %s: %w\n%s", c.kind.fstype, err, out)
	}
	c.t.Cleanup(func() { _ = unix.Unmount(c.point, unix.MNT_DETACH) })
	return nil
}

// unmountDisk unmounts, and waits until the image is complete.
func (c *diskCut) unmountDisk(image string) {
	c.t.Helper()
	harness.Check(c.t, harness.UnmountAt(c.point))
	if !testkit.WaitReleased(image, diskLimit) {
		c.t.Fatalf("%s is still in use", image)
	}
}

// record makes the steps on a disk whose requests are logged.
func (c *diskCut) record() {
	c.t.Helper()
	image, log := filepath.Join(c.memory, "recorded"), filepath.Join(c.memory, "log")
	harness.Shell(c.t, "", "cp --sparse=always "+c.start+" "+image)
	mnt := filepath.Join(c.e.Dir, "device")
	server := startServer(c.t, c.e.Mode, envDisk, fmt.Sprint(mnt, " ", image, " ", log), mnt)
	disk := filepath.Join(mnt, disklog.Disk)
	harness.Check(c.t, c.mountDisk(disk))
	mark := func(word string, step int) {
		harness.Check(c.t, disklog.SetMark(mnt, fmt.Sprint(word, " ", step)))
	}
	stop, done := make(chan struct{}), make(chan error, 1)
	end := sync.OnceFunc(func() { close(stop) })
	defer end()
	go func() { done <- c.commit(stop) }()
	if c.s.command == "" {
		c.makeSteps(mark)
	} else {
		mark(markBegun, 1)
		if out, err := c.runCommand(); err != nil {
			c.t.Fatalf("%s: %v\n%s", c.s.command, err, out)
		}
		mark(markSynced, 1)
	}
	end()
	harness.Check(c.t, <-done)
	c.unmountDisk(disk)
	server.end()
	var err error
	c.log, err = disklog.Read(log)
	harness.Check(c.t, err)
	harness.Check(c.t, os.Remove(log))
	harness.Check(c.t, os.Remove(image))
}

func (c *diskCut) makeSteps(mark func(word string, step int)) {
	c.t.Helper()
	opts := c.o.Opts
	if c.s.volatile {
		c.o.Opts = append(slices.Clone(opts), "volatile")
	}
	c.o.Mount()
	c.o.Opts = opts
	for i, step := range c.steps {
		mark(markBegun, i+1)
		if err := step.do(c.o.Point); err != nil {
			c.t.Fatalf("%s: %v", step.what, err)
		}
		if step.syncs != "" {
			mark(markSynced, i+1)
		}
	}
	c.o.Unmount()
}

// commit is another process that makes the file system commit again and again, at random moments.
func (c *diskCut) commit(stop <-chan struct{}) error {
	f, err := os.Create(filepath.Join(c.point, "other"))
	if err != nil {
		return err
	}
	defer f.Close()
	for {
		select {
		case <-stop:
			return nil
		case <-time.After(time.Duration(rand.IntN(8)) * time.Millisecond):
		}
		if _, err := f.WriteAt([]byte("x"), rand.Int64N(4096)); err != nil {
			return err
		}
		if err := f.Sync(); err != nil {
			return err
		}
	}
}

// runCommand runs the command of the scenario on the layers.
func (c *diskCut) runCommand() (string, error) {
	args := []string{c.s.command, "--yes", "--workdir", c.o.Work}
	for _, opt := range c.s.opts {
		if opt != "metacopy=on" { // which only decides what mounts write
			args = append(args, "-o", opt)
		}
	}
	return harness.Run(harness.Program, append(args, c.o.Upper, c.o.Lowers[0])...)
}
