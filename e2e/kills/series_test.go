package kills

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// whiteouts is a form of whiteouts.
type whiteouts int

const (
	devices whiteouts = iota
	markers           // files .wh.NAME
	xattrs            // files with an xattr
)

const processes = 3

// series is a number of kills of daemons that work on the same layers, with the same options.
type series struct {
	t    *testing.T
	e    *harness.Env
	seed uint64
	*rand.Rand
	o     *harness.Overlay
	p     policy
	trees []*tree
	// history has the operations of each process in this round.
	history [][]op

	userxattr, redirects, metacopy, index, volatile bool
	form                                            whiteouts
	counts                                          counts
}

// counts are what a run reports.
type counts struct {
	kills, ops   int
	done, undone int // operations in flight of which the effect was there, or not
	mounting     int // kills of a program that was mounting
	kernel       int // times that the kernel's overlayfs showed the layers
}

func (c *counts) add(other counts) {
	c.kills += other.kills
	c.ops += other.ops
	c.done += other.done
	c.undone += other.undone
	c.mounting += other.mounting
	c.kernel += other.kernel
}

func newSeries(t *testing.T, m harness.Mode, seed uint64) *series {
	t.Helper()
	s := &series{t: t, e: harness.NewEnv(t, m), seed: seed, Rand: rand.New(rand.NewPCG(seed, 1))}
	s.draw()
	s.o = s.e.Overlay(t, "", "")
	s.trees = buildLowers(t, s.Rand, s.o.Lowers, &s.p, s.index && m != harness.ModeFusermount, m == harness.ModeRoot)
	return s
}

func (s *series) chance(percent int) bool { return s.IntN(100) < percent }

// draw picks the options of all mounts of a series.
func (s *series) draw() {
	root := s.e.Mode == harness.ModeRoot
	s.p = policy{UID: os.Geteuid(), GID: os.Getegid(), Tmpfiles: harness.KernelAtLeast(s.t, 6, 1), Trusted: root}
	if s.e.Mode != harness.ModeFusermount {
		s.p.Owners = []int{0, 1, 1000}
	}
	io := []string{"writeback=0", "writeback=1"}
	if root && harness.KernelHas(s.t, harness.BackingFiles) {
		io = append(io, harness.Passthrough)
	}
	opts := []string{io[s.IntN(len(io))], "xino=" + []string{"on", "off", "auto"}[s.IntN(3)]}
	s.p.Through = opts[0] != "writeback=1"
	switch {
	case s.chance(20):
		s.volatile, opts = true, append(opts, "volatile")
	case s.chance(20):
		opts = append(opts, "fsync=0")
	}
	if s.userxattr = s.chance(15); s.userxattr {
		opts = append(opts, "userxattr")
	} else {
		s.metacopy, s.index = s.chance(40), s.chance(40)
		s.redirects = s.metacopy || s.chance(40)
		opts = append(opts, "metacopy="+onOff(s.metacopy), "redirect_dir="+onOff(s.redirects), "index="+onOff(s.index))
	}
	s.form = []whiteouts{devices, devices, devices, markers, xattrs}[s.IntN(5)]
	if s.form == xattrs {
		opts = append(opts, "xattr_whiteouts")
	}
	s.p.Redirects, s.p.Replaces = s.redirects, s.form != xattrs
	s.e.Opts = opts
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

// mount mounts. What a volatile mount has left is removed, as engines do.
func (s *series) mount() {
	s.t.Helper()
	s.o.ForgetVolatile()
	s.withMarkers(s.o.Mount)
}

// withMarkers calls f with the variable under which the program makes no devices.
func (s *series) withMarkers(f func()) {
	const variable = "FUSE_OVERLAYFS_DISABLE_OVL_WHITEOUT"
	if s.form != devices {
		harness.Check(s.t, os.Setenv(variable, "1"))
		defer func() { harness.Check(s.t, os.Unsetenv(variable)) }()
	}
	f()
}

// isRest reports whether check has found a whiteout that hides nothing, and that an operation in
// flight may leave. A directory that is renamed to the name of a whiteout is exchanged with it.
// Then the whiteout is removed, as in the kernel (ovl_rename, cleanup_whiteout). With markers a
// removal of a directory takes two steps. After the first one the marker is there, the directory
// still shows, and the whiteouts in it hide nothing.
func (s *series) isRest(finding string, flying []op) bool {
	place, ok := strings.CutPrefix(finding, "orphan whiteout\tupper:")
	place, _, _ = strings.Cut(place, "\t")
	return ok && slices.ContainsFunc(flying, func(o op) bool {
		switch {
		case !slices.Contains([]string{"rmdir", "rename"}, o.Kind):
			return false
		case s.form == markers:
			return isBelow(place, o.Path) || o.Path2 != "" && isBelow(place, o.Path2)
		}
		return place == o.Path && o.Kind == "rename"
	})
}

// check returns what fuse-overlay check finds in the layers.
func (s *series) check(flags ...string) (findings []string) {
	s.t.Helper()
	args := append([]string{"check", "--workdir", s.o.Work}, flags...)
	if s.userxattr {
		args = append(args, "-o", "userxattr")
	}
	out, err := harness.Run(harness.Program, append(append(args, s.o.Upper), s.o.Lowers...)...)
	if code := harness.ExitCode(err); code != 0 && code != 1 {
		s.t.Errorf("check: exit code %d\n%s", code, out)
	}
	for line := range strings.Lines(out) {
		if !strings.HasPrefix(line, "volatile mark\twork:") {
			findings = append(findings, line)
		}
	}
	return findings
}

// kernelOptions are those with which the kernel's overlayfs shows the layers, and whether it can.
func (s *series) kernelOptions() (options string, ok bool) {
	root := s.e.Mode == harness.ModeRoot
	switch {
	case s.e.Mode == harness.ModeFusermount, s.form == markers, s.form == xattrs && !harness.KernelAtLeast(s.t, 6, 8):
		return "", false
	case root && !s.userxattr:
		options = "xino=off,metacopy=" + onOff(s.metacopy)
		if s.index { // without its index the kernel would show linked files of lowers as they are there
			return options + ",index=on,redirect_dir=" + onOff(s.redirects), s.form == devices
		}
		return options + ",redirect_dir=follow", true
	}
	return "userxattr", !s.redirects && !s.index && harness.KernelAtLeast(s.t, 5, 11)
}

// inKernel calls f with a mount of the kernel's overlayfs that shows the layers. It is read-only.
// With index=on the kernel needs the upper and the work directory for it.
func (s *series) inKernel(options string, f func(point string)) {
	s.t.Helper()
	point := filepath.Join(s.e.Dir, "kernel")
	harness.Mkdir(s.t, point)
	data := fmt.Sprintf("lowerdir=%s:%s,%s", s.o.Upper, strings.Join(s.o.Lowers, ":"), options)
	if s.index {
		s.o.ForgetVolatile()
		data = fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s,%s", strings.Join(s.o.Lowers, ":"), s.o.Upper, s.o.Work, options)
	}
	harness.Check(s.t, harness.MountOverlayfs(point, unix.MS_RDONLY, data))
	defer func() { harness.Check(s.t, harness.UnmountAt(point)) }()
	f(point)
	s.counts.kernel++
}
