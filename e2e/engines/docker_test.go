package engines

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

const (
	ourDriver    = "fuse-overlayfs"
	kernelDriver = "overlay2" // docker on the kernel's overlayfs, to compare with
)

// BuildKit inside dockerd builds on the driver too.
func TestDockerBuildKit(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.PrivateModes, func(t *testing.T, e *harness.Env) {
		harness.Tried(t, "docker, BuildKit", actRun)
		harness.NothingLeft(t)
		context := e.Dir + "/context"
		harness.Mkdir(t, context)
		harness.Check(t, harness.CopyFile("/bin/busybox", context+"/busybox"))
		harness.Write(t, context+"/Dockerfile", `
FROM scratch
COPY busybox /bin/sh
RUN ["/bin/sh", "-ec", "mkdir /d; echo x >/d/gone; echo old >/d/kept; echo \"root: $(cat /proc/mounts | head -n 1)\""]
RUN ["/bin/sh", "-ec", "rm /d/gone; echo new >/d/kept; mv /d/kept /d/moved"]
`)
		d := startDocker(t, e, engineRoot, ourDriver)
		if out := d.build(buildKit, "e2e/buildkit", context); !strings.Contains(out, "root: fuse-overlayfs / fuse.fuse-overlayfs rw") {
			t.Errorf("the root of a step: %s", out)
		}
		harness.Equal(t, "the image", d.run("built", "e2e/buildkit", "cd /d; echo *; cat moved"), "moved\nnew\n")
		d.docker("rm", "built")
		d.docker("rmi", "e2e/buildkit")
		wantMounted(t, "all containers removed", 0)
	})
}

// An image is built in more than 12 steps and two stages, run, changed, listed by diff, committed,
// saved, loaded and run again. The results equal those of docker's own driver for the kernel's
// overlayfs.
func TestDocker(t *testing.T) {
	harness.NeedDaemon(t)
	root := harness.DebianRoot(t)
	eachUserOfClients(t, func(t *testing.T, e *harness.Env, user string) {
		harness.Tried(t, client("docker", user), actBuild, actRun, actDiff, actCommit)
		builders := []string{buildKit}
		if user == engineRoot {
			harness.Tried(t, "docker, BuildKit", actBuild)
			if withClients() {
				builders = append(builders, olderBuilder)
			}
		}
		context := buildContext(t, e, user)
		exports := map[string]string{}
		diffs := map[string]string{}
		for _, driver := range []string{kernelDriver, ourDriver} {
			t.Run(driver, func(t *testing.T) {
				harness.NothingLeft(t)
				d := startDocker(t, e, user, driver)
				harness.Equal(t, "the driver", strings.TrimSpace(d.docker("info", "-f", "{{.Driver}}")), driver)
				d.importTree(root, buildBase)
				for _, builder := range builders {
					d.build(builder, "e2e/built"+builder, context)
					d.docker("create", "--name", "by"+builder, "e2e/built"+builder)
					exports[driver+" built"+builder] = d.export("by" + builder)
					d.docker("rm", "by"+builder)
					d.docker("tag", "e2e/built"+builder, "e2e/built")
				}
				if driver == ourDriver {
					wantMounted(t, "after the build", 0)
				}

				out := d.run("built", "e2e/built", "grep ' / ' /proc/mounts; cat /usr/share/doc/README; ls /usr/share/documents/apt")
				if driver == ourDriver && !strings.HasPrefix(out, "fuse-overlayfs / fuse.fuse-overlayfs rw") {
					t.Errorf("the root of the container: %s", out)
				}
				if !strings.HasSuffix(out, "r\nnew\n") {
					t.Errorf("in the image: %s", out)
				}
				d.run("changed", "e2e/built", containerChanges)
				diffs[driver] = sortedLines(d.docker("diff", "changed"))
				checkStorage(t, filepath.Join(d.dir, "data", driver), true) // of the build, and of the container
				d.docker("commit", "changed", "e2e/changed")
				d.docker("save", "-o", d.dir+"/saved.tar", "e2e/changed")
				d.docker("rm", "built", "changed")
				d.docker("rmi", "e2e/changed", "e2e/built")
				for _, builder := range builders {
					d.docker("rmi", "e2e/built"+builder)
				}
				d.docker("load", "-i", d.dir+"/saved.tar")
				d.docker("create", "--name", "loaded", "e2e/changed")
				exports[driver+" loaded"] = d.export("loaded")
				checkStorage(t, filepath.Join(d.dir, "data", driver), true)
				d.docker("rm", "loaded")
				if driver == ourDriver {
					wantMounted(t, "all containers removed", 0)
				}
			})
		}
		if t.Failed() {
			return
		}
		// For this driver docker writes layers from a comparison of attributes. A hard link to a file of
		// a layer below becomes a file of its own, whatever program mounts.
		v := kernelView
		v.Nlink = false
		what := []string{" loaded"}
		for _, builder := range builders {
			what = append(what, " built"+builder)
		}
		for _, what := range what {
			sameTreeAs(t, "the image"+what, exports[kernelDriver+what], exports[ourDriver+what], v)
		}
		harness.Equal(t, "docker diff", diffs[ourDriver], diffs[kernelDriver])
		for _, line := range []string{"D /out/moved/f2", "A /out/new/f3", "D /usr/share/documents", "C /etc/passwd",
			"A /etc2/deep/f3"} {
			if !strings.Contains("\n"+diffs[ourDriver], "\n"+line+"\n") {
				t.Errorf("docker diff: no %q in\n%s", line, tail(diffs[ourDriver], 4000))
			}
		}
	})
}

