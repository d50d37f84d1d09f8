package engines

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// umoci unpacks an image into the mount, and makes a layer of what changes there.
func TestUmoci(t *testing.T) {
	needClients(t)
	harness.EachMode(t, harness.PrivateModes, func(t *testing.T, e *harness.Env) {
		harness.Tried(t, "umoci", "unpack", "repack")
		harness.NothingLeft(t)
		layers := imageDirs(t, e)
		plainCopy, repacked := e.Dir+"/plain", map[string]string{}
		harness.Mkdir(t, plainCopy)
		o := e.Overlay(t, "file old \"in the lower\"")
		o.Mount()
		for _, place := range []string{plainCopy, o.Point} {
			image := filepath.Join(e.Dir, "image-"+filepath.Base(place))
			ociLayout(t, image, "e2e", []string{"/bin/sh"}, layers...)
			umoci(t, "unpack", "--image", image+":e2e", place+"/bundle")
			harness.Chroot(t, place+"/bundle/rootfs", "/bin/sh", imageChanges)
			umoci(t, "repack", "--image", image+":changed", place+"/bundle")
			repacked[place] = filepath.Join(e.Dir, "unpacked-"+filepath.Base(place))
			umoci(t, "unpack", "--image", image+":changed", repacked[place])
		}
		sameTree(t, "the bundle", plainCopy+"/bundle/rootfs", o.Point+"/bundle/rootfs")
		sameTree(t, "the repacked image", repacked[plainCopy]+"/rootfs", repacked[o.Point]+"/rootfs")
		for _, name := range []string{"data/hidden/a", "data/gone", "data/again", "bin/vi"} {
			if _, err := os.Lstat(repacked[o.Point] + "/rootfs/" + name); err == nil {
				t.Errorf("%s is in the repacked image", name)
			}
		}
		o.Unmount()
	})
}

func umoci(t *testing.T, args ...string) {
	t.Helper()
	if out, err := harness.RunIn("/", nil, time.Minute, "umoci", args...); err != nil {
		t.Fatalf("umoci %q: %v\n%s", args, err, out)
	}
}
