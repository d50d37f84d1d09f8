package testkit

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// imageSize is enough for a file system of any kind: xfs wants 300 MiB. It is a hole.
const imageSize = 400 << 20

// MakeImage formats an image file by a program and its arguments, to which -q and the image are added.
func MakeImage(t *testing.T, mkfs string, args ...string) string {
	t.Helper()
	image := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, imageSize); err != nil {
		t.Fatal(err)
	}
	run(t, mkfs, append(append([]string{"-q"}, args...), image)...)
	return image
}

// MountImage mounts a fresh file system, made by mkfs.FSTYPE with these arguments, on a loop device, until the test ends.
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

// MountAt is Mount in a folder of the caller's, which is made.
func MountAt(t *testing.T, fstype, source, point, options string) {
	t.Helper()
	if err := os.MkdirAll(point, 0o755); err != nil {
		t.Fatal(err)
	}
	args := []string{"-t", fstype, source, point}
	if options != "" {
		args = append(args, "-o", options)
	}
	run(t, "mount", args...)
	t.Cleanup(func() {
		if err := unix.Unmount(point, unix.MNT_DETACH); err != nil {
			t.Errorf("unmounting %s: %v", point, err)
		}
	})
}

// WaitReleased waits until no loop device has image as its backing file, and reports whether that came within the limit. A file
// system lives on after umount(2) while a clone of its mount exists anywhere: the kernel drops the clones of a killed process
// some time after its end, and another mount namespace drops its own when it likes. Until then mount(8) finds the loop device
// of the image in use and mounts the old superblock again, with all its state: shut down, for example.
func WaitReleased(image string, limit time.Duration) bool {
	for deadline := time.Now().Add(limit); loopDevice(image) != ""; time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

// loopDevice is the loop device of an image, empty if there is none.
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

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}
