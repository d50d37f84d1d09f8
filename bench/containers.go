package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/fuse-overlay/fuse-overlay/internal/podman"
)

// image is the image of the containers: the tree and busybox.
const image = "localhost/bench"

// buildSteps change an image in 12 steps, each of which becomes a layer: podman compares the trees
// before and after.
const buildSteps = `FROM ` + image + ` AS stage
RUN mkdir /out && cp -a /tree/$(ls /tree | head -n 1) /out/first && find /tree -type f | head -n 200 | xargs cp -a -t /out
FROM ` + image + `
COPY --from=stage /out /stage
RUN find /tree -type f | sed -n 'n;n;n;p' | xargs rm
RUN mv /stage/first /first && mkdir /stage/first
RUN chmod -R go-w,u+x /stage
RUN chown -R 33:33 /first
RUN find /tree -type f | head -n 200 | while read f; do ln $f $f.linked; done && ln -s /tree /link
RUN cp -a /first /copy
RUN find /tree -type f | tail -n 200 | while read f; do echo more >>$f; done
COPY Containerfile /etc/
RUN find /tree -type f | head -n 200 | while read f; do echo n >$f.new; mv $f.new $f; rm $f; done
RUN rm -r /stage && mkdir /stage && echo n >/stage/new
RUN mv /copy /stage/copy
`

// containerWorkloads are those of podman as root, which mounts by the candidate. For the kernel,
// its native driver mounts.
func containerWorkloads(s sizes) []workload {
	all := []workload{
		{name: "podman build", about: "an image of 12 steps on the tree, a layer each", gauge: inPodman(buildImage)},
		{name: "podman containers", about: fmt.Sprintf("%d containers of one image: until all run, and until all are gone", s.containers),
			gauge: inPodman(startContainers(s.containers))},
	}
	for i := range all {
		w := &all[i]
		w.group, w.layout, w.detached, w.without = containers, (*layouts).image, true, []kind{plain}
		w.needs, w.rounds, w.full = []string{"podman", "crun", "nsenter", "setpriv", "busybox"}, 3, true
	}
	return all
}

// imageArchive is the image's only layer, in the layout's folder.
const imageArchive = "image.tar"

// image packs the tree with busybox.
func (l *layouts) image() (*layout, error) {
	if inUserNamespace() {
		return nil, fmt.Errorf("%w: podman gets namespaces of its own from root only", errUnavailable)
	}
	tree, err := l.shallow()
	if err != nil {
		return nil, err
	}
	return l.once("image", "", 1, func(made *layout) error {
		ctx := context.Background()
		root := made.merged
		if err := run(ctx, root, "sh", "-euc", `mkdir bin dev etc proc sys tmp
			cp "$(command -v busybox)" bin/busybox
			for name in $(busybox --list); do [ $name = busybox ] || ln -s busybox bin/$name; done`); err != nil {
			return err
		}
		// Hard links, because the tree is large.
		if err := run(ctx, root, "cp", "-al", tree.merged, "tree"); err != nil {
			return err
		}
		return run(ctx, root, "tar", "-cf", filepath.Join(made.dir, imageArchive), ".")
	})
}

// An engine is podman with the image for one workload, and what was measured in it.
type engine struct {
	*podman.Engine
	readings []reading
}

// podman runs one of its commands and returns what it writes.
func (e *engine) podman(ctx context.Context, args ...string) (string, error) {
	return finish(e.Command(ctx, append([]string{"podman"}, args...)...))
}

// timed calls f and keeps the time that it took.
func (e *engine) timed(name string, do func() error) error {
	start := time.Now()
	err := do()
	e.readings = append(e.readings, reading{name, nanoseconds, float64(time.Since(start).Nanoseconds())})
	return err
}

// inPodman runs a workload with a podman of its own, whose storage has the image.
func inPodman(do func(context.Context, *engine) error) func(context.Context, *task) ([]reading, error) {
	return func(ctx context.Context, t *task) (_ []reading, err error) {
		config, err := podmanConfig(t.session)
		if err != nil {
			return nil, err
		}
		started, err := podman.Start(config)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, started.Close()) }()
		e := &engine{Engine: started}
		if _, err := e.podman(ctx, "import", "--quiet", filepath.Join(t.session.layout.dir, imageArchive), image); err != nil {
			return nil, err
		}
		if err := run(ctx, "", "sync", "-f", t.session.dir); err != nil {
			return nil, err
		}
		err = do(ctx, e)
		return e.readings, err
	}
}

// podmanConfig makes podman mount by the session's candidate.
func podmanConfig(s *session) (podman.Config, error) {
	config := podman.Config{Dir: filepath.Join(s.dir, "podman")}
	if s.candidate.kind == inKernel {
		return config, nil
	}
	if len(s.candidate.command) != 1 {
		return config, fmt.Errorf("podman takes a mount program without arguments, not %q", s.candidate.command)
	}
	var err error
	if config.Program, err = exec.LookPath(s.candidate.command[0]); err != nil {
		return config, err
	}
	if s.candidate.options != "" {
		config.MountOptions = strings.Split(s.candidate.options, ",")
	}
	return config, nil
}

// buildImage builds the steps.
func buildImage(ctx context.Context, e *engine) error {
	folder := e.Path("context")
	if err := os.Mkdir(folder, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(folder, "Containerfile"), []byte(buildSteps), 0o644); err != nil {
		return err
	}
	return e.timed("podman build", func() error {
		_, err := e.podman(ctx, "build", "--quiet", "--layers", "--network=none", folder)
		return err
	})
}

// startContainers starts containers one after the other, and removes them at once.
func startContainers(count int) func(context.Context, *engine) error {
	return func(ctx context.Context, e *engine) error {
		err := e.timed(fmt.Sprintf("podman run, %d times", count), func() error {
			for range count {
				if _, err := e.podman(ctx, "run", "--detach", image, "sleep", "100000"); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		return e.timed(fmt.Sprintf("podman rm of %d containers", count), func() error {
			_, err := e.podman(ctx, "rm", "--force", "--all", "--time", "0")
			return err
		})
	}
}
