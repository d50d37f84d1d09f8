package engines

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// skopeo copies an image out of a storage that this program mounts, and into it again. The image
// that comes back is the one that went, and the storage works.
func TestSkopeoCopy(t *testing.T) {
	eachEngine(t, func(t *testing.T, e *engine) {
		e.tried(t, "skopeo", actCopy, actRemoval)
		e.need(t, imageBusybox)
		// An image of two layers. The upper one has removals of each kind.
		_, out := e.runToEnd(t, "--name", "for-skopeo", imageBusybox, "sh", "-euc", changes)
		harness.Equal(t, "in the container", out, changed)
		e.podman(t, "commit", "--quiet", "for-skopeo", "localhost/out")
		e.podman(t, "rm", "for-skopeo")
		want := e.export(t, "localhost/out", never())
		dir := e.folder(t)

		places := map[string]string{"directory": "dir:" + dir + "/directory", "layout": "oci:" + dir + "/layout:x",
			"archive": "docker-archive:" + dir + "/archive.tar:localhost/x:y"}
		for _, place := range places {
			e.skopeo(t, "copy", "containers-storage:localhost/out:latest", place)
		}
		e.podman(t, "rmi", "localhost/out") // or the copies would be names of it
		for name, place := range places {
			image := "localhost/in-" + name
			e.skopeo(t, "copy", place, "containers-storage:"+image+":latest")
			if d := harness.DiffLines(want, e.export(t, image, never())); d != "" {
				t.Errorf("%s: the copy differs:\n%s", name, harness.Clip(d))
			}
			look := changes[strings.Index(changes, "find ."):]
			harness.Equal(t, "in a container of the copy", e.inContainer(t, image, "cd /data; "+look), changed)
			e.skopeo(t, "delete", "containers-storage:"+image+":latest")
			if out := e.podman(t, "images", "--quiet", "--filter", "reference="+image); out != "" {
				t.Errorf("%s is still there: %s", image, out)
			}
		}
	})
}

// Two storages of different users and drivers exchange an image by skopeo: what one program has
// unpacked, the other one packs.
func TestSkopeoBetweenStorages(t *testing.T) {
	harness.NeedDaemon(t)
	trees := map[string]map[string]string{}
	place := filepath.Join(harness.RunDir, "between")
	harness.Mkdir(t, place)
	harness.Check(t, os.Chmod(place, 0o777))
	t.Cleanup(func() { harness.RemoveTree(place) })
	for _, kind := range []string{engineNativeRoot, engineRoot, engineRootless} {
		onEngine(t, kind, func(t *testing.T, e *engine) {
			before := filepath.Join(place, "of-the-one-before")
			image := "localhost/between"
			if kind == engineNativeRoot {
				e.need(t, imageBusybox)
				_, _ = e.runToEnd(t, "--name", "between", imageBusybox, "sh", "-euc", changes)
				e.podman(t, "commit", "--quiet", "between", image)
				e.podman(t, "rm", "between")
			} else {
				e.skopeo(t, "copy", "dir:"+before, "containers-storage:"+image+":latest")
			}
			e.removeImageLater(t, image)
			trees[kind] = e.export(t, image, never())
			harness.RemoveTree(before)
			e.skopeo(t, "copy", "containers-storage:"+image+":latest", "dir:"+before)
			harness.Shell(t, "", "chmod -R a+rX "+before)
		})
	}
	for _, kind := range []string{engineRoot, engineRootless} {
		if d := harness.DiffLines(trees[engineNativeRoot], trees[kind]); d != "" {
			t.Errorf("the image of %s differs:\n%s", kind, harness.Clip(d))
		}
	}
}

// skopeo runs skopeo in the engine. A plain user's skopeo needs its user namespace for the storage.
func (e *engine) skopeo(t *testing.T, args ...string) {
	t.Helper()
	e.run(t, append([]string{"skopeo", "--insecure-policy"}, args...)...)
}
