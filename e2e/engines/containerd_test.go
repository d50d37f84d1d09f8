package engines

import (
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

// run runs a script in a new container and returns its output. The output goes into a file, because
// ctr loses that of a short command on a busy machine. options are those of `ctr run`.
func (c *containerd) run(id string, options []string, script string) (string, error) {
	c.t.Helper()
	text := filepath.Join(c.dir, "out-"+id, "text")
	harness.Mkdir(c.t, filepath.Dir(text))
	harness.Check(c.t, os.Chmod(filepath.Dir(text), 0o777))
	cgroup := harness.CgroupName() + "/" + id
	if c.user == engineRootless {
		cgroup = "" // a plain user cannot make one
	}
	// No share of the CPU: a cgroup2 beside cgroups of version 1 has no controller for it.
	args := slices.Concat([]string{"run", "--cpu-shares", "0", "--cgroup", cgroup, "--mount",
		"type=bind,src=" + filepath.Dir(text) + ",dst=/run/out,options=rbind:rw"}, options)
	if !slices.Contains(options, "--rootfs") {
		args = append(args, containerdImage)
	}
	out, err := c.try(append(args, id, "/bin/sh", "-ec", "exec >/run/out/text 2>&1;"+script)...)
	written, _ := os.ReadFile(text)
	return string(written) + out, err
}

// mustRun is run for scripts that must succeed.
func (c *containerd) mustRun(id string, options []string, script string) string {
	c.t.Helper()
	out, err := c.run(id, options, script)
	if err != nil {
		c.t.Fatalf("container %s: %v\n%s", id, err, out)
	}
	return out
}

// end kills a container and removes its task. `ctr tasks rm --force` does both, but fails with runc
// 1.1 if the container has no cgroup.
func (c *containerd) end(id string) {
	c.t.Helper()
	c.ctr("tasks", "kill", "--signal", "SIGKILL", id)
	var err error
	if !harness.Eventually(10*time.Second, func() bool { _, err = c.try("tasks", "rm", id); return err == nil }) {
		c.t.Errorf("ctr tasks rm %s: %v", id, err)
	}
}

// importImage imports the test image and unpacks it for each snapshotter.
func (c *containerd) importImage(snapshotters ...string) {
	c.t.Helper()
	archive := filepath.Join(c.dir, "image.tar")
	ociArchive(c.t, archive, containerdImage, []string{"/bin/sh"}, imageDirs(c.t, c.e)...)
	for _, s := range snapshotters {
		c.ctr("images", "import", "--snapshotter", s, archive)
	}
}

// mountSnapshot mounts a snapshot without a container, as containerd does.
func (c *containerd) mountSnapshot(snapshotter, key string) string {
	c.t.Helper()
	target, err := os.MkdirTemp(c.dir, "mnt-"+snapshotter+"-"+key+"-")
	harness.Check(c.t, err)
	line := c.ctr("snapshots", "--snapshotter", snapshotter, "mounts", target, key)
	// mount(8) does not accept containerd's types fuse3.NAME. Its helper does.
	if args, ok := strings.CutPrefix(strings.TrimSpace(line), "mount -t fuse3."+ourSnapshotter+" "); ok {
		line = "mount.fuse3 " + args + " -t " + ourSnapshotter
	}
	// mount(8) from util-linux 2.39 on gives options by fsconfig(2), which takes at most 255 bytes.
	c.shell("LIBMOUNT_FORCE_MOUNT2=always " + line)
	c.t.Cleanup(func() { c.shell("umount " + target) })
	return target
}

// visible is a folder with the tree of such a mount. If a plain user has mounted it, it is a copy,
// because the test cannot read the mount.
func (c *containerd) visible(mount string) string {
	c.t.Helper()
	if c.user == engineRoot {
		return mount
	}
	c.shell("cp -a " + mount + " " + mount + "-copy")
	return mount + "-copy"
}

// wantMounted fails the test unless there are n daemons of the program in time.
func wantMounted(t *testing.T, what string, n int) {
	t.Helper()
	if !harness.Eventually(5*time.Second, func() bool { return len(harness.ProcessesOf(harness.Program)) == n }) {
		t.Errorf("%s: %d daemons, want %d", what, len(harness.ProcessesOf(harness.Program)), n)
		for _, pid := range harness.ProcessesOf(harness.Program) {
			t.Logf("%d: %.300s", pid, strings.Join(harness.Cmdline(pid), " "))
		}
	}
}

// An image is imported, unpacked through the program, run and changed. The results equal those of
// containerd's own snapshotter on the kernel's overlayfs.
func TestContainerd(t *testing.T) {
	needSnapshotter(t)
	eachUser(t, func(t *testing.T, e *harness.Env, user string) {
		harness.Tried(t, client("containerd", user), actRun, actDiff, actCommit)
		harness.NothingLeft(t)
		tree, changes := imageTree, imageChanges
		if user == engineRootless {
			tree, changes = withoutDevices(tree), withoutDevices(changes)
		}
		c := startContainerd(t, e, user)
		both := []string{kernelSnapshotter, ourSnapshotter}
		c.importImage(both...)
		bases, again, diffs := map[string]string{}, map[string]string{}, map[string]string{}
		for _, s := range both {
			snapshots := "snapshots --snapshotter " + s + " "
			do := func(command string) string { return c.ctr(strings.Fields(snapshots + command)...) }
			top := topSnapshot(t, do("ls"))
			do("view base " + top)
			bases[s] = c.visible(c.mountSnapshot(s, "base"))

			out := c.mustRun("changed", []string{"--snapshotter", s}, "head -1 /proc/mounts;"+changes)
			if s == ourSnapshotter && !strings.Contains(out, " / fuse.fuse-overlayfs rw") {
				t.Errorf("the root of the container: %s", out)
			}
			if usage := do("usage changed"); strings.Contains(usage, " 0.0 B") {
				t.Errorf("the usage of a changed snapshot: %s", usage)
			}
			diffs[s] = c.diff(s, "changed")
			c.ctr("containers", "rm", "--keep-snapshot", "changed")
			do("commit committed changed")
			do("prepare again committed")
			c.checkSnapshot(s, "again")
			again[s] = c.mountSnapshot(s, "again")
		}
		harness.WantTree(t, "the image", withoutSystem(t, e, bases[ourSnapshotter]), tree)
		sameTreeAs(t, "the unpacked image", bases[kernelSnapshotter], bases[ourSnapshotter], kernelView)
		sameTreeAs(t, "the committed snapshot", c.visible(again[kernelSnapshotter]), c.visible(again[ourSnapshotter]), kernelView)
		harness.Equal(t, "the layer made of the changes", diffs[ourSnapshotter], diffs[kernelSnapshotter])
		for _, name := range []string{"data/.wh.gone", "data/.wh.again", "data/.wh.tree", "etc/.wh.list", "bin/.wh.vi"} {
			if !strings.Contains(diffs[ourSnapshotter], " "+name+"\n") {
				t.Errorf("%s is not in the layer:\n%s", name, diffs[ourSnapshotter])
			}
		}
		wantMounted(t, "base and again", 2)
		out := c.mustRun("rootfs", []string{"--rootfs", "--rm", again[ourSnapshotter]}, "cat /etc.bak/conf; echo f >/fresh")
		harness.Equal(t, "run from the mounted snapshot", out, "second\nmore\n")
		harness.Equal(t, "what it wrote", c.shell("cat "+again[ourSnapshotter]+"/fresh"), "f\n")
	})
}

// For a container in a user namespace the mount maps ids (uidmapping, gidmapping). The container
// sees the owners of the image, and its files on disk have the ids of the image too.
func TestContainerdUserNamespace(t *testing.T) {
	needSnapshotter(t)
	harness.EachMode(t, harness.PrivateModes, func(t *testing.T, e *harness.Env) {
		harness.Tried(t, client("containerd", engineRoot), actUserns)
		harness.NothingLeft(t)
		c := startContainerd(t, e, engineRoot)
		c.importImage(ourSnapshotter)
		const map1 = "0:200000:65536"
		plain := []string{"--snapshotter", ourSnapshotter}
		mapped := []string{"--snapshotter", ourSnapshotter, "--remap-labels", "--uidmap", map1, "--gidmap", map1}
		see := "ls -lanR /data /etc | grep -v ^total; id -u; tail -n 1 /etc/conf;" + imageChanges
		var seen, uppers [2]string
		for i, options := range [][]string{plain, mapped} {
			id := fmt.Sprint("run", i)
			seen[i] = c.mustRun(id, options, see)
			line := c.ctr("snapshots", "--snapshotter", ourSnapshotter, "mounts", "/mnt", id)
			harness.Equal(t, id+" is mounted with a mapping: "+line, strings.Contains(line, "uidmapping="+map1+",gidmapping="+
				map1), i == 1)
			_, upper, _ := strings.Cut(line, "upperdir=")
			uppers[i], _, _ = strings.Cut(upper, ",")
		}
		harness.Equal(t, "what the mapped container sees", withoutMinutes(seen[1]), withoutMinutes(seen[0]))
		v := harness.FullView
		// A write by the root of a user namespace clears suid on every file system, because the kernel
		// needs CAP_FSETID of the initial one.
		v.Skip = func(rel string) bool { return rel == "data/suid" }
		harness.CompareTrees(t, "the upper", uppers[0], uppers[1], v)
	})
}

// Many containers of one image run at the same time, each with a root and a daemon of its own, one
// of them read-only. Mounts and daemons end with their containers.
func TestContainerdManyContainers(t *testing.T) {
	needSnapshotter(t)
	eachUserOfClients(t, func(t *testing.T, e *harness.Env, user string) {
		harness.Tried(t, client("containerd", user), actExec, actMany, actRemoval)
		harness.NothingLeft(t)
		c := startContainerd(t, e, user)
		c.importImage(ourSnapshotter)
		const n = 20
		var started sync.WaitGroup
		for i := range n {
			started.Go(func() {
				if out, err := c.run(fmt.Sprint("c", i), []string{"--snapshotter", ourSnapshotter, "--detach"}, fmt.Sprintf(
					"echo c%d >>/etc/conf; rm /etc/list; cat /etc/conf; ls /etc; grep -c fuse.fuse-overlayfs /proc/mounts; exec sleep 1000", i)); err != nil {
					t.Errorf("ctr run: %v\n%s", err, out)
				}
			})
		}
		started.Wait()
		wantMounted(t, "running containers", n)
		for i := range n {
			text := fmt.Sprintf("%s/out-c%d/text", c.dir, i)
			want := fmt.Sprintf("second\nc%d\nconf\npasswd\n1\n", i)
			got := []byte{}
			if !harness.Eventually(10*time.Second, func() bool { got, _ = os.ReadFile(text); return string(got) == want }) {
				t.Errorf("in c%d: got %q, want %q", i, got, want)
			}
		}
		c.ctr("tasks", "exec", "--exec-id", "x", "c3", "/bin/sh", "-ec", "tail -n 1 /etc/conf >/run/out/exec")
		harness.WantText(t, c.dir+"/out-c3/exec", "c3\n")
		for i := range n {
			id := fmt.Sprint("c", i)
			c.end(id)
			c.ctr("containers", "rm", id)
		}
		wantMounted(t, "all containers removed", 0)
		out, err := c.run("ro", []string{"--snapshotter", ourSnapshotter, "--rm", "--read-only"},
			"cat /etc/conf; grep ' / ' /proc/mounts; echo x >/etc/x")
		if err == nil || !strings.Contains(out, "second\n") || !strings.Contains(out, " / fuse.fuse-overlayfs ro") ||
			!strings.Contains(out, "can't create /etc/x: Read-only file system") {
			t.Errorf("a read-only container: %v\n%s", err, out)
		}
		wantMounted(t, "the read-only container removed", 0)
	})
}

// While a container runs, a layer is made of it and its snapshot is mounted a second time, as
// nerdctl commit, diff and export do. The layer equals that of the kernel's overlayfs. The
// container still runs.
func TestContainerdRunningContainer(t *testing.T) {
	needSnapshotter(t)
	harness.EachMode(t, harness.PrivateModes, func(t *testing.T, e *harness.Env) {
		harness.Tried(t, client("containerd", engineRoot), actExec, actDiff)
		harness.NothingLeft(t)
		c := startContainerd(t, e, engineRoot)
		both := []string{kernelSnapshotter, ourSnapshotter}
		c.importImage(both...)
		layers := map[string]string{}
		for _, s := range both {
			id := "live-" + s
			text := filepath.Join(c.dir, "out-"+id, "text")
			if out, err := c.run(id, []string{"--snapshotter", s, "--detach"}, imageChanges+
				"\necho changed; exec sleep 1000"); err != nil {
				t.Fatalf("ctr run: %v\n%s", err, out)
			}
			if !harness.Eventually(10*time.Second, func() bool {
				written, _ := os.ReadFile(text)
				return strings.Contains(string(written), "changed\n")
			}) {
				t.Fatalf("%s: the container does not answer", s)
			}
			layers[s] = c.diff(s, id)
			for range 2 { // the first one, still mounted, does not keep the second from it
				target := c.mountSnapshot(s, id)
				harness.WantText(t, target+"/etc.bak/conf", "second\nmore\n")
			}
			c.ctr("tasks", "exec", "--exec-id", "x", id, "/bin/sh", "-ec",
				"echo on >>/etc.bak/conf; tail -n 1 /etc.bak/conf >/run/out/exec")
			harness.WantText(t, filepath.Dir(text)+"/exec", "on\n")
			c.end(id)
			c.ctr("containers", "rm", "--keep-snapshot", id)
		}
		harness.Equal(t, "the layer made of a running container", layers[ourSnapshotter], layers[kernelSnapshotter])
		wantMounted(t, "the second mounts", 2)
	})
}

// If the mount fails, ctr prints the reason of the program.
func TestContainerdMountFails(t *testing.T) {
	needSnapshotter(t)
	harness.EachMode(t, harness.PrivateModes, func(t *testing.T, e *harness.Env) {
		harness.NothingLeft(t)
		c := startContainerd(t, e, engineRoot)
		c.importImage(ourSnapshotter)
		layer := filepath.Join(c.dir, "snapshots/snapshots/2/fs")
		harness.Check(t, os.Rename(layer, layer+".away"))
		options := []string{"--snapshotter", ourSnapshotter, "--rm"}
		out, err := c.run("broken", options, "true")
		if err == nil || !strings.Contains(out, `"fuse-overlayfs: lowerdir \"`+layer+`\": no such file or directory`) {
			t.Errorf("without a layer: %v\n%s", err, out)
		}
		wantMounted(t, "a failed mount", 0)
		harness.Check(t, os.Rename(layer+".away", layer))
		c.mustRun("whole", options, "true")
		wantMounted(t, "the container removed", 0)
	})
}

// topSnapshot is the committed snapshot without children: the image. Its argument is the output of
// `ctr snapshots ls`.
func topSnapshot(t *testing.T, list string) string {
	t.Helper()
	parents, keys := map[string]bool{}, []string{}
	for line := range strings.SplitSeq(list, "\n") {
		if f := strings.Fields(line); len(f) > 1 && f[len(f)-1] == "Committed" {
			keys = append(keys, f[0])
			if len(f) == 3 {
				parents[f[1]] = true
			}
		}
	}
	keys = slices.DeleteFunc(keys, func(key string) bool { return parents[key] })
	if len(keys) != 1 {
		t.Fatalf("images: %q in\n%s", keys, list)
	}
	return keys[0]
}

// diff lists the layer of a snapshot's changes: type, mode, owner, size or device, name.
func (c *containerd) diff(snapshotter, key string) string {
	c.t.Helper()
	out := c.shell("ctr snapshots --snapshotter " + snapshotter + " diff " + key + " | tar -tvz --numeric-owner")
	var lines []string
	for line := range strings.SplitSeq(strings.TrimSpace(out), "\n") {
		f := strings.Fields(line)
		lines = append(lines, strings.Join(append(f[:3], f[5:]...), " ")) // without day and time
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n") + "\n"
}

// withoutSystem is a copy of an image's tree without busybox and the folders for mounts.
func withoutSystem(t *testing.T, e *harness.Env, root string) string {
	t.Helper()
	dir := filepath.Join(e.Dir, "without-system")
	harness.Shell(t, "", "cp -a "+root+" "+dir+"; cd "+dir+"; rm -r bin; rmdir proc sys dev run")
	return dir
}
