package engines

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// The changes of a container to its root show in itself, in podman diff, and in an image of it.

// changes changes objects of the image in each way. The last line prints what the container sees
// then.
const changes = `
	cd /data
	rm removed; mv renamed moved; echo new >changed; echo more >>appended; echo created >created
	mv dir dir2; rm -r tree; mkdir tree; echo only >tree/only
	chmod 600 fifo; chown 1000:1000 kept; ln kept linked
	echo n >removed; rm removed
	echo n >owned.new; mv owned.new owned; rm owned
	ln -s changed symlink; mkdir empty; chmod 700 empty
	find . | sort; cat moved changed appended dir2/in dir2/sub/deep tree/only; stat -c '%F %a %u:%g' fifo kept symlink empty
	stat -c %h kept linked changed`

const changed = `.
./appended
./changed
./created
./dir2
./dir2/in
./dir2/sub
./dir2/sub/deep
./empty
./fifo
./kept
./linked
./moved
./symlink
./tree
./tree/only
renamed
new
appended
more
in
deep
only
fifo 600 0:0
regular file 644 1000:1000
symbolic link 777 0:0
directory 700 0:0
2
2
1
`

// changedDiff is the output of `podman diff` after changes.
var changedDiff = []string{
	"A /data/created", "A /data/dir2", "A /data/dir2/in", "A /data/dir2/sub", "A /data/dir2/sub/deep", "A /data/empty",
	"A /data/linked", "A /data/moved", "A /data/symlink", "A /data/tree/only",
	"C /data", "C /data/appended", "C /data/changed", "C /data/fifo", "C /data/kept", "C /data/tree",
	"D /data/dir", "D /data/owned", "D /data/removed", "D /data/renamed", "D /data/tree/a", "D /data/tree/b",
}

func TestPodmanRunDiffCommit(t *testing.T) {
	eachEngine(t, func(t *testing.T, e *engine) {
		e.tried(t, "podman", actRun, actDiff, actCommit)
		e.need(t, imageBusybox)
		e.removeLater(t, "changes")
		_, out := e.runToEnd(t, "--name", "changes", imageBusybox, "sh", "-euc", changes)
		harness.Equal(t, "in the container", out, changed)

		diff := strings.Split(strings.TrimSpace(e.podman(t, "diff", "changes")), "\n")
		slices.Sort(diff)
		if got, want := strings.Join(diff, "\n"), strings.Join(changedDiff, "\n"); got != want {
			t.Errorf("podman diff:\n%s\nwant:\n%s", got, want)
		}

		e.podman(t, "commit", "--quiet", "changes", "localhost/changed")
		e.removeImageLater(t, "localhost/changed")
		look := changes[strings.Index(changes, "find ."):]
		harness.Equal(t, "in a container of the new image", e.inContainer(t, "localhost/changed", "cd /data; "+look), changed)
		harness.Equal(t, "the old image", e.inContainer(t, imageBusybox,
			"cat /data/removed /data/owned /data/dir/in /data/tree/b"),
			"removed\nowned\nin\nb\n")
	})
}

// A container that is started again has its files, on the same upper.
func TestPodmanRestart(t *testing.T) {
	eachEngine(t, func(t *testing.T, e *engine) {
		e.need(t, imageBusybox)
		e.removeLater(t, "again")
		e.podman(t, "create", "--name", "again", imageBusybox, "sh", "-euc",
			"cat /data/changed; echo more >>/data/changed; rm -f /data/removed; test -e /data/made || mkdir /data/made; rmdir /data/dir/sub 2>/dev/null || true; rm -rf /data/dir; mkdir /data/dir; ls /data/dir")
		for range 3 {
			e.podman(t, "start", "again")
			e.waitFor(t, "again")
		}
		harness.Equal(t, "its output", e.podman(t, "logs", "again"), "changed\n"+"changed\nmore\n"+"changed\nmore\nmore\n")
	})
}

