package engines

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// ociArchive writes an image as a tar file in the OCI layout. The arguments are those of ociLayout.
func ociArchive(t *testing.T, path, name string, command []string, layers ...string) {
	t.Helper()
	dir := path + ".oci"
	ociLayout(t, dir, name, command, layers...)
	harness.Shell(t, dir, "tar -cf "+path+" oci-layout index.json blobs")
	harness.Check(t, os.RemoveAll(dir))
}

// ociLayout writes an image as a folder in the OCI layout, with the command of its containers, and
// returns the digest of its manifest. Each folder is one layer, the lowest first. In it a file
// .wh.NAME removes NAME, and .wh..wh..opq hides the objects of lower layers in its directory.
func ociLayout(t *testing.T, dir, name string, command []string, layers ...string) string {
	t.Helper()
	blobs := filepath.Join(dir, "blobs", "sha256")
	harness.Mkdir(t, blobs)
	digest := func(text []byte) string { return fmt.Sprintf("%x", sha256.Sum256(text)) }
	type object = map[string]any
	store := func(kind string, v any) object {
		text, err := json.Marshal(v)
		harness.Check(t, err)
		harness.Check(t, os.WriteFile(filepath.Join(blobs, digest(text)), text, 0o644))
		return object{"mediaType": kind, "digest": "sha256:" + digest(text), "size": len(text)}
	}
	var stored []object
	var ids []string
	for _, layer := range layers {
		tar := filepath.Join(dir, "layer")
		harness.Shell(t, layer, "tar --xattrs --xattrs-include='*' --numeric-owner --sort=name -cf "+tar+" .")
		text, err := os.ReadFile(tar)
		harness.Check(t, err)
		harness.Check(t, os.Rename(tar, filepath.Join(blobs, digest(text))))
		ids = append(ids, "sha256:"+digest(text))
		stored = append(stored, object{"mediaType": "application/vnd.oci.image.layer.v1.tar",
			"digest": "sha256:" + digest(text), "size": len(text)})
	}
	config := store("application/vnd.oci.image.config.v1+json", object{"architecture": runtime.GOARCH, "os": "linux",
		"config": object{"Env": []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}, "Cmd": command},
		"rootfs": object{"type": "layers", "diff_ids": ids}})
	manifest := store("application/vnd.oci.image.manifest.v1+json", object{"schemaVersion": 2,
		"mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": stored})
	manifest["annotations"] = object{"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name}
	manifest["platform"] = object{"architecture": runtime.GOARCH, "os": "linux"}
	index, err := json.Marshal(object{"schemaVersion": 2, "manifests": []object{manifest}})
	harness.Check(t, err)
	harness.Write(t, filepath.Join(dir, "index.json"), string(index))
	harness.Write(t, filepath.Join(dir, "oci-layout"), `{"imageLayoutVersion":"1.0.0"}`)
	return manifest["digest"].(string)
}

// imageLayers are the layers of the test image above that with busybox. Each has whiteouts or
// opaque directories.
var imageLayers = []string{`
	file etc/conf "first\n"
	file etc/list "list\n"
	file etc/passwd "root:x:0:0::/:/bin/sh\n"
	dir proc
	dir sys
	dir dev
	dir tmp 1777
	dir run
	file data/gone/a "a"
	file data/gone/deep/b "b"
	file data/removed "x"
	file data/hidden/a "a"
	file data/hidden/b "b"
	file data/tree/sub/f "f"
	file data/tree/sub/g 0600 "g"
	file data/kind/f "was below a directory"
	file data/linked "linked\n"
	link data/linked1 data/linked
	file data/owned/deep/f "f"
	own data/owned/deep/f 3 4
	file data/private/f 0644 "f"
	file data/suid 4755 "#!/bin/sh\n"
	fifo data/pipe 0644
	char data/null 1/3 0666
	block data/disk 7/200 0660
	symlink data/link /etc/conf
	xattr data/linked user.note "a note"
	file data/again "first"`, `
	file data/.wh.removed ""
	file data/.wh.again ""
	file data/hidden/.wh..wh..opq ""
	file data/hidden/c "c"
	file data/.wh.kind ""
	file etc/conf "second\n"
	xattr data/hidden user.layer "2"`, `
	file data/again "third"
	file data/kind "is a file now"
	dir data/gone 0700
	file data/tree/sub/h "h"`}

// imageDirs builds the layers as folders, that with busybox first.
func imageDirs(t *testing.T, e *harness.Env) []string {
	t.Helper()
	var dirs []string
	for i, table := range append([]string{""}, imageLayers...) {
		dir := filepath.Join(e.Dir, fmt.Sprintf("layer%d", i))
		harness.Mkdir(t, dir)
		if i == 0 {
			installBusybox(t, dir)
		}
		harness.Build(t, e, dir, table)
		dirs = append(dirs, dir)
	}
	return dirs
}

// imageTree is the merged tree of the layers, without busybox and the folders on which runtimes
// mount.
const imageTree = `
	file etc/conf "second\n"
	file etc/list "list\n"
	file etc/passwd "root:x:0:0::/:/bin/sh\n"
	dir tmp
	dir data/gone
	file data/gone/a "a"
	file data/gone/deep/b "b"
	file data/hidden/c "c"
	file data/tree/sub/f "f"
	file data/tree/sub/g "g"
	file data/tree/sub/h "h"
	file data/kind "is a file now"
	file data/linked "linked\n"
	file data/linked1 "linked\n"
	file data/owned/deep/f "f"
	file data/private/f "f"
	file data/suid "#!/bin/sh\n"
	fifo data/pipe
	char data/null 1/3
	block data/disk 7/200
	symlink data/link /etc/conf
	file data/again "third"`

// imageChanges is a script for a container of the image.
const imageChanges = `
	echo more >>/etc/conf; echo n >/etc/list.new; mv /etc/list.new /etc/list; rm /etc/list
	rm -r /data/hidden; mkdir /data/hidden; echo new >/data/hidden/new; rm -r /data/gone
	mv /data/tree /data/moved; echo h2 >/data/moved/sub/h; cp -a /etc /etc.bak
	ln /data/linked /data/linked2; echo 2 >>/data/linked2; chown -R 7:8 /data/owned; chmod -R go-rwx /data/private
	chmod 640 /data/pipe; chown 5:6 /data/null /data/disk; ln -sf /etc/none /data/link; rm /data/again /bin/vi
	rm /data/kind; mkdir /data/kind; echo f >/data/kind/f; mkfifo /data/new-pipe; echo x >>/data/suid
	dd if=/bin/busybox of=/data/copy bs=64k 2>/dev/null; cmp /bin/busybox /data/copy; touch -d @5 /data/removed`

// withoutDevices leaves the devices out of imageTree or imageChanges. The user namespace of a plain
// user cannot make them, and clients unpack an image there without them.
func withoutDevices(text string) string {
	return strings.NewReplacer("\n\tchar data/null 1/3", "", "\n\tblock data/disk 7/200", "",
		"chown 5:6 /data/null /data/disk; ", "").Replace(text)
}
