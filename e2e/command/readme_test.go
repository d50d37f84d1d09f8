package e2e

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
)

// The blocks of README.md and docs/CONTAINERS.md are typed here as they stand there.

// document is a copy of a document that every user can read, in the folder of the run.
func document(name string) string { return filepath.Join(base, "documents", name) }

// prepareDocuments makes the copies.
func prepareDocuments() error {
	if err := os.Mkdir(filepath.Join(base, "documents"), 0o755); err != nil {
		return err
	}
	for _, path := range []string{"../README.md", examples + "/storage.conf", examples + "/storage-rootless.conf"} {
		if err := copyFile(path, document(filepath.Base(path))); err != nil {
			return err
		}
	}
	return nil
}

// block is a fenced block of a document.
type block struct{ kind, text string }

// blocks are the fenced blocks of a document, in order.
func blocks(t *testing.T, path string) (list []block) {
	t.Helper()
	for _, m := range regexp.MustCompile("(?ms)^```([a-z]*)\n(.*?)^```$").FindAllStringSubmatch(readText(t, path), -1) {
		list = append(list, block{m[1], m[2]})
	}
	return list
}

// blockWith is the block of a document that holds a word.
func blockWith(t *testing.T, path, kind, word string) string {
	t.Helper()
	for _, b := range blocks(t, path) {
		if b.kind == kind && strings.Contains(b.text, word) {
			return b.text
		}
	}
	t.Fatalf("%s has no block of kind %q with %q", path, kind, word)
	return ""
}

// promised returns what the lines of cat and tail in a block print, by the comments of the block.
func promised(text string) (words []string) {
	for line := range strings.Lines(text) {
		command, comment, found := strings.Cut(line, "# ")
		if found && regexp.MustCompile(`\b(cat|tail) `).MatchString(command) {
			words = append(words, strings.TrimSpace(comment))
		}
	}
	return words
}

// Each shell block of README runs as root, in a user namespace and as a plain user, with the PATH
// that each has. Its output is that of its comments.
func TestReadmeBlocks(t *testing.T) {
	needDaemon(t)
	eachMode(t, allModes, func(t *testing.T, e *env) {
		mkdir(t, e.dir+"/rootfs/bin")
		check(t, copyFile("/bin/busybox", e.dir+"/rootfs/bin/sh"))
		path := filepath.Dir(binPath) + ":/usr/local/bin:/usr/bin:/bin"
		if e.mode == modeRoot {
			path = "/usr/local/sbin:/usr/sbin:/sbin:" + path
		}
		ran := 0
		for _, b := range blocks(t, document("README.md")) {
			if b.kind != "sh" || strings.HasPrefix(b.text, "make ") {
				continue // TestDocumentedTargets
			}
			ran++
			out, err := runIn(e.dir, []string{"PATH=" + path}, commandLimit, "sh", "-ec", b.text)
			if err != nil {
				t.Errorf("%v\n%s\n%s", err, b.text, out)
				continue
			}
			want := strings.Join(promised(b.text), ", ")
			if got := strings.ReplaceAll(strings.TrimSpace(out), "\n", ", "); got != want {
				t.Errorf("printed %q, and its comments say %q:\n%s", got, want, b.text)
			}
		}
		if ran < 3 {
			t.Errorf("README has %d blocks to be typed", ran)
		}
		for _, m := range mountTable() {
			if strings.HasPrefix(m.point, e.dir+"/") {
				t.Errorf("%s is still mounted", m.point)
			}
		}
	})
}

// The shell that the block about user namespaces starts is in the merged tree, can change it, and keeps
// what it changed in the upper.
func TestReadmeUserNamespace(t *testing.T) {
	needDaemon(t)
	eachMode(t, []mode{modeRoot, modeFusermount}, func(t *testing.T, e *env) {
		mkdir(t, e.dir+"/rootfs/bin", e.dir+"/upper", e.dir+"/work", e.dir+"/merged")
		check(t, copyFile("/bin/busybox", e.dir+"/rootfs/bin/sh"))
		line := strings.TrimSpace(blockWith(t, document("README.md"), "sh", "unshare"))
		typed := fmt.Sprintf("echo 'echo x >>/new; echo /*' | %s", line)
		for range 2 { // the first mount ends with its namespace, and gives way to the second
			out, err := runIn(e.dir, []string{"PATH=" + filepath.Dir(binPath) + ":/usr/local/bin:/usr/bin:/bin"}, commandLimit, "sh", "-ec", typed)
			if err != nil || out != "/bin /new\n" {
				t.Errorf("%v: %q", err, out)
			}
		}
		wantText(t, e.dir+"/upper/new", "x\nx\n")
		wantAbsent(t, e.dir+"/rootfs/new")
		for _, pid := range processesOf(binPath) {
			if !waitGone(pid, 10*time.Second) {
				t.Errorf("the daemon %d outlives its namespace", pid)
				kill(pid, syscall.SIGKILL)
			}
		}
	})
}

