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

// podman and buildah with the program as their mount_program. One engine for each user and driver serves all tests, for
// importing the base images costs more than most of them.

// engineLimit is for one command of an engine; the longest is a step of a build on a busy machine.
const engineLimit = 3 * time.Minute

// engine is podman.Engine for tests.
type engine struct {
	*podman.Engine
	name   string
	images map[string]bool // what has been imported; guarded by engines.mu
}

// engines are those started so far, by name.
var engines = struct {
	mu     sync.Mutex
	byName map[string]*engine
}{byName: map[string]*engine{}}

// kinds of engines. The native ones mount by the kernel's overlayfs.
const (
	engineRoot       = "root"
	engineRootless   = "rootless"
	engineNativeRoot = "native-root"
	engineForceMask  = "force-mask"
)

// engineConfig is how an engine of a kind is made.
func engineConfig(kind, dir string) podman.Config {
	c := podman.Config{Dir: dir, Program: harness.Program, AutoUser: harness.PlainUser.Name}
	if io := os.Getenv(harness.EnvIO); io != "" && kind == engineRoot {
		c.MountOptions = []string{"io=" + io}
	}
	switch kind {
	case engineNativeRoot:
		// With metacopy, layers are found by comparing trees, as with a mount program, and not taken from the upper: what
		// counts as changed is then the same in both images.
		c.Program, c.MountOptions = "", []string{"metacopy=on"}
	case engineRootless, engineForceMask:
		c.User, c.AutoUser = &podman.User{Name: harness.PlainUser.Name, UID: harness.PlainUser.UID, GID: harness.PlainUser.GID}, ""
	}
	if kind == engineForceMask {
		c.ForceMask = "700"
	}
	return c
}

// startEngine answers with the engine of a kind, started when it is wanted first.
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

// onEngine runs fn with the engine of a kind, and sees that fn leaves nothing.
func onEngine(t *testing.T, kind string, fn func(t *testing.T, e *engine)) {
	t.Helper()
	e := startEngine(t, kind)
	t.Cleanup(func() { e.wantQuiet(t) })
	fn(t, e)
}

// wantQuiet fails when containers, mounts or processes are left, and removes the containers.
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

// left tells which mounts and processes there are while no container runs.
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

// empty removes all containers and images and tells what is left then.
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

// run runs a program in the engine, fails the test when it fails, and answers with its output.
func (e *engine) run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := e.Run(engineLimit, args...)
	if err != nil {
		t.Fatalf("%s: %v\n%s", e.name, err, out)
	}
	return out
}

// podman runs a command of podman's, in words.
func (e *engine) podman(t *testing.T, args ...string) string {
	t.Helper()
	return e.run(t, append([]string{"podman"}, args...)...)
}

// runToEnd runs a container of these arguments of `podman run`, which is kept, and answers with what it wrote. That is taken
// from its log: on a busy machine an attached podman loses the output of a container that ends at once.
func (e *engine) runToEnd(t *testing.T, args ...string) (id, out string) {
	t.Helper()
	id = strings.TrimSpace(e.podman(t, append([]string{"run", "--detach"}, args...)...))
	return id, e.waitFor(t, id)
}

// waitFor waits for the end of a container, fails the test when it failed, and answers with all that it ever wrote.
func (e *engine) waitFor(t *testing.T, id string) string {
	t.Helper()
	if code := strings.TrimSpace(e.podman(t, "wait", id)); code != "0" {
		t.Fatalf("%s: the container ended with %s:\n%s", e.name, code, e.run(t, "sh", "-c", "podman logs $0 2>&1", id))
	}
	return e.podman(t, "logs", id)
}

// inContainer runs a script in a new container of an image, which is removed, and answers with what it wrote.
func (e *engine) inContainer(t *testing.T, image, script string, options ...string) string {
	t.Helper()
	id, out := e.runToEnd(t, append(append([]string{}, options...), image, "sh", "-euc", script)...)
	e.podman(t, "rm", id)
	return out
}

// exec runs a program in a running container and answers with what it wrote, which is something: see runToEnd.
func (e *engine) exec(t *testing.T, id string, args ...string) string {
	t.Helper()
	for range 5 {
		if out := e.podman(t, append([]string{"exec", id}, args...)...); out != "" {
			return out
		}
	}
	return ""
}

// start starts a container that runs a script until it is removed, at the end of the test, and answers with its id.
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

// stream runs a program in the engine and hands its output to read.
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

// folder is a new folder of the engine's user, below the engine's.
func (e *engine) folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp(e.Path(), "test-")
	harness.Check(t, err)
	e.own(t, dir)
	t.Cleanup(func() { harness.RemoveTree(dir) })
	return dir
}

// own gives a file to the engine's user.
func (e *engine) own(t *testing.T, path string) {
	t.Helper()
	if e.Rootless() {
		harness.Check(t, os.Chown(path, harness.PlainUser.UID, harness.PlainUser.GID))
	}
}
