package engines

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
	"github.com/fuse-overlay/fuse-overlay/internal/podman"
)

// A storage of podman changes from one way of mounting to another and back. The images and the
// stopped containers of before are kept.

// driver is a way of mounting.
type driver string

// The drivers of a storage.
const (
	driverOurs   driver = "fuse-overlay"
	driverOther  driver = "fuse-overlayfs" // the program of the distribution
	driverKernel driver = "overlay"
)

// kind is the type of the mounts of a driver.
func (d driver) kind() string {
	if d == driverKernel {
		return "overlay"
	}
	return "fuse." + string(d)
}

// program is the mount program of a driver.
func (s *storage) program(t *testing.T, d driver) string {
	t.Helper()
	switch d {
	case driverOurs:
		return s.ours
	case driverOther:
		path, err := exec.LookPath(string(driverOther))
		harness.Check(t, err)
		return path
	}
	return ""
}

// storage is a storage of podman that changes its driver.
type storage struct {
	user   string // engineRoot or engineRootless
	dir    string
	ours   string                       // the mount program of driverOurs
	trees  map[string]map[string]string // of stopped containers and images, when they were made
	images []string
}

func newStorage(t *testing.T, user string) *storage {
	t.Helper()
	s := &storage{user: user, ours: harness.Program, dir: filepath.Join(harness.RunDir, strings.ReplaceAll(t.Name(), "/", "-")),
		trees: map[string]map[string]string{}}
	harness.Mkdir(t, s.dir)
	t.Cleanup(func() { harness.RemoveTree(s.dir) })
	return s
}

// use runs fn with an engine that mounts this storage by a driver, and ends it as a reboot does.
func (s *storage) use(t *testing.T, d driver, options []string, fn func(t *testing.T, e *engine)) {
	t.Helper()
	config := engineConfig(s.user, s.dir)
	config.Program, config.MountOptions = s.program(t, d), options
	p, err := podman.Start(config)
	harness.Check(t, err)
	e := &engine{Engine: p, name: s.user, images: map[string]bool{}}
	defer func() { harness.Check(t, e.Close()) }()
	t.Run(string(d), func(t *testing.T) {
		fn(t, e)
		left := func() bool { return e.left() == nil }
		if !harness.Eventually(10*time.Second, left) {
			t.Errorf("left: %v", e.left())
		}
	})
	s.checkLayers(t)
}

// make makes an image from the last one and a stopped container of it. Each step removes, replaces
// and changes objects of those before.
func (s *storage) make(t *testing.T, e *engine, name string) {
	t.Helper()
	base := imageBusybox
	if len(s.images) > 0 {
		base = s.images[len(s.images)-1]
	} else {
		e.need(t, base)
	}
	image := "localhost/" + name
	script := "n=" + name + `; cd /data; test ! -e removed-by || test ! -e $(cat removed-by)
		echo $n >>changed; rm -f removed; mkdir -p made/$n/d; echo $n >made/$n/d/f; ln made/$n/d/f made/$n/link
		rm -rf dir; mkdir -m 750 dir; echo $n >dir/only; chown -R 1000:1000 dir; rm -f gone; echo $n >gone-$n
		for old in gone-*; do test $old = gone-$n || rm $old; done; mv made/$n/d made/$n/e; chmod 4750 appended`
	id, _ := e.runToEnd(t, base, "sh", "-euc", script)
	e.podman(t, "commit", "--quiet", id, image)
	e.podman(t, "rm", id)
	s.images = append(s.images, image)
	stopped := "stopped-" + name // podman diff prefers an image to a container of this name
	e.podman(t, "create", "--name", stopped, image, "sh", "-euc", "n="+name+`
		cd /data; test -e began || { rm -r made/$n/e gone-$n; mv tree/a tree/c 2>/dev/null || true; rm -rf dir; mkdir dir
		ln changed linked; chmod 600 kept; chown 7:8 kept; mkfifo pipe; ln -s x symlink; echo n >t; mv t changed; echo $n >began; }
		cat began`)
	e.podman(t, "start", stopped)
	e.waitFor(t, stopped)
	s.trees[stopped] = s.export(t, e, stopped)
	s.trees[image] = s.export(t, e, image)
}

// export is the tree of a container or an image, with all times as they are.
func (s *storage) export(t *testing.T, e *engine, name string) map[string]string {
	t.Helper()
	if strings.HasPrefix(name, "localhost/") {
		return e.export(t, name, never())
	}
	return e.exportContainer(t, name, never())
}

