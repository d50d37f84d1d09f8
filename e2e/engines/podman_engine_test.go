package engines

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
	"github.com/fuse-overlay/fuse-overlay/internal/podman"
)

// podman and buildah have the program as their mount_program. One engine for each user and driver
// serves all tests, because the import of the base images takes longer than most of them.

// engineLimit is the time limit of one command of an engine. The longest is a step of a build on a
// busy machine.
const engineLimit = 3 * time.Minute

// engine is podman.Engine for tests.
type engine struct {
	*podman.Engine
	name   string
	images map[string]bool // what has been imported; guarded by engines.mu
}

// engines are the engines that run, by name.
var engines = struct {
	mu     sync.Mutex
	byName map[string]*engine
}{byName: map[string]*engine{}}

// The kinds of engines. The native ones mount by the kernel's overlayfs.
const (
	engineRoot       = "root"
	engineRootless   = "rootless"
	engineNativeRoot = "native-root"
	engineForceMask  = "force-mask"
)

// engineConfig is the configuration of an engine of a kind.
func engineConfig(kind, dir string) podman.Config {
	c := podman.Config{Dir: dir, Program: harness.Program, AutoUser: harness.PlainUser.Name}
	if io := os.Getenv(harness.EnvIO); io != "" && kind == engineRoot {
		c.MountOptions = []string{"io=" + io}
	}
	switch kind {
	case engineNativeRoot:
		// With metacopy podman makes a layer by a comparison of trees, as with a mount program, and not
		// from the upper. So both images have the same changes.
		c.Program, c.MountOptions = "", []string{"metacopy=on"}
	case engineRootless, engineForceMask:
		c.User, c.AutoUser = &podman.User{Name: harness.PlainUser.Name, UID: harness.PlainUser.UID,
			GID: harness.PlainUser.GID}, ""
	}
	if kind == engineForceMask {
		c.ForceMask = "700"
	}
	return c
}

// startEngine returns the engine of a kind, and starts it at the first call.
func startEngine(t *testing.T, kind string) *engine {
	t.Helper()
	engines.mu.Lock()
	defer engines.mu.Unlock()
	if e := engines.byName[kind]; e != nil {
		return e
	}
	dir := filepath.Join(harness.RunDir, "podman-"+kind)
	harness.Mkdir(t, dir)
	p, err := podman.Start(engineConfig(kind, dir))
	harness.Check(t, err)
	e := &engine{Engine: p, name: kind, images: map[string]bool{}}
	engines.byName[kind] = e
	return e
}

// eachEngine runs fn with the engine of root and with that of the plain user.
func eachEngine(t *testing.T, fn func(t *testing.T, e *engine)) {
	t.Helper()
	harness.NeedDaemon(t)
	for _, kind := range []string{engineRoot, engineRootless} {
		t.Run(kind, func(t *testing.T) {
			onEngine(t, kind, fn)
		})
	}
}

// onEngine runs fn with the engine of a kind, and fails the test if fn leaves something behind.
func onEngine(t *testing.T, kind string, fn func(t *testing.T, e *engine)) {
	t.Helper()
	e := startEngine(t, kind)
	t.Cleanup(func() { e.wantQuiet(t) })
	fn(t, e)
}

// wantQuiet fails the test if containers, mounts or processes are left, and removes the containers.
func (e *engine) wantQuiet(t *testing.T) {
	t.Helper()
	if ids := strings.Fields(e.run(t, "podman", "ps", "--all", "--quiet", "--external")); len(ids) > 0 {
		if !t.Failed() {
			t.Errorf("containers are left: %v", ids)
		}
		e.run(t, "podman", "rm", "--force", "--all", "--time", "0")
		e.run(t, "buildah", "rm", "--all")
	}
	var left error
	quiet := func() bool { left = e.left(); return left == nil }
	if !harness.Eventually(10*time.Second, quiet) {
		t.Errorf("left: %v", left)
	}
}

// left lists the mounts and processes while no container runs.
func (e *engine) left() error {
	mounts, err := e.Mounts()
	processes, err2 := e.Processes()
	if len(mounts) > 0 {
		err = errors.Join(err, fmt.Errorf("mounts:\n%s", strings.Join(mounts, "\n")))
	}
	if len(processes) > 0 {
		err = errors.Join(err, fmt.Errorf("processes:\n%s", strings.Join(processes, "\n")))
	}
	return errors.Join(err, err2)
}

