package engines

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// apptainerMissing reports whether this release of Debian has no package apptainer.
func apptainerMissing() bool { return exec.Command("apt-cache", "show", "apptainer").Run() != nil }

// apptainer runs containers of a plain user, which is root of a user namespace in them. As root of
// the host it mounts the kernel's overlayfs in every configuration.
type apptainer struct {
	t   *testing.T
	dir string
}

func newApptainer(t *testing.T, e *harness.Env) *apptainer {
	t.Helper()
	a := &apptainer{t: t, dir: e.Dir}
	harness.Shell(t, "", `sed -i -e 's/^enable overlay = .*/enable overlay = driver/' \
		-e 's/^\(config [a-z_]* =\) .*/\1 no/' /etc/apptainer/apptainer.conf`)
	harness.Check(t, os.Chmod(a.dir, 0o777))
	ociArchive(t, a.dir+"/image.tar", "e2e", []string{"/bin/sh"}, harness.DebianRoot(t))
	a.run("build", "--fakeroot", "--sandbox", a.dir+"/sandbox", "oci-archive:"+a.dir+"/image.tar")
	return a
}

func (a *apptainer) run(args ...string) string {
	a.t.Helper()
	args = slices.Concat(asPlainUser, []string{"apptainer", "--quiet"}, args)
	out, err := harness.RunIn("/", nil, 3*time.Minute, args[0], args[1:]...)
	if err != nil {
		a.t.Fatalf("%q: %v\n%s", args, err, out)
	}
	return out
}

// exec runs a script in a container. args are options and the folder of the image.
func (a *apptainer) exec(script string, args ...string) string {
	a.t.Helper()
	return a.run(slices.Concat([]string{"exec", "--fakeroot", "--contain", "--no-mount", "home,tmp,bind-paths"}, args,
		[]string{"/bin/sh", "-euc", script})...)
}

// overlay makes a folder for the changes of a container, and returns the arguments of exec.
func (a *apptainer) overlay(name string) []string {
	a.t.Helper()
	path := filepath.Join(a.dir, name)
	harness.Shell(a.t, "", "mkdir "+path+"; chown "+harness.PlainUser.Name+": "+path)
	return []string{"--overlay", path, a.dir + "/sandbox"}
}

// asPlainUser is a command that runs another as a plain user.
var asPlainUser = []string{"setpriv", "--reuid", harness.PlainUser.Name, "--regid", harness.PlainUser.Name,
	"--clear-groups", "env", "HOME=/home/" + harness.PlainUser.Name, "TMPDIR=/var/tmp"}

// apptainerSees lists the tree of a container. It leaves out what apptainer mounts.
const apptainerSees = `
	cd /; find bin etc home opt root sbin srv usr var -path var/tmp -prune -o -print | sort | xargs -d '\n' stat -c '%A %u:%g %h %N' |
		sed -E '/^d/s/ [0-9]+ / /'
	find etc srv usr/share/documents -type f | sort | xargs -d '\n' md5sum`

// A container changes a writable overlay over an image in a folder. The next container sees what it
// sees after the same changes of a plain copy.
func TestApptainer(t *testing.T) {
	eachApptainer(t, []string{actRun}, func(t *testing.T, a *apptainer) {
		harness.Shell(t, a.dir, "cp -a sandbox plain")
		overlay := a.overlay("changes")
		root := a.exec("head -n 1 /proc/mounts;"+nspawnRoot, overlay...)
		harness.Equal(t, "on the program: "+root, strings.Contains(root, " / fuse.fuse-overlayfs rw"), true)
		a.exec(nspawnRoot, "--writable", a.dir+"/plain")
		want, got := a.exec(apptainerSees, "--writable", a.dir+"/plain"), a.exec(apptainerSees, overlay...)
		if d := harness.DiffLines(lineSet(want), lineSet(got)); d != "" {
			t.Errorf("a container on a plain copy and one on the program see:\n%s", harness.Clip(d))
		}
		wantMounted(t, "all containers ended", 0)
	})
}

// lineSet makes a table of lines that DiffLines compares.
func lineSet(text string) map[string]string {
	lines := map[string]string{}
	for line := range strings.Lines(text) {
		lines[line] = ""
	}
	return lines
}

// 20 containers run at the same time, each with an overlay of its own.
func TestApptainerManyContainers(t *testing.T) {
	eachApptainer(t, []string{actMany, actRemoval}, func(t *testing.T, a *apptainer) {
		var done sync.WaitGroup
		for i := range 20 {
			done.Go(func() {
				got := a.exec(fmt.Sprintf("echo c%d >/etc/issue; rm /etc/debian_version; cat /etc/issue; ls -d /etc/debian* || true", i),
					a.overlay(fmt.Sprint("o", i))...)
				harness.Equal(t, "written", got, fmt.Sprintf("c%d\nls: cannot access '/etc/debian*': No such file or directory\n", i))
			})
		}
		done.Wait()
		wantMounted(t, "all containers ended", 0)
	})
}

func eachApptainer(t *testing.T, actions []string, fn func(t *testing.T, a *apptainer)) {
	t.Helper()
	needClients(t)
	if apptainerMissing() {
		return // wantedActions does not want it either
	}
	harness.EachMode(t, harness.PrivateModes, func(t *testing.T, e *harness.Env) {
		harness.Tried(t, "apptainer, rootless", actions...)
		harness.NothingLeft(t)
		fn(t, newApptainer(t, e))
	})
}
