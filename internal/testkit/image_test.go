package testkit

import (
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A clone of a mount keeps the file system after umount(2). WaitReleased waits for its end, so a
// later mount is a new one.
func TestWaitReleasedWaitsForClones(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	image, point := MakeImage(t, "mkfs.ext4"), t.TempDir()
	Run(t, "mount", "-o", "loop", image, point)
	clone, err := unix.OpenTree(unix.AT_FDCWD, point, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Unmount(point, 0); err != nil {
		t.Fatal(err)
	}
	if loopDevice(image) == "" {
		t.Fatal("the clone does not keep the device: nothing is tested")
	}
	const life = 200 * time.Millisecond
	begin := time.Now()
	time.AfterFunc(life, func() { unix.Close(clone) })
	if WaitReleased(image, life/4) {
		t.Error("released while a clone exists")
	}
	released := WaitReleased(image, 20*time.Second)
	if waited := time.Since(begin); waited < life || !released || loopDevice(image) != "" {
		t.Errorf("returned after %v with device %q", waited, loopDevice(image))
	}
}
