package engines

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// Containers are committed while they write, and many run at the same time.

// counter writes numbers to two files in turn, and replaces the second one by a rename each time.
const counter = `i=0; while :; do i=$((i+1)); echo $i >>/data/changed; echo $i >/data/next; mv /data/next /data/renamed; done`

// overwriter overwrites numbers of one length and changes modes. On any file system a commit fails
// if a file grows while podman reads it, or is removed between its readdir and its open.
const overwriter = `
	i=100000000; echo $i >/data/changed
	while :; do
		i=$((i+1)); echo $i | dd of=/data/changed conv=notrunc 2>/dev/null
		chmod 600 /data/appended; chmod 644 /data/appended; touch /data/dir; usleep 1000
	done`

// An image of a container that still writes is complete: files that do not change are there, and
// each written file is whole.
func TestPodmanCommitWhileWriting(t *testing.T) {
	eachEngine(t, func(t *testing.T, e *engine) {
		e.need(t, imageBusybox)
		id := e.start(t, imageBusybox, overwriter)
		number := func(what, text string) int {
			n, err := strconv.Atoi(strings.TrimSpace(text))
			if err != nil || n < 100_000_000 {
				t.Errorf("%s: the file holds %q", what, text)
			}
			return n
		}
		var first int
		if !harness.Eventually(10*time.Second, func() bool {
			out, err := e.Run(engineLimit, "podman", "exec", id, "cat", "/data/changed")
			first, _ = strconv.Atoi(strings.TrimSpace(out))
			return err == nil && first > 100_000_000
		}) {
			t.Fatal("the container does not write")
		}
		e.podman(t, "commit", "--quiet", "--pause=false", id, "localhost/live")
		e.removeImageLater(t, "localhost/live")
		out := strings.SplitAfter(e.inContainer(t, "localhost/live", "cat /data/changed /data/kept /data/tree/a"), "\n")
		inImage := number("the image", out[0])
		harness.Equal(t, "the rest", strings.Join(out[1:], ""), "kept\na\n")
		last := number("the container", e.exec(t, id, "cat", "/data/changed"))
		if inImage < first || last <= inImage {
			t.Errorf("the container was at %d, its image is at %d, the container is now at %d", first, inImage, last)
		}
	})
}

// wantCounter checks the output of counter, in a container of an image.
func (e *engine) wantCounter(t *testing.T, image, script string) {
	t.Helper()
	lines := strings.Fields(e.inContainer(t, image, script))
	if len(lines) != 3 || lines[2] != "kept" {
		t.Fatalf("in the image: %q", lines)
	}
	if n, err := strconv.Atoi(lines[0]); err != nil || n < 2 {
		t.Errorf("%s lines", lines[0])
	}
	if _, err := strconv.Atoi(lines[1]); err != nil && lines[1] != "renamed" {
		t.Errorf("the file that is replaced holds %q", lines[1])
	}
}

// A paused container does nothing, and then continues. The test is for root only: with cgroups of
// version 1 a container of a plain user cannot be paused.
func TestPodmanPause(t *testing.T) {
	harness.NeedDaemon(t)
	if _, err := os.Stat("/sys/fs/cgroup/freezer"); err != nil {
		if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err != nil {
			t.Fatal("neither version of cgroups can freeze here")
		}
	}
	onEngine(t, engineRoot, func(t *testing.T, e *engine) {
		e.need(t, imageBusybox)
		group := filepath.Base(harness.RunDir)
		t.Cleanup(func() { removeGroups(t, group) })
		id := e.start(t, imageBusybox, counter, "--cgroups=enabled", "--cgroup-parent=/"+group)
		upper := strings.TrimSpace(e.podman(t, "inspect", "--format", "{{.GraphDriver.Data.UpperDir}}", id))
		size := func() int64 { return harness.Lstat(t, filepath.Join(upper, "data", "changed")).Size }
		if !harness.Eventually(10*time.Second, func() bool {
			_, err := os.Stat(upper + "/data/changed")
			return err == nil
		}) {
			t.Fatal("the container does not write")
		}
		e.podman(t, "pause", id)
		before := size()
		time.Sleep(200 * time.Millisecond)
		harness.Equal(t, "size while it is paused", size(), before)
		e.podman(t, "commit", "--quiet", id, "localhost/paused")
		e.removeImageLater(t, "localhost/paused")
		harness.Equal(t, "size after a commit", size(), before)
		e.podman(t, "unpause", id)
		if !harness.Eventually(10*time.Second, func() bool { return size() > before }) {
			t.Error("the container does not continue")
		}
		e.podman(t, "commit", "--quiet", "--pause", id, "localhost/paused2") // which pauses it, as it does not by itself
		e.removeImageLater(t, "localhost/paused2")
		e.wantCounter(t, "localhost/paused2", "wc -l </data/changed; cat /data/renamed; cat /data/kept")
	})
}

// removeGroups removes the cgroups of a container's parent in all hierarchies.
func removeGroups(t *testing.T, name string) {
	t.Helper()
	gone := func() bool {
		out, err := harness.Run("find", "/sys/fs/cgroup", "-depth", "-type", "d", "-path", "*/"+name+"*", "-exec", "rmdir",
			"{}", ";")
		return err == nil && out == ""
	}
	if !harness.Eventually(10*time.Second, gone) {
		t.Errorf("cgroups named %s are left", name)
	}
}

// 20 containers of one image run at the same time, each with changes of its own.
func TestPodmanManyContainers(t *testing.T) {
	eachEngine(t, func(t *testing.T, e *engine) {
		e.tried(t, "podman", actMany)
		e.need(t, imageBusybox)
		const many = 20
		dir := e.folder(t)
		ids := make([]string, many)
		var wg sync.WaitGroup
		for i := range many {
			wg.Go(func() {
				script := fmt.Sprintf("echo %d >>/data/changed; rm /data/removed; echo %d >/data/own; sleep 1000", i, i)
				out, err := e.Run(engineLimit, "podman", "run", "--detach", "--name", "many-"+strconv.Itoa(i), imageBusybox, "sh",
					"-euc", script)
				if err != nil {
					t.Error(err)
				}
				ids[i] = strings.TrimSpace(out)
			})
		}
		wg.Wait()
		defer e.podman(t, "rm", "--force", "--all", "--time", "0")
		if t.Failed() {
			return
		}
		if daemons := e.daemons(); daemons != many {
			t.Errorf("%d containers run, with %d daemons", many, daemons)
		}
		for i, id := range ids {
			out := filepath.Join(dir, strconv.Itoa(i))
			e.podman(t, "cp", id+":/data", out)
			harness.WantText(t, out+"/changed", fmt.Sprintf("changed\n%d\n", i))
			harness.WantText(t, out+"/own", fmt.Sprintf("%d\n", i))
			harness.WantAbsent(t, out+"/removed")
			harness.WantText(t, out+"/kept", "kept\n")
		}
		e.podman(t, append([]string{"kill", "--signal", "KILL"}, ids...)...)
		e.podman(t, append([]string{"wait"}, ids...)...)
		if !harness.Eventually(10*time.Second, func() bool { return e.daemons() == 0 }) {
			t.Errorf("%d daemons outlive their containers", e.daemons())
		}
		harness.Equal(t, "the image", e.inContainer(t, imageBusybox, "cat /data/changed /data/removed"), "changed\nremoved\n")
	})
}

// daemons counts the program's processes in the engine.
func (e *engine) daemons() int {
	n := 0
	for _, pid := range harness.ProcessesOf(harness.Program) {
		if strings.Contains(strings.Join(harness.Cmdline(pid), " "), e.Path()) {
			n++
		}
	}
	return n
}
