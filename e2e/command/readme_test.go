package command

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// The tests of this file use the blocks of README.md that need a preparation. Package documents
// runs the others.

// document is a copy of a document in RunDir, which every user can read.
func document(name string) string { return filepath.Join(harness.RunDir, "documents", name) }

// prepareDocuments makes the copies.
func prepareDocuments() error {
	if err := os.Mkdir(filepath.Join(harness.RunDir, "documents"), 0o755); err != nil {
		return err
	}
	for _, path := range []string{"../../README.md", examples + "/storage.conf", examples + "/storage-rootless.conf"} {
		if err := harness.CopyFile(path, document(filepath.Base(path))); err != nil {
			return err
		}
	}
	return nil
}

// blockWith is the block of a document that holds a word.
func blockWith(t *testing.T, path, kind, word string) string {
	t.Helper()
	for _, b := range harness.Blocks(t, path) {
		if b.Kind == kind && strings.Contains(b.Text, word) {
			return b.Text
		}
	}
	t.Fatalf("%s has no block of kind %q with %q", path, kind, word)
	return ""
}

// The shell that the block about user namespaces starts is in the merged tree. It can change the
// tree, and its changes are in the upper.
func TestReadmeUserNamespace(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, []harness.Mode{harness.ModeRoot, harness.ModeFusermount}, func(t *testing.T, e *harness.Env) {
		harness.Mkdir(t, e.Dir+"/rootfs/bin", e.Dir+"/upper", e.Dir+"/work", e.Dir+"/merged")
		harness.Check(t, harness.CopyFile("/bin/busybox", e.Dir+"/rootfs/bin/sh"))
		line := strings.TrimSpace(blockWith(t, document("README.md"), "sh", "unshare"))
		typed := fmt.Sprintf("echo 'echo x >>/new; echo /*' | %s", line)
		for range 2 { // the first mount ends with its namespace, and gives way to the second
			out, err := harness.RunIn(e.Dir, []string{"PATH=" + filepath.Dir(harness.Program) +
				":/usr/local/bin:/usr/bin:/bin"}, harness.CommandLimit, "sh", "-ec", typed)
			if err != nil || out != "/bin /new\n" {
				t.Errorf("%v: %q", err, out)
			}
		}
		harness.WantText(t, e.Dir+"/upper/new", "x\nx\n")
		harness.WantAbsent(t, e.Dir+"/rootfs/new")
		for _, pid := range harness.ProcessesOf(harness.Program) {
			if !harness.WaitGone(pid, 10*time.Second) {
				t.Errorf("the daemon %d outlives its namespace", pid)
				harness.Kill(pid, syscall.SIGKILL)
			}
		}
	})
}

// mount(8) accepts the line of fstab.
func TestReadmeFstab(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		harness.Mkdir(t, e.Dir+"/srv")
		harness.Shell(t, e.Dir+"/srv", "mkdir base upper merged; echo -n x >base/f")
		harness.Write(t, e.Dir+"/fstab", blockWith(t, document("README.md"), "", "/srv/merged"))
		out, err := privately(t, e, mountFunctions+`
			mount --bind $DIR/srv /srv
			mount --fstab $DIR/fstab --fake -a; expect /srv/merged ""
			mount --fstab $DIR/fstab -a; expect /srv/merged "fuse.fuse-overlay rw,*"; cat /srv/merged/f; umount /srv/merged`)
		if err != nil || out != "x" {
			t.Errorf("%v: %q", err, out)
		}
	})
}

