package engines

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// The base images of the containers' tests, imported once into each engine.

const (
	imageBusybox = "localhost/busybox"
	imageNoFifo  = "localhost/busybox-without-fifo" // podman cannot import one where it keeps modes in attributes
	imageDebian  = "localhost/debian"
)

// need imports an image, unless the engine has it.
func (e *engine) need(t *testing.T, image string) {
	t.Helper()
	engines.mu.Lock()
	defer engines.mu.Unlock()
	if e.images[image] {
		return
	}
	var archive string
	switch image {
	case imageDebian:
		archive = debianArchive(t)
	case imageBusybox:
		archive = busyboxArchive(t, tar.Header{Typeflag: tar.TypeFifo, Name: "data/fifo", Mode: 0o644})
	default:
		archive = busyboxArchive(t)
	}
	e.podman(t, "import", "--quiet", archive, image)
	e.images[image] = true
}

// debianArchive is the root file system of harness.DebianRoot. It has no files of apt, no devices,
// which only the real root may make, and neither manual pages nor time zones, which are half of all
// files: each step of a build walks all of them.
func debianArchive(t *testing.T) string {
	t.Helper()
	archive := filepath.Join(harness.RunDir, "debian.tar")
	if _, err := os.Stat(archive); err != nil {
		harness.Shell(t, "", "tar -C "+harness.DebianRoot(t)+" --numeric-owner --exclude='./var/cache/apt/*' --exclude='./var/lib/apt/lists/*'"+
			" --exclude='./dev/*' --exclude='./usr/share/man/*' --exclude='./usr/share/zoneinfo/*' --exclude='./usr/share/locale/*/*' -cf "+archive+".part .; mv "+archive+".part "+archive)
	}
	return archive
}

// busyboxTree is a small root file system: the files that tests change, besides busybox and its
// names.
var busyboxTree = []struct{ name, text string }{
	{"etc/passwd", "root:x:0:0::/root:/bin/sh\nu:x:1000:1000::/:/bin/sh\n"}, {"etc/group", "root:x:0:\nu:x:1000:\n"},
	{"etc/hosts", ""}, {"etc/hostname", "h\n"}, {"etc/resolv.conf", ""},
	{"data/removed", "removed\n"}, {"data/renamed", "renamed\n"}, {"data/changed", "changed\n"}, {"data/kept", "kept\n"},
	{"data/appended", "appended\n"}, {"data/dir/in", "in\n"}, {"data/dir/sub/deep", "deep\n"}, {"data/tree/a", "a\n"},
	{"data/tree/b", "b\n"}, {"data/owned", "owned\n"},
}

// busyboxArchive is the archive of busyboxTree, with further objects.
func busyboxArchive(t *testing.T, further ...tar.Header) string {
	t.Helper()
	program, err := os.ReadFile(harness.Busybox(t))
	harness.Check(t, err)
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	add := func(h tar.Header, content []byte) {
		h.Size, h.ModTime, h.Format = int64(len(content)), time.Unix(1_000_000_000, 0), tar.FormatPAX
		harness.Check(t, w.WriteHeader(&h))
		_, err := w.Write(content)
		harness.Check(t, err)
	}
	for _, dir := range []string{"bin", "data", "data/dir", "data/dir/sub", "data/tree", "dev", "etc", "proc", "root",
		"sys"} {
		add(tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755}, nil)
	}
	add(tar.Header{Typeflag: tar.TypeDir, Name: "tmp/", Mode: 0o1777}, nil)
	add(tar.Header{Typeflag: tar.TypeReg, Name: "bin/busybox", Mode: 0o755}, program)
	for _, applet := range strings.Fields(harness.Shell(t, "", "busybox --list")) {
		if applet != "busybox" {
			add(tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + applet, Linkname: "busybox", Mode: 0o777}, nil)
		}
	}
	for _, f := range busyboxTree {
		h := tar.Header{Typeflag: tar.TypeReg, Name: f.name, Mode: 0o644}
		if f.name == "data/owned" {
			h.Uid, h.Gid = 1000, 1000
		}
		add(h, []byte(f.text))
	}
	// podman makes this link in images without it.
	add(tar.Header{Typeflag: tar.TypeSymlink, Name: "etc/mtab", Linkname: "/proc/mounts", Mode: 0o777}, nil)
	for _, h := range further {
		add(h, nil)
	}
	harness.Check(t, w.Close())
	path := filepath.Join(harness.RunDir, "busybox.tar")
	harness.Check(t, os.WriteFile(path, archive.Bytes(), 0o644))
	return path
}