// closeEngines removes all containers and images, ends the engines, and reports what they leave.
func closeEngines() error {
	engines.mu.Lock()
	defer engines.mu.Unlock()
	var errs []error
	for name, e := range engines.byName {
		if err := errors.Join(e.empty(), e.Close()); err != nil {
			errs = append(errs, fmt.Errorf("podman, %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// empty removes all containers and images, and returns what is left.
func (e *engine) empty() error {
	for _, command := range []string{"buildah rm --all", "podman rm --force --all --time 0", "podman volume prune --force",
		"podman rmi --all --force"} {
		if _, err := e.Run(engineLimit, strings.Fields(command)...); err != nil {
			return err
		}
	}
	err := e.left()
	if layers, err2 := e.Layers(); err2 != nil || len(layers) > 0 {
		err = errors.Join(err, err2, fmt.Errorf("layers: %v", layers))
	}
	if files, err2 := e.Temporary(); err2 != nil || len(files) > 0 {
		err = errors.Join(err, err2, fmt.Errorf("temporary files: %v", files))
	}
	return err
}

// run runs a program in the engine and returns its output. It ends the test if the program fails.
func (e *engine) run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := e.Run(engineLimit, args...)
	if err != nil {
		t.Fatalf("%s: %v\n%s", e.name, err, out)
	}
	return out
}

// podman runs a command of podman.
//
// A container that ends makes conmon start "podman container cleanup", for which "podman run" does
// not wait. Its last call detaches the bind mount of the whole storage, with what podman diff has
// mounted there meanwhile. So it would compare an empty directory.
func (e *engine) podman(t *testing.T, args ...string) string {
	t.Helper()
	if args[0] == "diff" {
		e.run(t, "sh", "-c", "while pgrep -f 'podman.* container [c]leanup' >/dev/null; do sleep 0.05; done")
	}
	return e.run(t, append([]string{"podman"}, args...)...)
}

// podmanAtLeast reports whether podman is of this version or a later one.
func (e *engine) podmanAtLeast(t *testing.T, major, minor int) bool {
	t.Helper()
	var gotMajor, gotMinor int
	_, err := fmt.Sscanf(e.podman(t, "--version"), "podman version %d.%d", &gotMajor, &gotMinor)
	harness.Check(t, err)
	return gotMajor > major || gotMajor == major && gotMinor >= minor
}

// runToEnd runs a container with these arguments of `podman run`, does not remove it, and returns
// its output. It reads its log, because on a busy machine an attached podman loses the output of a
// container that ends at once.
func (e *engine) runToEnd(t *testing.T, args ...string) (id, out string) {
	t.Helper()
	id = strings.TrimSpace(e.podman(t, append([]string{"run", "--detach"}, args...)...))
	return id, e.waitFor(t, id)
}

// waitFor waits for the end of a container and returns all its output. It ends the test if the
// container fails.
func (e *engine) waitFor(t *testing.T, id string) string {
	t.Helper()
	if code := strings.TrimSpace(e.podman(t, "wait", id)); code != "0" {
		t.Fatalf("%s: the container ended with %s:\n%s", e.name, code, e.run(t, "sh", "-c", "podman logs $0 2>&1", id))
	}
	return e.podman(t, "logs", id)
}

// inContainer runs a script in a new container of an image, removes the container, and returns the
// output.
func (e *engine) inContainer(t *testing.T, image, script string, options ...string) string {
	t.Helper()
	id, out := e.runToEnd(t, append(append([]string{}, options...), image, "sh", "-euc", script)...)
	e.podman(t, "rm", id)
	return out
}

// exec runs a program in a running container and returns its output. It must not be empty: see
// runToEnd.
func (e *engine) exec(t *testing.T, id string, args ...string) string {
	t.Helper()
	for range 5 {
		if out := e.podman(t, append([]string{"exec", id}, args...)...); out != "" {
			return out
		}
	}
	return ""
}

// start starts a container that runs a script until the end of the test, and returns its id.
func (e *engine) start(t *testing.T, image, script string, options ...string) string {
	t.Helper()
	args := append([]string{"run", "--detach"}, options...)
	id := strings.TrimSpace(e.podman(t, append(args, image, "sh", "-euc", script)...))
	e.removeLater(t, id)
	return id
}

func (e *engine) removeLater(t *testing.T, id string) {
	t.Cleanup(func() {
		if _, err := e.Run(engineLimit, "podman", "rm", "--force", "--time", "0", id); err != nil {
			t.Error(err)
		}
	})
}

// removeImageLater removes an image that a test makes.
func (e *engine) removeImageLater(t *testing.T, name string) {
	t.Cleanup(func() {
		if _, err := e.Run(engineLimit, "podman", "rmi", "--force", name); err != nil {
			t.Error(err)
		}
	})
}

// stream runs a program in the engine and calls read with its output.
func (e *engine) stream(t *testing.T, read func(io.Reader) error, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), engineLimit)
	defer cancel()
	cmd := e.Command(ctx, args...)
	var complaints strings.Builder
	cmd.Stderr = &complaints
	out, err := cmd.StdoutPipe()
	harness.Check(t, err)
	harness.Check(t, cmd.Start())
	err = read(out)
	if err := errors.Join(err, cmd.Wait()); err != nil {
		t.Fatalf("%s: %v: %v\n%s", e.name, args, err, complaints.String())
	}
}

// folder is a new folder of the engine's user, below that of the engine.
func (e *engine) folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp(e.Path(), "test-")
	harness.Check(t, err)
	e.own(t, dir)
	t.Cleanup(func() { harness.RemoveTree(dir) })
	return dir
}

// own makes the engine's user the owner of a file.
func (e *engine) own(t *testing.T, path string) {
	t.Helper()
	if e.Rootless() {
		harness.Check(t, os.Chown(path, harness.PlainUser.UID, harness.PlainUser.GID))
	}
}