// podman of root uses the storage.conf of README and of the example, and podman of a plain user
// that of the other example.
func TestStorageConfigurations(t *testing.T) {
	harness.NeedDaemon(t)
	const info = "podman info --format '{{.Store.GraphDriverName}} {{.Store.GraphRoot}} {{range $k, $v := .Store.GraphOptions}}{{$k}} {{end}}'"
	harness.EachMode(t, harness.PrivateModes, func(t *testing.T, e *harness.Env) {
		bin := e.Dir + "/bin"
		harness.Mkdir(t, bin, "/var/lib/containers", "/etc/containers")
		harness.Check(t, os.Symlink(harness.Program, bin+"/fuse-overlay"))
		harness.Check(t, syscall.Mount(bin, "/usr/local/bin", "", syscall.MS_BIND, ""))
		harness.Check(t, syscall.Mount("tmpfs", "/var/lib/containers", "tmpfs", 0, ""))
		for name, text := range map[string]string{
			"README":       blockWith(t, document("README.md"), "toml", "mount_program"),
			"storage.conf": harness.ReadText(t, document("storage.conf")),
		} {
			harness.Write(t, "/etc/containers/storage.conf", text)
			out, err := harness.RunIn("/", nil, time.Minute, "sh", "-c", info)
			if err != nil || !strings.Contains(out, "overlay /var/lib/containers/storage overlay.mount_program ") {
				t.Errorf("%s: %v: %s", name, err, out)
			}
		}
		home := e.Dir + "/home"
		harness.Mkdir(t, home+"/.config/containers", home+"/run")
		harness.Write(t, home+"/.config/containers/storage.conf", harness.ReadText(t, document("storage-rootless.conf")))
		harness.Check(t, os.Remove("/etc/containers/storage.conf"))
		harness.Shell(t, "/", "chown -R "+harness.PlainUser.Name+" "+home+"; chmod 700 "+home+"/run")
		out, err := harness.RunIn("/", []string{"HOME=" + home, "XDG_RUNTIME_DIR=" + home + "/run"}, time.Minute, "setpriv",
			"--reuid", harness.PlainUser.Name,
			"--regid", harness.PlainUser.Name, "--init-groups", "sh", "-c", info)
		if err != nil || !strings.Contains(out, "overlay "+home+"/.local/share/containers/storage overlay.mount_program ") {
			t.Errorf("storage-rootless.conf: %v: %s", err, out)
		}
	})
}

// Each make target that the documents name exists, and make help lists it.
func TestDocumentedTargets(t *testing.T) {
	help, err := harness.RunIn("../..", nil, harness.CommandLimit, "make", "--no-print-directory", "help")
	harness.Check(t, err)
	var listed []string
	for line := range strings.Lines(help) {
		listed = append(listed, strings.Fields(line)[0])
	}
	pages, err := harness.Documents("../..")
	harness.Check(t, err)
	for _, page := range pages {
		found := regexp.MustCompile("`make ([a-z0-9-]+)").FindAllStringSubmatch(harness.ReadText(t, page), -1)
		for _, b := range harness.Blocks(t, page) {
			found = append(found, regexp.MustCompile(`(?m)^(?:sudo )?make ([a-z0-9-]+)`).FindAllStringSubmatch(b.Text, -1)...)
		}
		for _, m := range found {
			if !slices.Contains(listed, m[1]) && m[1] != "vet" {
				t.Errorf("%s: make %s is not in make help", page, m[1])
			}
		}
	}
}

// make install installs the built program without Go.
func TestInstallNeedsNoGo(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		harness.Mkdir(t, e.Dir+"/tree/bin", e.Dir+"/tree/docs")
		for from, to := range map[string]string{"../../Makefile": "Makefile",
			"../../docs/fuse-overlay.1": "docs/fuse-overlay.1", harness.Program: "bin/fuse-overlay",
			harness.Program + "-commands": "bin/fuse-overlay-commands"} {
			harness.Check(t, harness.CopyFile(from, e.Dir+"/tree/"+to))
		}
		out, err := harness.RunIn(e.Dir+"/tree", []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}, harness.CommandLimit,
			"make", "install", "GO=/none", "DESTDIR="+e.Dir+"/root")
		if err != nil {
			t.Errorf("%v: %s", err, out)
		}
		if _, err := os.Stat(e.Dir + "/root/usr/local/bin/fuse-overlay"); err != nil {
			t.Error(err)
		}
	})
}