// containerChanges is a script for a container of the built image.
const containerChanges = `
	rm /out/moved/f2*; cp -a /out/moved /out/new; rm -r /usr/share/documents; echo more >>/etc/passwd
	cp -a /etc /etc2; rm /etc2/hostname; mv /srv/file /srv/file2; chmod 640 /srv/pipe; chown 9:9 /srv/null; ln /srv/tac /srv/tac2
	echo n >/etc/fstab.new; mv /etc/fstab.new /etc/fstab; rm /etc/fstab; dd if=/bin/bash of=/srv/bash bs=64k 2>/dev/null; cmp /bin/bash /srv/bash`

func sortedLines(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n") + "\n"
}

// Many containers run at the same time, with exec, cp, a commit while one of them writes, stop and
// start.
func TestDockerRunningContainers(t *testing.T) {
	eachUserOfClients(t, func(t *testing.T, e *harness.Env, user string) {
		harness.Tried(t, client("docker", user), actExec, actCopy, actMany)
		harness.NothingLeft(t)
		d := startDocker(t, e, user, ourDriver)
		d.importTree(busyboxImage(t, e), "e2e/busybox")
		const n = 20
		var started sync.WaitGroup
		for i := range n {
			started.Go(func() {
				name := fmt.Sprint("c", i)
				if out, err := d.try("run", "-d", "--network", "none", "--name", name, "e2e/busybox", "/bin/sh", "-c",
					"echo "+name+" >>/etc/conf; rm /data/removed; while :; do echo x >>/data/written; usleep 500000; done"); err != nil {
					t.Errorf("docker run: %v\n%s", err, out)
				}
			})
		}
		started.Wait()
		wantMounted(t, "running containers", n)
		for i := range n {
			name := fmt.Sprint("c", i)
			out := d.docker("exec", name, "/bin/sh", "-c", "until [ -e /data/written ]; do usleep 10000; done; cat /etc/conf; ls /data/removed 2>&1 || true")
			harness.Equal(t, "in "+name, out, "first\n"+name+"\nls: /data/removed: No such file or directory\n")
		}
		d.docker("commit", "c0", "e2e/running")
		harness.Equal(t, "committed while it wrote", d.docker("run", "--rm", "--network", "none", "e2e/running", "/bin/sh",
			"-c",
			"tail -n 1 /data/written; cat /etc/conf"), "x\nfirst\nc0\n")
		d.docker("cp", "c1:/data/tree", e.Dir+"/copied")
		harness.WantTree(t, "copied out of a container", e.Dir+"/copied", "file sub/f \"f\"\nfile sub/g \"g\"")
		d.docker("cp", e.Dir+"/copied", "c1:/data/hidden")
		harness.Equal(t, "copied into a container", d.docker("exec", "c1", "/bin/cat", "/data/hidden/copied/sub/f"), "f")
		d.docker("restart", "-t", "0", "c2")
		harness.Equal(t, "after a restart", d.docker("exec", "c2", "/bin/head", "-2", "/etc/conf"), "first\nc2\n")
		out, err := d.try("run", "--rm", "--read-only", "--network", "none", "e2e/busybox", "/bin/sh", "-c", "echo x >/etc/x")
		if err == nil || !strings.Contains(out, "can't create /etc/x: Read-only file system") {
			t.Errorf("a read-only container: %v\n%s", err, out)
		}
		for i := range n {
			d.docker("rm", "-f", fmt.Sprint("c", i))
		}
		wantMounted(t, "all containers removed", 0)
	})
}

