package engines

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// dockerStep changes the image of the step before in each way.
const dockerStep = `
	test ! -e /data/gone || rm -r /data/gone; mkdir -p /data/gone/$STEP; echo $STEP >/data/gone/$STEP/f
	echo $STEP >>/etc/conf; rm -f /data/removed /data/only-*; echo o >/data/only-$STEP; ln /etc/conf /etc/linked-$STEP
	rm -rf /data/tree; mkdir -m 700 /data/tree; echo $STEP >/data/tree/f; chown -R 7:8 /data/tree`

// A data folder of docker's driver fuse-overlayfs changes from the fuse-overlayfs of the
// distribution to this program and back. In between docker runs with its driver for the kernel's
// overlayfs, which has images of its own. Images and stopped containers are kept.
func TestDockerSwitch(t *testing.T) { forUser(t, engineRoot, switchDocker) }

// The same for the docker of a plain user.
func TestDockerRootlessSwitch(t *testing.T) {
	needClients(t)
	forUser(t, engineRootless, switchDocker)
}

func switchDocker(t *testing.T, e *harness.Env, user string) {
	harness.Tried(t, client("docker", user), actSwitch)
	harness.NothingLeft(t)
	root := busyboxImage(t, e)
	dir := filepath.Join(e.Dir, "switch")
	harness.Mkdir(t, dir)
	kept := map[string]string{} // the folders /data of stopped containers
	last := "e2e/busybox"
	for i, by := range []string{"other", "ours", kernelDriver, "other", "ours"} {
		t.Run(fmt.Sprint(i, by), func(t *testing.T) {
			driver, daemons := ourDriver, 1
			if by == "other" {
				t.Setenv("PATH", harness.OtherProgram()+":"+os.Getenv("PATH"))
				daemons = 0
			}
			if by == kernelDriver {
				driver, daemons = kernelDriver, 0
			}
			d := startDockerIn(t, e, user, dir, driver)
			if i == 0 {
				d.importTree(root, last)
			}
			if by == kernelDriver {
				harness.Equal(t, "images", d.docker("images", "--quiet"), "")
				d.importTree(root, "e2e/kernel")
				d.docker("run", "--rm", "--network", "none", "e2e/kernel", "/bin/sh", "-c", "rm -r /data")
				return
			}
			for name, was := range kept {
				now := d.data(name)
				v := kernelView
				v.Mtime = true
				harness.CompareTrees(t, name, was, now, v)
				harness.Check(t, os.RemoveAll(was))
				harness.Check(t, os.Rename(now, was))
				out := d.docker("start", "--attach", name)
				harness.Equal(t, "started again", out, "o\n")
			}
			step := fmt.Sprint("step", i)
			d.docker("run", "--network", "none", "--name", "making", "-e", "STEP="+step, last, "/bin/sh", "-ec", dockerStep)
			last = "e2e/" + step
			d.docker("commit", "making", last)
			d.docker("rm", "making")
			d.docker("run", "-d", "--network", "none", "--name", step, last, "/bin/sh", "-c",
				"cat /data/only-*; test -e /data/moved && exit; rm -r /data/gone; mv /data/tree /data/moved 2>/dev/null || mkdir /data/moved; chmod 600 /data/kept; sleep 5")
			wantMounted(t, by, daemons)
			d.docker("wait", step)
			kept[step] = filepath.Join(dir, "kept-"+step)
			harness.Check(t, os.Rename(d.data(step), kept[step]))
		})
	}
}

// After the removal of all containers and images nothing is left in docker's data folder, whichever
// builder has built.
func TestDockerRemoval(t *testing.T) {
	eachUser(t, func(t *testing.T, e *harness.Env, user string) {
		harness.Tried(t, client("docker", user), actRemoval)
		if user == engineRoot {
			harness.Tried(t, "docker, BuildKit", actRemoval)
		}
		harness.NothingLeft(t)
		d := startDocker(t, e, user, ourDriver)
		context := e.Dir + "/context"
		harness.Mkdir(t, context)
		harness.Write(t, context+"/Dockerfile", "FROM e2e/busybox\nRUN rm /data/removed && echo n >/data/new\nRUN rm -r /data/tree\n")
		d.importTree(busyboxImage(t, e), "e2e/busybox")
		for _, builder := range []string{buildKit, olderBuilder} {
			d.build(builder, "e2e/built"+builder, context)
			d.run("c"+builder+"x", "e2e/built"+builder, "rm /data/new; echo c >/data/c")
			d.docker("commit", "c"+builder+"x", "e2e/committed"+builder)
		}
		ids := strings.Fields(d.docker("ps", "--all", "--quiet"))
		d.docker(append([]string{"rm"}, ids...)...)
		d.docker("system", "prune", "--all", "--force")
		wantMounted(t, "all removed", 0)
		var left []string
		if !harness.Eventually(10*time.Second, func() bool {
			left, _ = filepath.Glob(d.dir + "/data/fuse-overlayfs/*/diff")
			return len(left) == 0
		}) {
			t.Errorf("layers are left: %v", left)
		}
		links, err := filepath.Glob(d.dir + "/data/fuse-overlayfs/l/*")
		harness.Check(t, err)
		harness.Equal(t, "links", len(links), 0)
	})
}