// The line of fstab is one that mount(8) takes.
func TestReadmeFstab(t *testing.T) {
	needDaemon(t)
	eachMode(t, onlyRoot, func(t *testing.T, e *env) {
		mkdir(t, e.dir+"/srv")
		sh(t, e.dir+"/srv", "mkdir base upper merged; echo -n x >base/f")
		write(t, e.dir+"/fstab", blockWith(t, document("README.md"), "", "/srv/merged"))
		out, err := privately(t, e, mountFunctions+`
			mount --bind $DIR/srv /srv
			mount --fstab $DIR/fstab --fake -a; expect /srv/merged ""
			mount --fstab $DIR/fstab -a; expect /srv/merged "fuse.fuse-overlay rw,*"; cat /srv/merged/f; umount /srv/merged`)
		if err != nil || out != "x" {
			t.Errorf("%v: %q", err, out)
		}
	})
}

// Podman of root takes README's and the example's storage.conf, and podman of a plain user that of the other example.
func TestStorageConfigurations(t *testing.T) {
	needDaemon(t)
	const info = "podman info --format '{{.Store.GraphDriverName}} {{.Store.GraphRoot}} {{range $k, $v := .Store.GraphOptions}}{{$k}} {{end}}'"
	eachMode(t, privateModes, func(t *testing.T, e *env) {
		bin := e.dir + "/bin"
		mkdir(t, bin, "/var/lib/containers", "/etc/containers")
		check(t, os.Symlink(binPath, bin+"/fuse-overlay"))
		check(t, syscall.Mount(bin, "/usr/local/bin", "", syscall.MS_BIND, ""))
		check(t, syscall.Mount("tmpfs", "/var/lib/containers", "tmpfs", 0, ""))
		for name, text := range map[string]string{
			"README":       blockWith(t, document("README.md"), "toml", "mount_program"),
			"storage.conf": readText(t, document("storage.conf")),
		} {
			write(t, "/etc/containers/storage.conf", text)
			out, err := runIn("/", nil, time.Minute, "sh", "-c", info)
			if err != nil || !strings.Contains(out, "overlay /var/lib/containers/storage overlay.mount_program ") {
				t.Errorf("%s: %v: %s", name, err, out)
			}
		}
		home := e.dir + "/home"
		mkdir(t, home+"/.config/containers", home+"/run")
		write(t, home+"/.config/containers/storage.conf", readText(t, document("storage-rootless.conf")))
		check(t, os.Remove("/etc/containers/storage.conf"))
		sh(t, "/", "chown -R "+plainUser.name+" "+home+"; chmod 700 "+home+"/run")
		out, err := runIn("/", []string{"HOME=" + home, "XDG_RUNTIME_DIR=" + home + "/run"}, time.Minute, "setpriv", "--reuid", plainUser.name,
			"--regid", plainUser.name, "--init-groups", "sh", "-c", info)
		if err != nil || !strings.Contains(out, "overlay "+home+"/.local/share/containers/storage overlay.mount_program ") {
			t.Errorf("storage-rootless.conf: %v: %s", err, out)
		}
	})
}

// Each make target that the documents name exists, and make help lists it.
func TestDocumentedTargets(t *testing.T) {
	help, err := runIn("..", nil, commandLimit, "make", "--no-print-directory", "help")
	check(t, err)
	var listed []string
	for line := range strings.Lines(help) {
		listed = append(listed, strings.Fields(line)[0])
	}
	for _, page := range []string{"../README.md", "../CONTRIBUTING.md", "../docs/CONTAINERS.md"} {
		found := regexp.MustCompile("`make ([a-z0-9-]+)").FindAllStringSubmatch(readText(t, page), -1)
		for _, b := range blocks(t, page) {
			found = append(found, regexp.MustCompile(`(?m)^make ([a-z0-9-]+)`).FindAllStringSubmatch(b.text, -1)...)
		}
		for _, m := range found {
			if !slices.Contains(listed, m[1]) && m[1] != "vet" {
				t.Errorf("%s: make %s is not in make help", page, m[1])
			}
		}
	}
}

// make install takes what was built, without Go.
func TestInstallNeedsNoGo(t *testing.T) {
	needDaemon(t)
	eachMode(t, onlyRoot, func(t *testing.T, e *env) {
		mkdir(t, e.dir+"/tree/bin", e.dir+"/tree/docs")
		for from, to := range map[string]string{"../Makefile": "Makefile", "../docs/fuse-overlay.1": "docs/fuse-overlay.1", binPath: "bin/fuse-overlay"} {
			check(t, copyFile(from, e.dir+"/tree/"+to))
		}
		out, err := runIn(e.dir+"/tree", []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}, commandLimit, "make", "install", "GO=/none", "DESTDIR="+e.dir+"/root")
		if err != nil {
			t.Errorf("%v: %s", err, out)
		}
		if _, err := os.Stat(e.dir + "/root/usr/local/bin/fuse-overlay"); err != nil {
			t.Error(err)
		}
	})
}