// check checks that all images and stopped containers are as they were, and work.
func (s *storage) check(t *testing.T, e *engine, d driver) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(s.trees)) {
		if d := harness.DiffLines(s.trees[name], s.export(t, e, name)); d != "" {
			t.Errorf("%s has changed:\n%s", name, harness.Clip(d))
		}
		if strings.HasPrefix(name, "localhost/") {
			continue
		}
		e.podman(t, "start", name)
		e.waitFor(t, name)
		step := strings.TrimPrefix(name, "stopped-")
		out := e.podman(t, "logs", name)
		harness.Equal(t, "the output of "+name, out, strings.Repeat(step+"\n", strings.Count(out, "\n")))
		diff := "\n" + e.podman(t, "diff", name)
		for _, line := range []string{"A /data/began", "C /data/kept", "D /data/made/" + step + "/e", "D /data/dir/only"} {
			// Under fuse-overlayfs podman misses what an opaque directory hides. The driver of the kernel's
			// overlayfs lists the directory itself.
			if !strings.Contains(diff, "\n"+line+"\n") && (d == driverOurs || line != "D /data/dir/only") {
				t.Errorf("podman diff %s: no %q in%s", name, line, diff)
			}
		}
		s.trees[name] = s.export(t, e, name) // a start makes new times
	}
}

// wantKind checks by which kind of mount a container has its root.
func (e *engine) wantKind(t *testing.T, kind string) {
	t.Helper()
	e.need(t, imageBusybox)
	harness.Equal(t, "type of a root", e.inContainer(t, imageBusybox, "grep ' / ' /proc/mounts | cut -d' ' -f3"), kind+"\n")
}

// flag is the content of podman's record whether a mount program has written the storage.
func (s *storage) flag(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(s.dir + "/graph/overlay/.has-mount-program")
	if os.IsNotExist(err) {
		return "none"
	}
	harness.Check(t, err)
	return strings.TrimSpace(string(text))
}

// eachStorage runs fn for root and for the plain user.
func eachStorage(t *testing.T, fn func(t *testing.T, s *storage)) {
	t.Helper()
	harness.NeedDaemon(t)
	for _, user := range []string{engineRoot, engineRootless} {
		t.Run(user, func(t *testing.T) {
			harness.Tried(t, "podman, "+user, actSwitch)
			fn(t, newStorage(t, user))
		})
	}
}

// From fuse-overlayfs to this program and back: nothing is converted, and the flag of podman stays.
func TestPodmanSwitchFuseOverlayfs(t *testing.T) {
	eachStorage(t, func(t *testing.T, s *storage) {
		for i, d := range []driver{driverOther, driverOurs, driverOther} {
			s.use(t, d, nil, func(t *testing.T, e *engine) {
				s.check(t, e, d)
				e.wantKind(t, d.kind())
				s.make(t, e, "step"+string(rune('0'+i)))
				harness.Equal(t, ".has-mount-program", s.flag(t), "true")
			})
		}
	})
}

// The examples that TestPodmanSwitchKernel and TestPodmanSwitchMetacopy use.
const (
	toKernel     = "../../docs/examples/whiteouts-for-the-kernel.sh"
	withMetacopy = "../../docs/examples/fuse-overlay-metacopy.sh"
)

// prepareForKernel runs toKernel as the documents have it.
func (s *storage) prepareForKernel(t *testing.T, e *engine) {
	t.Helper()
	script := filepath.Join(s.dir, "to-kernel.sh")
	harness.Check(t, os.WriteFile(script, []byte(harness.ReadText(t, toKernel)), 0o755))
	args := []string{script, s.dir + "/graph"}
	if e.Rootless() {
		args = append([]string{"podman", "unshare"}, args...)
	}
	e.run(t, args...)
}

