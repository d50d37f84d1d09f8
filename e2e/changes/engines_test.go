package changes

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// engineLimit is the time limit of a command of an engine.
const engineLimit = 2 * time.Minute

// imageOf writes an image of layers, the lowest first, as a folder in the OCI layout.
func imageOf(t *testing.T, dir string, layers ...string) {
	t.Helper()
	type object = map[string]any
	const kind = "application/vnd.oci.image."
	blobs := filepath.Join(dir, "blobs", "sha256")
	harness.Mkdir(t, blobs)
	store := func(kind string, text []byte) object {
		digest := fmt.Sprintf("%x", sha256.Sum256(text))
		harness.Write(t, filepath.Join(blobs, digest), string(text))
		return object{"mediaType": kind, "digest": "sha256:" + digest, "size": len(text)}
	}
	text := func(v any) []byte {
		b, err := json.Marshal(v)
		harness.Check(t, err)
		return b
	}
	var stored []object
	var ids []any
	for _, layer := range layers {
		blob := store(kind+"layer.v1.tar", []byte(harness.ReadText(t, layer)))
		stored, ids = append(stored, blob), append(ids, blob["digest"])
	}
	config := store(kind+"config.v1+json", text(object{"architecture": runtime.GOARCH, "os": "linux", "config": object{},
		"rootfs": object{"type": "layers", "diff_ids": ids}}))
	manifest := store(kind+"manifest.v1+json", text(object{"schemaVersion": 2, "mediaType": kind + "manifest.v1+json",
		"config": config, "layers": stored}))
	manifest["annotations"] = object{"org.opencontainers.image.ref.name": "x"}
	harness.Write(t, filepath.Join(dir, "index.json"), string(text(object{"schemaVersion": 2, "manifests": []object{manifest}})))
	harness.Write(t, filepath.Join(dir, "oci-layout"), `{"imageLayoutVersion":"1.0.0"}`)
}

// skopeo and buildah apply the layer to that of the lower, once with a folder for each layer and
// once in one folder. The tree is that of the mount.
func TestLayerAppliedByEngines(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		s := newSite(t, e, form{mount: []string{"redirect_dir=on", "metacopy=on"}}, lowerTable)
		s.Mount()
		newWorker(t, s.Point, 11, true).work(120)
		harness.Shell(t, s.Point, "mkdir -p fixed; mknod fixed/null c 1 3; setfattr -n user.n -v 1 fixed; echo 1 >fixed/f; ln fixed/f fixed/g")
		s.Unmount()
		harness.Write(t, e.Dir+"/upper.tar", s.diff("--tar"))
		harness.Shell(t, s.Lowers[0], "tar --format=posix --xattrs --xattrs-include='*' --numeric-owner -cf ../lower.tar .")
		imageOf(t, e.Dir+"/image", e.Dir+"/lower.tar", e.Dir+"/upper.tar")
		s.Mount()
		want, err := harness.Snapshot(s.Point, exact())
		harness.Check(t, err)
		delete(want, ".") // engines leave the root as they make it
		for _, driver := range []string{"overlay", "vfs"} {
			storage := e.Dir + "/" + driver
			run := func(program string, args ...string) string {
				t.Helper()
				out, err := harness.RunIn(e.Dir, []string{"XDG_RUNTIME_DIR=" + storage}, engineLimit, program, args...)
				if err != nil {
					t.Fatalf("%s %q: %v\n%s", program, args, err, out)
				}
				return strings.TrimSpace(out)
			}
			buildah := func(args ...string) string {
				t.Helper()
				return run("buildah", append([]string{"--root", storage + "/root", "--runroot", storage + "/run", "--storage-driver", driver}, args...)...)
			}
			run("skopeo", "copy", "--quiet", "oci:image:x", fmt.Sprintf("containers-storage:[%s@%s/root+%s/run]localhost/x:y", driver, storage, storage))
			working := buildah("from", "--quiet", "localhost/x:y")
			got, err := harness.Snapshot(buildah("mount", working), exact())
			harness.Check(t, err)
			delete(got, ".")
			if d := harness.DiffLines(want, got); d != "" {
				t.Errorf("with driver %s:\n%s", driver, d)
			}
			buildah("umount", working)
			buildah("rm", working)
			buildah("rmi", "--all")
			// The driver overlay leaves its folder mounted.
			_, _ = harness.Run("umount", storage+"/root/overlay")
			harness.Check(t, os.RemoveAll(storage))
		}
		s.Unmount()
	})
}