// If a mount fails, podman prints the reason.
func TestPodmanMountFails(t *testing.T) {
	eachEngine(t, func(t *testing.T, e *engine) {
		e.need(t, imageBusybox)
		_, err := e.Run(engineLimit, "podman", "--storage-opt", "overlay.mount_program="+harness.Program, "--storage-opt",
			"overlay.mountopt=no_such_option=1", "run", "--rm", imageBusybox, "true")
		if err == nil || !strings.Contains(err.Error(), "fuse-overlay: ") || !strings.Contains(err.Error(),
			"no_such_option=1") {
			t.Errorf("with an unknown option: %v", err)
		}
		harness.Equal(t, "afterwards", e.inContainer(t, imageBusybox, "cat /data/kept"), "kept\n")
	})
}

// The root of a container is a mount of the program, and shows as one inside.
func TestPodmanRootIsOurs(t *testing.T) {
	eachEngine(t, func(t *testing.T, e *engine) {
		e.need(t, imageBusybox)
		for options, mode := range map[string]string{"": "rw", "--read-only": "ro"} {
			line := strings.Fields(e.inContainer(t, imageBusybox, "grep ' / ' /proc/mounts", strings.Fields(options)...))
			if len(line) < 4 || line[2] != "fuse."+filepath.Base(harness.Program) || !strings.HasPrefix(line[3], mode+",") {
				t.Errorf("podman run %s: / is mounted as %q", options, line)
			}
		}
		out := e.inContainer(t, imageBusybox, "! echo x >/data/new && ! rm /data/kept && ! chmod 0 /data && cat /data/kept",
			"--read-only")
		harness.Equal(t, "in a read-only container", out, "kept\n")
	})
}

// With :O a folder of the host is the lower of a mount of its own.
func TestPodmanOverlayVolume(t *testing.T) {
	eachEngine(t, func(t *testing.T, e *engine) {
		e.need(t, imageBusybox)
		dir := e.folder(t)
		for _, name := range []string{"f", "g", "h"} {
			harness.Write(t, filepath.Join(dir, name), name)
			e.own(t, filepath.Join(dir, name))
		}
		out := e.inContainer(t, imageBusybox, `cd /v; grep ' /v ' /proc/mounts | cut -d' ' -f3; echo new >f; rm g; mv h i; echo n >n; cat *`,
			"--volume", dir+":/v:O")
		harness.Equal(t, "in the container", out, "fuse."+filepath.Base(harness.Program)+"\nnew\nhn\n")
		harness.WantTree(t, "the volume", dir, "file f \"f\"\nfile g \"g\"\nfile h \"h\"")
	})
}

// podman cp works in both directions, while the container runs and while it does not.
func TestPodmanCopy(t *testing.T) {
	eachEngine(t, func(t *testing.T, e *engine) {
		e.tried(t, "podman", actExec, actCopy)
		e.need(t, imageBusybox)
		dir := e.folder(t)
		in := filepath.Join(dir, "in")
		harness.Mkdir(t, in)
		harness.Write(t, filepath.Join(in, "a"), "from outside")
		for _, p := range []string{in, in + "/a"} {
			e.own(t, p)
		}
		for what, id := range map[string]string{
			"running": e.start(t, imageBusybox, "sleep 1000"),
			"created": strings.TrimSpace(e.podman(t, "create", imageBusybox, "cat", "/data/in/a", "/data/changed")),
		} {
			if what == "created" {
				e.removeLater(t, id)
			}
			e.podman(t, "cp", in, id+":/data/in")
			e.podman(t, "cp", filepath.Join(in, "a"), id+":/data/changed")
			e.podman(t, "cp", id+":/data", filepath.Join(dir, what))
			harness.WantText(t, filepath.Join(dir, what, "in", "a"), "from outside")
			harness.WantText(t, filepath.Join(dir, what, "changed"), "from outside")
			harness.WantText(t, filepath.Join(dir, what, "dir", "sub", "deep"), "deep\n")
			if what == "created" {
				e.podman(t, "start", id)
				harness.Equal(t, "what it finds when it is started", e.waitFor(t, id), "from outsidefrom outside")
			} else {
				harness.Equal(t, "what it finds", e.exec(t, id, "cat", "/data/in/a", "/data/changed"), "from outsidefrom outside")
			}
		}
	})
}