// From the kernel's overlayfs to this program and back. Back, podman's flag first makes podman run
// a mount program without a setting. After the conversion of the whiteouts podman mounts the
// kernel's overlayfs.
func TestPodmanSwitchKernel(t *testing.T) {
	eachStorage(t, func(t *testing.T, s *storage) {
		s.use(t, driverKernel, nil, func(t *testing.T, e *engine) {
			e.wantKind(t, driverKernel.kind())
			s.make(t, e, "kernel1")
			s.make(t, e, "kernel2")
		})
		s.use(t, driverOurs, nil, func(t *testing.T, e *engine) {
			s.check(t, e, driverOurs)
			s.make(t, e, "ours")
			harness.Equal(t, ".has-mount-program", s.flag(t), "true")
		})
		s.use(t, driverKernel, nil, func(t *testing.T, e *engine) {
			e.wantKind(t, driverOther.kind())
			s.check(t, e, driverOther)
			s.prepareForKernel(t, e)
			harness.Equal(t, ".has-mount-program", s.flag(t), "none")
		})
		s.use(t, driverKernel, nil, func(t *testing.T, e *engine) {
			e.wantKind(t, driverKernel.kind())
			s.check(t, e, driverKernel)
			s.make(t, e, "kernel3")
		})
	})
}

// The kernel writes metacopies to the uppers of root's containers if mountopt has metacopy=on, as
// on Fedora. podman does not pass this option to mount programs. A script does.
func TestPodmanSwitchMetacopy(t *testing.T) {
	harness.NeedDaemon(t)
	s := newStorage(t, engineRoot)
	s.ours = filepath.Join(s.dir, "fuse-overlay-metacopy.sh")
	script := strings.ReplaceAll(harness.ReadText(t, withMetacopy), "/usr/local/bin/fuse-overlay", harness.Program)
	harness.Check(t, os.WriteFile(s.ours, []byte(script), 0o755))
	s.use(t, driverKernel, []string{"nodev", "metacopy=on"}, func(t *testing.T, e *engine) {
		s.make(t, e, "kernel1")
		s.make(t, e, "kernel2")
		harness.Equal(t, "metacopies", s.metacopies(t) > 0, true)
	})
	s.use(t, driverOurs, []string{"nodev", "metacopy=on"}, func(t *testing.T, e *engine) {
		e.wantKind(t, driverOurs.kind())
		s.check(t, e, driverOurs)
		before := s.metacopies(t)
		s.make(t, e, "ours")
		harness.Equal(t, "more metacopies", s.metacopies(t) > before, true)
		s.prepareForKernel(t, e)
	})
	s.use(t, driverKernel, []string{"nodev", "metacopy=on"}, func(t *testing.T, e *engine) {
		e.wantKind(t, driverKernel.kind())
		s.check(t, e, driverKernel)
	})
}

// metacopies counts the metacopies in the storage.
func (s *storage) metacopies(t *testing.T) int {
	t.Helper()
	return strings.Count(harness.Shell(t, s.dir, "getfattr -R -h -m trusted.overlay.metacopy graph/overlay"), "# file: ")
}

// With the flag, but without a mount program in PATH, podman before 5.8 mounts the kernel's
// overlayfs on layers that have whiteouts as files. Such a container shows them. Later versions
// refuse the storage. It is not damaged: this program shows all images and stopped containers as
// before.
func TestPodmanSwitchWithoutPrograms(t *testing.T) {
	harness.NeedDaemon(t)
	s := newStorage(t, engineRoot)
	s.use(t, driverOurs, nil, func(t *testing.T, e *engine) { s.make(t, e, "ours") })
	s.use(t, driverKernel, nil, func(t *testing.T, e *engine) {
		harness.Equal(t, ".has-mount-program", s.flag(t), "true")
		argv := []string{"unshare", "--mount", "sh", "-euc", `mount --bind /dev/null $(command -v fuse-overlayfs); exec "$@"`, "sh",
			"podman", "run", "--name", "kernels", s.images[0], "sh", "-euc",
			"grep ' / ' /proc/mounts | cut -d' ' -f3; ls -A /data; rm /data/changed; mv /data/tree/b /data/tree/n"}
		if e.podmanAtLeast(t, 5, 8) {
			out, err := e.Run(engineLimit, argv...)
			if err == nil || !strings.Contains(out+err.Error(), "fuse-overlayfs not found") {
				t.Errorf("without a mount program: %v %s", err, out)
			}
			return
		}
		out := e.run(t, argv...)
		if !strings.HasPrefix(out, "overlay\n") || !strings.Contains(out, "\n.wh.removed\n") {
			t.Errorf("a container without a mount program: %s", out)
		}
		e.podman(t, "rm", "kernels")
	})
	s.use(t, driverOurs, nil, func(t *testing.T, e *engine) { s.check(t, e, driverOurs) })
}
