package engines

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// The service of containerd for Kubernetes, by crictl: pods, each with a sandbox, and containers.

const (
	criPause     = "test.local/pause:1"
	criSocket    = "unix:///run/containerd.sock"
	criMapOffset = 200000
)

// criSettings is the configuration of the service. A virtual machine of tests may lack
// CAP_SYS_RESOURCE, which low scores for the OOM killer need.
func criSettings(snapshotter, dir string) string {
	return fmt.Sprintf(`
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = %q
  restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = %q
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  BinaryName = %q
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "/usr/lib/cni"
  conf_dir = %q
`, criPause, snapshotter, dir+"/runc", dir)
}

// criRunc runs runc without shares of the CPU, which the service always sets. A cgroup2 beside
// cgroups of version 1 has no controller for it.
const criRunc = `#!/bin/bash
for dir; do
	[ ! -e "$dir/config.json" ] || sed -i 's/,"cpu":{[^}]*}//' "$dir/config.json"
done
exec runc "$@"
`

const criNetwork = `{"cniVersion": "0.4.0", "name": "e2e", "plugins": [{"type": "bridge", "bridge": "e2e0",
	"ipam": {"type": "host-local", "dataDir": "/run/cni", "ranges": [[{"subnet": "10.77.0.0/16"}]]}}]}`

// startCRI starts containerd with the service on a snapshotter, and imports the images.
func startCRI(t *testing.T, e *harness.Env, snapshotter string, layers ...string) *containerd {
	t.Helper()
	dir := filepath.Join(e.Dir, "cri-"+snapshotter)
	harness.Mkdir(t, dir)
	harness.Write(t, dir+"/10-e2e.conflist", criNetwork)
	harness.Check(t, os.WriteFile(dir+"/runc", []byte(criRunc), 0o755))
	c := startContainerdWith(t, e, engineRoot, criSettings(snapshotter, dir))
	t.Cleanup(func() { _, _ = c.tryCrictl("rmp", "--all", "--force") })
	c.namespace = "k8s.io"
	for name, command := range map[string][]string{criPause: {"/bin/sleep", "100000"}, containerdImage: {"/bin/sh"}} {
		archive := filepath.Join(c.dir, "image.tar")
		ociArchive(t, archive, name, command, layers...)
		c.ctr("images", "import", "--snapshotter", snapshotter, archive)
		harness.Check(t, os.Remove(archive))
	}
	return c
}

// crictl runs a command of crictl that must succeed, and returns its output without warnings.
func (c *containerd) crictl(args ...string) string {
	c.t.Helper()
	out, err := c.tryCrictl(args...)
	if err != nil {
		c.t.Fatalf("crictl %q: %v\n%s", args, err, out)
	}
	lines := slices.DeleteFunc(strings.Split(strings.TrimSpace(out), "\n"), func(line string) bool {
		return strings.Contains(line, "level=warning")
	})
	return strings.Join(lines, "\n")
}

func (c *containerd) tryCrictl(args ...string) (string, error) {
	return harness.RunIn(c.dir, nil, 3*time.Minute, program("crictl"), append([]string{"--config", "/dev/null", "--timeout", "170s",
		"--runtime-endpoint", criSocket, "--image-endpoint", criSocket}, args...)...)
}

// criPod is a pod.
type criPod struct {
	c      *containerd
	name   string
	mapped string // criMapped with numbers, or "" without a user namespace
	path   string // of its configuration
	id     string
}

// criMapped is the part of a configuration that hostUsers: false of Kubernetes becomes.
const criMapped = `, "namespace_options": {"userns_options": {"mode": 0,
	"uids": [{"container_id": 0, "host_id": %d, "length": 65536}],
	"gids": [{"container_id": 0, "host_id": %d, "length": 65536}]}}`

// runPod runs a pod, and writes what its containers write into a folder of its name.
func (c *containerd) runPod(name, mapped string) *criPod {
	c.t.Helper()
	p := &criPod{c: c, name: name, mapped: mapped, path: filepath.Join(c.dir, name+".json")}
	harness.Mkdir(c.t, p.out())
	harness.Check(c.t, os.Chmod(p.out(), 0o777))
	harness.Write(c.t, p.path, fmt.Sprintf(`{"metadata": {"name": %q, "namespace": "e2e", "uid": %q},
		"log_directory": %q, "linux": {"cgroup_parent": %q, "security_context": {"privileged": false%s}}}`,
		name, name, p.out(), harness.CgroupName(), mapped))
	p.id = c.crictl("runp", p.path)
	return p
}

func (p *criPod) out() string { return filepath.Join(p.c.dir, "out-"+p.name) }

