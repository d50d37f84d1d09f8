package engines

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// listTree lists a tree with all that podman keeps of an object. Its argument is the root.
const listTree = `
	cd "$1"; find . ! -name . -printf '%P %y %m %U:%G %T@ %n %l\n' | sed -E '/^[^ ]* d /s/ [0-9]+ ?$//' | sort
	find . -type f | sort | xargs -d '\n' md5sum; getfattr -R -d -m- -h . | sort`

// Layers that podman writes and skopeo copies, unpacked by fuse-overlay apply and mounted, give the
// tree that podman shows.
func TestApplyLayersOfPodman(t *testing.T) {
	eachEngine(t, func(t *testing.T, e *engine) {
		e.need(t, imageBusybox)
		_, _ = e.runToEnd(t, "--name", "for-apply", imageBusybox, "sh", "-euc", changes)
		const image = "localhost/for-apply"
		e.podman(t, "commit", "--quiet", "for-apply", image)
		e.removeImageLater(t, image)
		e.podman(t, "rm", "for-apply")
		dir := e.folder(t)
		harness.Write(t, dir+"/list", listTree)

		enter := []string{"sh", "-euc"}
		if e.Rootless() {
			enter = append([]string{"podman", "unshare"}, enter...)
		}
		inside := func(script string, args ...string) string {
			return e.run(t, append(append(append([]string{}, enter...), script, harness.Program), args...)...)
		}
		want := inside(`p=$(podman image mount "$1"); sh -eu "$2" "$p"; podman image unmount "$1" >&2`, image+":latest", dir+"/list")
		for _, compression := range []string{"gzip", "zstd"} {
			layout := dir + "/" + compression
			e.skopeo(t, "copy", "--dest-compress-format", compression, "containers-storage:"+image+":latest", "oci:"+layout+":x")
			var lowers []string // top first
			for i, blob := range layersOf(t, layout) {
				lower := fmt.Sprintf("%s/lower-%s-%d", dir, compression, i)
				inside(`exec "$0" apply "$1" "$2"`, blob, lower)
				lowers = append([]string{lower}, lowers...)
			}
			if len(lowers) < 2 {
				t.Fatalf("the image has %d layers", len(lowers))
			}
			got := inside(`mkdir "$2"; "$0" -o lowerdir="$1" "$2"; sh -eu "$3" "$2"; "$0" umount "$2"; rmdir "$2"`,
				strings.Join(lowers, ":"), dir+"/mnt", dir+"/list")
			if d := harness.DiffLines(lineSet(want), lineSet(got)); d != "" || strings.Count(want, "\n") < 100 {
				t.Errorf("%s: the mount of the layers differs:\n%s", compression, harness.Clip(d))
			}
		}
	})
}

// layersOf returns the files of the layers of an OCI layout with one image, the base first.
func layersOf(t *testing.T, layout string) (paths []string) {
	t.Helper()
	blob := func(digest string) string {
		return filepath.Join(layout, "blobs", strings.Replace(digest, ":", "/", 1))
	}
	read := func(path string, v any) {
		text, err := os.ReadFile(path)
		harness.Check(t, err)
		harness.Check(t, json.Unmarshal(text, v))
	}
	type object struct{ Digest string }
	var index struct{ Manifests []object }
	var manifest struct{ Layers []object }
	read(layout+"/index.json", &index)
	read(blob(index.Manifests[0].Digest), &manifest)
	for _, layer := range manifest.Layers {
		paths = append(paths, blob(layer.Digest))
	}
	return paths
}
