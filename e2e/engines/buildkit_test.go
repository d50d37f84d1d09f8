package engines

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// BuildKit's own daemon. It contains the snapshotter, which mounts by the program.

const buildkitSocket = "unix:///run/buildkit/buildkitd.sock"

// buildkitd is a running daemon of BuildKit.
type buildkitd struct {
	t       *testing.T
	dir     string
	options []string // of each build
}

// startBuildkit starts the daemon on a snapshotter, as root or as a plain user by the prefix of
// rootless. The base image consists of layers.
func startBuildkit(t *testing.T, e *harness.Env, prefix []string, snapshotter string, layers ...string) *buildkitd {
	t.Helper()
	dir, err := os.MkdirTemp(e.Dir, "buildkit-")
	harness.Check(t, err)
	b := &buildkitd{t: t, dir: dir}
	harness.Mkdir(t, "/run/buildkit", dir+"/data", dir+"/out")
	digest := ociLayout(t, dir+"/image", buildBase, []string{"/bin/sh"}, layers...)
	b.options = []string{"--oci-layout", "base=" + dir + "/image", "--opt", "context:" + buildBase + "=oci-layout://base@" + digest}
	if len(prefix) == 0 {
		b.options = append(b.options, "--opt", "cgroup-parent="+harness.CgroupName())
	}
	command := append(slices.Clone(prefix), program("buildkitd"), "--root", dir+"/data", "--addr", buildkitSocket,
		"--containerd-worker=false", "--oci-worker=true", "--oci-worker-gc=false", "--oci-worker-net=host",
		"--oci-worker-snapshotter="+snapshotter)
	if len(prefix) > 0 {
		command = append(command, "--rootless")
		harness.Shell(t, "", fmt.Sprintf("chown -R %s: %s /run/buildkit; chmod 755 %[2]s", harness.PlainUser.Name, dir))
	}
	startService(t, e, func() error { _, err := b.try("debug", "workers"); return err }, command[0], command[1:]...)
	return b
}

func (b *buildkitd) try(args ...string) (string, error) {
	return harness.RunIn(b.dir, nil, 5*time.Minute, program("buildctl"), append([]string{"--addr", buildkitSocket},
		args...)...)
}

// build builds the image of a folder, unpacks it into a new folder, and returns the log.
func (b *buildkitd) build(name, context string, options ...string) (log string, err error) {
	b.t.Helper()
	to := filepath.Join(b.dir, "out", name)
	harness.Mkdir(b.t, to)
	args := append([]string{"build", "--frontend", "dockerfile.v0", "--progress", "plain", "--no-cache",
		"--local", "context=" + context, "--local", "dockerfile=" + context, "--output", "type=tar,dest=" + to + ".tar"},
		b.options...)
	if log, err = b.try(append(args, options...)...); err == nil {
		harness.Shell(b.t, to, "tar -x --xattrs --xattrs-include='*' --numeric-owner -f "+to+".tar")
	}
	return log, err
}

// wantNothing removes all that was built, and fails the test if a snapshot or a mount stays.
func (b *buildkitd) wantNothing() {
	b.t.Helper()
	if out, err := b.try("prune", "--all"); err != nil {
		b.t.Errorf("buildctl prune: %v\n%s", err, out)
	}
	left := ""
	if !harness.Eventually(10*time.Second, func() bool {
		left = harness.Shell(b.t, b.dir, "find data/runc-*/snapshots/snapshots -mindepth 1 -maxdepth 1")
		return left == ""
	}) {
		b.t.Errorf("these snapshots stay:\n%s", left)
	}
	wantMounted(b.t, "all builds removed", 0)
}

// rootless is a command that runs another as a plain user, in a user namespace that maps its
// subordinate ids.
var rootless = append(slices.Clone(asPlainUser), "XDG_RUNTIME_DIR=/run/buildkit", "unshare", "--user", "--mount", "--map-root-user", "--map-auto", "--")

// An image is built in more than 12 steps and two stages. Its tree is that of a build on the
// kernel's overlayfs.
func TestBuildKit(t *testing.T) {
	needClients(t)
	buildkit.need(t)
	root := harness.DebianRoot(t)
	for user, prefix := range map[string][]string{engineRoot: nil, engineRootless: rootless} {
		t.Run(user, func(t *testing.T) {
			harness.EachMode(t, harness.PrivateModes, func(t *testing.T, e *harness.Env) {
				harness.Tried(t, "BuildKit, "+user, actBuild)
				harness.NothingLeft(t)
				context := buildContext(t, e, user)
				trees := map[string]string{}
				for _, s := range []string{kernelSnapshotter, ourSnapshotter} {
					t.Run(s, func(t *testing.T) {
						b := startBuildkit(t, e, prefix, s, root)
						if log, err := b.build("image", context); err != nil {
							t.Fatalf("%v\n%s", err, tail(log, 6000))
						}
						trees[s] = b.dir + "/out/image"
						b.wantNothing()
					})
				}
				if !t.Failed() {
					sameTreeAs(t, "the image", trees[kernelSnapshotter], trees[ourSnapshotter], kernelView)
				}
			})
		})
	}
}

// 20 images are built at the same time, each of a step of its own.
func TestBuildKitManyBuilds(t *testing.T) {
	needClients(t)
	buildkit.need(t)
	for user, prefix := range map[string][]string{engineRoot: nil, engineRootless: rootless} {
		t.Run(user, func(t *testing.T) {
			harness.EachMode(t, harness.PrivateModes, func(t *testing.T, e *harness.Env) {
				harness.Tried(t, "BuildKit, "+user, actRun, actMany, actRemoval)
				harness.NothingLeft(t)
				b := startBuildkit(t, e, prefix, ourSnapshotter, imageDirs(t, e)...)
				context := filepath.Join(e.Dir, "context")
				harness.Mkdir(t, context)
				harness.Write(t, context+"/Dockerfile", "FROM "+buildBase+`
ARG N
RUN rm /etc/list && echo $N >>/etc/conf && head -n 1 /proc/mounts >/etc/root && echo $N >/data/again
`)
				const many = 20
				var done sync.WaitGroup
				for i := range many {
					done.Go(func() {
						name := fmt.Sprint("n", i)
						log, err := b.build(name, context, "--opt", "build-arg:N="+name)
						if err != nil {
							t.Errorf("%s: %v\n%s", name, err, tail(log, 2000))
							return
						}
						dir := filepath.Join(b.dir, "out", name)
						harness.Equal(t, name, harness.Shell(t, dir, "cat etc/conf data/again; test ! -e etc/list; cut -d ' ' -f 1-3 etc/root"),
							"second\n"+name+"\n"+name+"\noverlay / fuse.fuse-overlayfs\n")
					})
				}
				done.Wait()
				b.wantNothing()
			})
		})
	}
}
