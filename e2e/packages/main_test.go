package packages

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// envPackages is the folder of the packages.
const envPackages = "FUSE_OVERLAY_PACKAGES"

func TestMain(m *testing.M) {
	harness.Main(m, harness.Suite{Tools: map[string]string{
		"bsdtar": "libarchive-tools", "pacman": "pacman-package-manager", "rpm": "rpm",
	}})
}

// folder returns the folder of the packages, and skips a test of them if there is none.
func folder(t *testing.T) string {
	t.Helper()
	dir := os.Getenv(envPackages)
	if dir == "" {
		t.Skip("make test-packages builds the packages")
	}
	return dir
}

// built returns the path of the file with a suffix that was built for this machine's CPU.
func built(t *testing.T, suffix string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder(t), "fuse-overlay_*_"+runtime.GOARCH+suffix))
	harness.Check(t, err)
	if len(files) != 1 {
		t.Fatalf("%d files %s, want one: %q", len(files), suffix, files)
	}
	return files[0]
}

// script runs a script in a folder of the host, and ends the test if the script fails.
func script(t *testing.T, dir, text string) string {
	t.Helper()
	out, err := harness.RunIn(dir, []string{"LC_ALL=C", "TZ=UTC"}, 2*time.Minute, "bash", "-euo", "pipefail", "-c", text)
	if err != nil {
		t.Fatalf("%s: %v\n%s", text, err, out)
	}
	return out
}

// root is a copy of a Debian root.
type root string

func newRoot(t *testing.T) root {
	t.Helper()
	folder(t)
	from, e := harness.DebianRoot(t), harness.NewEnv(t, harness.ModeRoot)
	dir := filepath.Join(e.Dir, "root")
	script(t, "/", "cp -a --reflink=auto "+from+" "+dir)
	return root(dir)
}

// enter makes the mounts of a root in namespaces of its own, and runs a script in it. The process
// is the first of its PID namespace: all others end with it.
const enter = `
	mount -t proc proc "$0/proc"
	mount --rbind /dev "$0/dev"
	mount -t tmpfs -o mode=755 tmpfs "$0/run"
	cp --remove-destination /etc/resolv.conf "$0/etc/resolv.conf"
	ln -sf /proc/self/mounts "$0/etc/mtab" # fusermount3 reads it, and debootstrap makes none
	exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C DEBIAN_FRONTEND=noninteractive \
		chroot "$0" bash -euxo pipefail -c "$1"`

// run runs a script in the root, and ends the test if the script fails.
func (r root) run(t *testing.T, what, text string) {
	t.Helper()
	out, err := harness.RunIn("/", nil, 5*time.Minute, "unshare", "--mount", "--propagation", "private", "--pid", "--fork",
		"--kill-child", "bash", "-euc", enter, string(r), text)
	if err != nil {
		t.Fatalf("%s: %v\n%s", what, err, out)
	}
}
