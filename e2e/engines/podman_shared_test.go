package engines

import (
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// Two configurations, of this program and of fuse-overlayfs, use one storage at the same time. Each
// runs, changes, reads and commits containers whose layers the other one has mounted. No image and
// no container is damaged. The containers make no opaque directory: podman's commit under
// fuse-overlayfs loses what such a directory hides, without this program too.
func TestPodmanTwoProgramsAtOnce(t *testing.T) {
	eachStorage(t, func(t *testing.T, s *storage) {
		s.use(t, driverOurs, nil, func(t *testing.T, e *engine) {
			conf := filepath.Join(s.dir, "conf", "storage.conf")
			other := filepath.Join(s.dir, "conf", "other.conf")
			harness.Write(t, other, strings.Replace(harness.ReadText(t, conf), s.ours, s.program(t, driverOther), 1))
			s.make(t, e, "first")
			// run runs a command by one of the configurations.
			run := func(i int, args ...string) string {
				out, err := e.Run(engineLimit, append([]string{"env", "CONTAINERS_STORAGE_CONF=" + []string{conf, other}[i%2]},
					args...)...)
				if err != nil {
					t.Error(err)
				}
				return strings.TrimSpace(out)
			}
			const many = 4
			// podman diff and commit unmount the mount of the image, even if another podman walks it.
			var comparing sync.Mutex
			var wg sync.WaitGroup
			for i := range many {
				wg.Go(func() {
					name := fmt.Sprint("both", i)
					run(i, "podman", "run", "--detach", "--name", name, s.images[0], "sh", "-euc",
						fmt.Sprintf("cd /data; echo %d >>changed; rm tree/a tree/b; echo %d >tree/f; rm kept; touch ready; sleep 1000", i, i))
					await := "until [ -e /data/ready ]; do sleep 0.1; done; cat /data/tree/f; echo more >>/data/changed"
					run(i+1, "podman", "exec", name, "sh", "-euc", await) // by the other configuration
					comparing.Lock()
					defer comparing.Unlock()
					if diff := run(i+1, "podman", "diff", name); !strings.Contains(diff+"\n", "D /data/kept\n") {
						t.Errorf("podman diff %s: %s", name, diff)
					}
					run(i+1, "podman", "commit", "--quiet", "--pause=false", name, "localhost/"+name)
				})
			}
			wg.Wait()
			for i := range many {
				name := fmt.Sprint("both", i)
				want := fmt.Sprintf("first\n%d\nmore\n%d\nf\n", i, i)
				for by := range 2 {
					id := run(by, "podman", "run", "--detach", "localhost/"+name, "sh", "-euc",
						"cd /data; tail -n 3 changed; cat tree/f; ls -d tree/* kept 2>/dev/null | cut -d/ -f2")
					harness.Equal(t, name+" in an image", e.waitFor(t, id), want)
					run(by, "podman", "rm", id)
				}
				run(i+1, "podman", "rm", "--force", "--time", "0", name)
			}
			s.check(t, e, driverOurs)
		})
	})
}