// With --userns-remap docker shifts the owners on disk and requests no mapping. The root of the
// user namespace is a plain user to the mount, but works as root.
func TestDockerUserNamespace(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.PrivateModes, func(t *testing.T, e *harness.Env) {
		const script = `ls -lanR /data | grep -v ^total; id -u
			echo more >>/etc/conf; rm /etc/list; rm -r /data/gone; mkdir /data/gone; mv /data/tree /data/moved; rm /bin/vi
			cp -a /data/owned /data/owned2; ln /data/linked /data/linked2; chown -R 7:8 /data/owned; chmod -R go-rwx /data/private
			chmod 640 /data/pipe; chown 5:6 /data/null; mkfifo /data/new; ls -lanR /data | grep -v ^total`
		root := busyboxImage(t, e)
		var seen, trees [2]string
		for i, options := range [][]string{nil, {"--userns-remap", harness.PlainUser.Name}} {
			t.Run(fmt.Sprint("remap", i), func(t *testing.T) {
				harness.NothingLeft(t)
				d := startDocker(t, e, engineRoot, ourDriver, options...)
				d.importTree(root, "e2e/busybox")
				seen[i] = d.run("changed", "e2e/busybox", script)
				mapped := strings.Fields(d.docker("run", "--rm", "--network", "none", "e2e/busybox", "cat", "/proc/self/uid_map"))
				harness.Equal(t, "root is mapped", mapped[1] != "0", i == 1)
				trees[i] = d.export("changed")
				d.docker("rm", "changed")
			})
		}
		harness.Equal(t, "what the mapped container sees", withoutMinutes(seen[1]), withoutMinutes(seen[0]))
		v := kernelView
		v.Skip = func(rel string) bool { return rel == "etc/mtab" } // docker does not shift the owner of its own link
		sameTreeAs(t, "the exported container", trees[0], trees[1], v)
	})
}

// recent is how ls shows a time of the last months.
var recent = regexp.MustCompile(`[A-Z][a-z]{2} +\d+ \d\d:\d\d`)

// withoutMinutes replaces the times of changed files in the output of ls: of two containers, the
// second may run in the next minute.
func withoutMinutes(list string) string { return recent.ReplaceAllString(list, "now") }

// busyboxImage makes the folder of a small image.
func busyboxImage(t *testing.T, e *harness.Env) string {
	t.Helper()
	root := filepath.Join(e.Dir, "root")
	harness.Mkdir(t, root)
	installBusybox(t, root)
	harness.Build(t, e, root, imageLayers[0])
	return root
}

// If the mount fails, docker prints the reason of the program.
func TestDockerMountFails(t *testing.T) {
	eachUser(t, func(t *testing.T, e *harness.Env, user string) {
		harness.NothingLeft(t)
		d := startDocker(t, e, user, ourDriver)
		d.importTree(busyboxImage(t, e), "e2e/busybox")
		layers, err := filepath.Glob(d.dir + "/data/fuse-overlayfs/*/diff")
		harness.Check(t, err)
		harness.Equal(t, "layers", len(layers), 1)
		harness.Shell(t, "", "mv "+layers[0]+" "+layers[0]+".away")
		out, err := d.try("run", "--rm", "--network", "none", "e2e/busybox", "/bin/true")
		reason := regexp.MustCompile(`fuse-overlayfs: lowerdir ".*/fuse-overlayfs/l/\w+": no such file or directory`)
		if err == nil || !reason.MatchString(out) {
			t.Errorf("without a layer: %v\n%s", err, out)
		}
		wantMounted(t, "a failed mount", 0)
		harness.Shell(t, "", "mv "+layers[0]+".away "+layers[0])
		d.docker("run", "--rm", "--network", "none", "e2e/busybox", "/bin/true")
		wantMounted(t, "the container removed", 0)
	})
}
