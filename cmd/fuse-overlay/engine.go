package main

import "path/filepath"

// The folders of a layer in the storage of an engine.
const (
	engineMerged = "merged"
	engineDiff   = "diff"
)

// isReadByEngine reports whether a container engine mounts a layer with those below it to read
// them: without an upper, the layer's folder DIR/diff above all others, at DIR/merged. So do driver
// overlay of containers/storage (podman, buildah, CRI-O; Driver.get in drivers/overlay/overlay.go)
// and driver fuse-overlayfs of docker (Driver.Get in its fuseoverlayfs.go). They pass no option by
// which such a mount can be recognised.
//
// Both accept EOPNOTSUPP for xattrs: walkchunk of pkg/archive/changes_linux.go, in both. containerd
// and BuildKit do not (compareCapabilities of fs/diff_unix.go of containerd/continuity before 0.5),
// and their mounts have other paths.
func (r *request) isReadByEngine() bool {
	point := r.mount.Point
	return r.overlay.Upper == "" && filepath.Base(point) == engineMerged &&
		filepath.Clean(r.overlay.Lowers[0]) == filepath.Join(filepath.Dir(point), engineDiff)
}
