package testkit

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// imageSize is enough for a file system of any kind: xfs wants 300 MiB. It is a hole.
const imageSize = 400 << 20

// MakeImage formats an image file by a program and its arguments. It adds -q and the path of the
// image to them.
func MakeImage(t *testing.T, mkfs string, args ...string) string {
	t.Helper()
	image := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, imageSize); err != nil {
		t.Fatal(err)
	}
	Run(t, mkfs, append(append([]string{"-q"}, args...), image)...)
	return image
}

// MountImage mounts a fresh file system, made by mkfs.FSTYPE with these arguments, on a loop
// device, until the test ends.
func MountImage(t *testing.T, fstype, options string, args ...string) string {
	t.Helper()
	return Mount(t, fstype, MakeImage(t, "mkfs."+fstype, args...), options)
}

// Mount mounts by mount(8) in a folder of its own, until the test ends.
func Mount(t *testing.T, fstype, source, options string) string {
	t.Helper()
	point := t.TempDir()
	MountAt(t, fstype, source, point, options)
	return point
}

// MountAt mounts as Mount does, at point, which it makes.
func MountAt(t *testing.T, fstype, source, point, options string) {
	t.Helper()
	if err := os.MkdirAll(point, 0o755); err != nil {
		t.Fatal(err)
	}
	args := []string{"-t", fstype, source, point}
	if options != "" {
		args = append(args, "-o", options)
	}
	Run(t, "mount", args...)
	t.Cleanup(func() {
		if err := unix.Unmount(point, unix.MNT_DETACH); err != nil {
			t.Errorf("unmounting %s: %v", point, err)
		}
	})
}

// WaitReleased waits until no loop device has image as its backing file, and reports whether that
// came within the limit. A file system outlives umount(2) while a clone of its mount exists. The
// kernel removes the clones of a killed process some time after its end, and those in another mount
// namespace with that. Until then mount(8) finds the loop device of the image in use, and mounts
// the old superblock again with all its state, for example shut down.
func WaitReleased(image string, limit time.Duration) bool {
	for deadline := time.Now().Add(limit); loopDevice(image) != ""; time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

// loopDevice returns the loop device of an image. Empty: there is none.
func loopDevice(image string) string {
	names, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err == nil && strings.TrimSuffix(strings.TrimSpace(string(text)), " (deleted)") == image {
			return filepath.Dir(filepath.Dir(name))
		}
	}
	return ""
}
