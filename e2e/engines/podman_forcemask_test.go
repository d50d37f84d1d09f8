package engines

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// With force_mask all files of podman's storage have one mode. Their own mode is an xattr that the
// mount program reads and writes (xattr_permissions=2).
func TestPodmanForceMask(t *testing.T) {
	harness.NeedDaemon(t)
	onEngine(t, engineForceMask, func(t *testing.T, e *engine) {
		e.need(t, imageNoFifo)
		id := e.start(t, imageNoFifo, "cd /data; chown 5:6 changed kept; chmod 4751 changed; mkdir -m 1777 new; mkfifo -m 604 new/fifo; sleep 1000")
		const look = "cd /data; until [ -e new/fifo ]; do sleep 0.1; done; stat -c '%n %F %a %u:%g' changed kept new owned /bin/busybox"
		const want = `changed regular file 4751 5:6
kept regular file 644 5:6
new directory 1777 0:0
owned regular file 644 1000:1000
/bin/busybox regular file 755 0:0
`
		harness.Equal(t, "in the container", e.exec(t, id, "sh", "-euc", look+" new/fifo"), want+"new/fifo fifo 604 0:0\n")

		upper := strings.TrimSpace(e.podman(t, "inspect", "--format", "{{.GraphDriver.Data.UpperDir}}", id))
		for name, override := range map[string]string{"changed": "5:6:04751", "kept": "5:6:0644", "new": "0:0:01777:dir",
			"new/fifo": "0:0:0604:pipe"} {
			path := filepath.Join(upper, "data", name)
			value, err := harness.GetXattr(path, "user.containers.override_stat")
			if err != nil || !strings.HasPrefix(value, override) {
				t.Errorf("%s: %v, %q, want %q...", name, err, value, override)
			}
			harness.Equal(t, "owner on disk of "+name, int(harness.Lstat(t, path).Uid), harness.PlainUser.UID)
		}

		// podman cannot write a FIFO to a layer of such a storage. podman 4.3 loses the mode bits beyond
		// 0777 in it.
		e.podman(t, "exec", id, "sh", "-c", "rm /data/new/fifo; echo x >/data/new/fifo")
		e.podman(t, "commit", "--quiet", "--pause=false", id, "localhost/masked")
		e.removeImageLater(t, "localhost/masked")
		inImage := want
		if strings.Contains(e.podman(t, "--version"), "version 4.") {
			inImage = strings.NewReplacer("4751", "751", "1777", "777").Replace(want)
		}
		harness.Equal(t, "in an image of it", e.inContainer(t, "localhost/masked", look), inImage)
	})
}
