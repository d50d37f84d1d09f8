package engines

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// After the removal of all containers and images of podman and buildah nothing is left in the
// storage: no layer, no temporary file, no mount, no process.
func TestPodmanRemoval(t *testing.T) {
	harness.NeedDaemon(t)
	for _, user := range []string{engineRoot, engineRootless} {
		t.Run(user, func(t *testing.T) {
			s := newStorage(t, user)
			s.use(t, driverOurs, nil, func(t *testing.T, e *engine) {
				e.tried(t, "podman", actRemoval)
				e.tried(t, "buildah", actRemoval)
				s.make(t, e, "first")
				s.make(t, e, "second")
				running := strings.TrimSpace(e.podman(t, "run", "--detach", imageBusybox, "sleep", "1000"))
				harness.Equal(t, "exec", e.exec(t, running, "cat", "/data/kept"), "kept\n")
				working := strings.TrimSpace(e.run(t, "buildah", "from", "localhost/second"))
				e.run(t, "buildah", "run", "--network=none", working, "rm", "-r", "/data/dir")
				e.run(t, "buildah", "commit", "--quiet", working, "localhost/built")
				harness.Check(t, e.empty())
				s.images = nil
			})
		})
	}
}

// 20 working containers of buildah change at the same time, each with a mount of its own.
func TestBuildahManyContainers(t *testing.T) {
	eachEngine(t, func(t *testing.T, e *engine) {
		e.tried(t, "buildah", actMany)
		e.need(t, imageBusybox)
		const many = 20
		var wg sync.WaitGroup
		for i := range many {
			wg.Go(func() {
				name := fmt.Sprint("working-", i)
				for _, command := range []string{
					"buildah from --name " + name + " " + imageBusybox,
					"buildah run --network=none " + name + " sh -euc",
				} {
					args := strings.Fields(command)
					if args[1] == "run" {
						args = append(args, fmt.Sprintf("echo %d >>/data/changed; rm /data/removed; mv /data/dir /data/dir%d", i, i))
					}
					if _, err := e.Run(engineLimit, args...); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		defer e.run(t, "buildah", "rm", "--all")
		for i := range many {
			out := e.run(t, "buildah", "run", "--network=none", fmt.Sprint("working-", i), "sh", "-euc", "cd /data; cat changed; ls -d removed dir* 2>/dev/null || true")
			harness.Equal(t, fmt.Sprint("in ", i), out, fmt.Sprintf("changed\n%d\ndir%d\n", i, i))
		}
	})
}
