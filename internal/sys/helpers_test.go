package sys

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

var (
	must    = testkit.Must
	want    = testkit.WantError
	openFDs = testkit.OpenFDs
)

// plainUser is the id of a user without rights.
const plainUser = 1000

// layer opens a fresh folder for writing.
func layer(t *testing.T) (d *Dir, path string) {
	t.Helper()
	path = t.TempDir()
	return openPlain(t, path), path
}

func openPlain(t *testing.T, path string) *Dir {
	t.Helper()
	fd, err := openTrusted(path)
	must(t, err)
	defer func() { _ = unix.Close(fd) }()
	d, err := openRoot(fd)
	must(t, err)
	t.Cleanup(d.Close)
	return d
}

// write makes a file by its path.
func write(t *testing.T, path, data string) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, []byte(data), 0o644))
}

func statOf(t *testing.T, r Ref) Stat {
	t.Helper()
	var st Stat
	must(t, r.Stat(&st))
	return st
}

func mountTmpfs(t *testing.T, point string) {
	t.Helper()
	if out, err := exec.Command("mount", "-t", "tmpfs", "tmpfs", point).CombinedOutput(); err != nil {
		t.Fatalf("mount: %v\n%s", err, out)
	}
	t.Cleanup(func() { must(t, unix.Unmount(point, unix.MNT_DETACH)) })
}

// bothWalks runs f with openat2 and without.
func bothWalks(t *testing.T, f func(t *testing.T)) {
	t.Run("openat2", f)
	t.Run("openSteps", func(t *testing.T) {
		noOpenat2.Store(true)
		defer noOpenat2.Store(false)
		f(t)
	})
}

// isWhiteoutDevice reports whether st is that of a character device 0/0.
func isWhiteoutDevice(st *Stat) bool { return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0 }