// start starts a container of the pod. Its script writes to a file in the folder of the pod.
func (p *criPod) start(name, script string) (id string) {
	p.c.t.Helper()
	command, err := json.Marshal([]string{"/bin/sh", "-ec", "exec >/run/out/" + name + " 2>&1;" + script})
	harness.Check(p.c.t, err)
	path := filepath.Join(p.c.dir, p.name+"-"+name+".json")
	harness.Write(p.c.t, path, fmt.Sprintf(`{"metadata": {"name": %q}, "image": {"image": %q}, "command": %s,
		"mounts": [{"container_path": "/run/out", "host_path": %q}], "log_path": %q, "linux": {"security_context": {"privileged": false%s}}}`,
		name, containerdImage, command, p.out(), name+".log", p.mapped))
	id = p.c.crictl("create", p.id, path, p.path)
	p.c.crictl("start", id)
	return id
}

// wait returns what a container has written when its last line is "done".
func (p *criPod) wait(name string) string {
	p.c.t.Helper()
	var text []byte
	if !harness.Eventually(20*time.Second, func() bool {
		text, _ = os.ReadFile(p.out() + "/" + name)
		return strings.HasSuffix(string(text), "\ndone\n")
	}) {
		p.c.t.Errorf("%s in %s: %q", name, p.name, text)
	}
	return string(text)
}

func (p *criPod) remove() {
	p.c.t.Helper()
	p.c.crictl("stopp", p.id)
	p.c.crictl("rmp", p.id)
}

// criSees lists the tree that a container sees after its changes. A write by the root of a user
// namespace clears suid on every file system. The runtime mounts three files of the host on /etc,
// from containerd 2 on with mapped ids.
const criSees = imageChanges + `
	find /data /etc /etc.bak | grep -v -e /data/suid -e /host -e /resolv.conf | sort | xargs stat -c '%A %u:%g %t:%T %n'
	find /data /etc /etc.bak -type f | sort | xargs md5sum; readlink /data/link; echo done; exec sleep 1000`

// Pods with and without a user namespace (hostUsers: false) run containers on the program. They see
// what they see on the kernel's overlayfs, and commands run in them. With the pods the mounts end.
func TestCRI(t *testing.T) {
	needClients(t)
	snapshotter.need(t)
	criTools.need(t)
	harness.EachMode(t, harness.PrivateModes, func(t *testing.T, e *harness.Env) {
		harness.Tried(t, "containerd, CRI", actRun, actExec, actUserns)
		harness.NothingLeft(t)
		seen, layers := map[string]string{}, imageDirs(t, e)
		for _, s := range []string{kernelSnapshotter, ourSnapshotter} {
			t.Run(s, func(t *testing.T) {
				c := startCRI(t, e, s, layers...)
				for kind, mapped := range map[string]string{"plain": "", "mapped": fmt.Sprintf(criMapped, criMapOffset, criMapOffset)} {
					p := c.runPod(kind, mapped)
					id := p.start("changes", "grep ' / ' /proc/mounts; cat /proc/self/uid_map;"+criSees)
					text := p.wait("changes")
					root, text, _ := strings.Cut(text, "\n")
					harness.Equal(t, kind+": root on the program: "+root, strings.Contains(root, " / fuse.fuse-overlayfs rw"),
						s == ourSnapshotter)
					seen[s+" "+kind] = text
					harness.Equal(t, "exec", c.crictl("exec", "-s", id, "/bin/sh", "-ec",
						"echo on >>/etc.bak/conf; cat /etc.bak/conf"), "second\nmore\non")
					p.remove()
				}
				wantMounted(t, "all pods removed", 0)
			})
		}
		for _, kind := range []string{"plain", "mapped"} {
			harness.Equal(t, kind, seen[ourSnapshotter+" "+kind], seen[kernelSnapshotter+" "+kind])
		}
		_, plain, _ := strings.Cut(seen[ourSnapshotter+" plain"], "\n")
		idMap, mapped, _ := strings.Cut(seen[ourSnapshotter+" mapped"], "\n")
		harness.Equal(t, "the mapped pod sees", mapped, plain)
		harness.Equal(t, "its map", strings.Join(strings.Fields(idMap), " "), fmt.Sprintf("0 %d 65536", criMapOffset))
	})
}

// 20 containers of one pod run at the same time.
func TestCRIManyContainers(t *testing.T) {
	needClients(t)
	snapshotter.need(t)
	criTools.need(t)
	harness.EachMode(t, harness.PrivateModes, func(t *testing.T, e *harness.Env) {
		harness.Tried(t, "containerd, CRI", actMany, actRemoval)
		harness.NothingLeft(t)
		c := startCRI(t, e, ourSnapshotter, imageDirs(t, e)...)
		p := c.runPod("many", "")
		const many = 20
		var started sync.WaitGroup
		for i := range many {
			started.Go(func() {
				p.start(fmt.Sprint("c", i), fmt.Sprintf("echo c%d >>/etc/conf; rm /etc/list; cat /etc/conf; echo done; exec sleep 1000", i))
			})
		}
		started.Wait()
		if t.Failed() {
			return
		}
		wantMounted(t, "a sandbox and its containers", many+1)
		for i := range many {
			harness.Equal(t, "written", p.wait(fmt.Sprint("c", i)), fmt.Sprintf("second\nc%d\ndone\n", i))
		}
		p.remove()
		wantMounted(t, "the pod removed", 0)
	})
}
