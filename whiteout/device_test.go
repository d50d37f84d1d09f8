package whiteout

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// The device is made once by many at once, and anew when it has gone.
func TestSharedWhiteoutOfMany(t *testing.T) {
	u := newUpper(t, "dir d")
	up, err := u.dir.OpenDir("d")
	must(t, err)
	defer up.Close()
	var all sync.WaitGroup
	for worker := range 8 {
		all.Go(func() {
			for i := range 50 {
				if err := u.makeDevice(up, fmt.Sprintf("%d-%d", worker, i)); err != nil {
					t.Error(err)
				}
				if shared := u.shared.Load(); i%20 == 19 && shared != nil {
					if err := u.work.dir.Unlink(*shared); err != nil && !errors.Is(err, unix.ENOENT) {
						t.Error(err)
					}
				}
			}
		})
	}
	all.Wait()
	dir := filepath.Join(u.path, "d")
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range entries {
		u.want("made", filepath.Join("d", e.Name()), 0, true)
	}
	if len(entries) != 400 {
		t.Errorf("%d whiteouts", len(entries))
	}
	must(t, os.RemoveAll(dir))
	if err := u.makeDevice(up, "x"); err != unix.ENOENT {
		t.Errorf("in a directory that is gone: %v", err)
	}
	u.Close()
	if left := list(t, u.work.dir); len(left) > 0 {
		t.Errorf("left in the work directory: %v", left)
	}
}

// A device that has all the links that it can have is followed by another. If there can be none,
// each whiteout is a device.
func TestDevicesWithoutLinks(t *testing.T) {
	for errno, want := range map[unix.Errno]bool{unix.EMLINK: false, unix.EXDEV: true, unix.EPERM: true} {
		u := newUpper(t, "")
		must(t, u.makeDevice(u.dir, "first"))
		first := *u.shared.Load()
		links := 0
		refusing(func(op sys.Op) bool {
			if op.Call == "linkat" {
				links++
			}
			return op.Call == "linkat" && links == 1
		}, errno, func() { must(t, u.makeDevice(u.dir, "second")) })
		u.want("made", "second", 0, true)
		if u.unshared.Load() != want || !want && *u.shared.Load() == first {
			t.Errorf("%v: unshared %v", errno, u.unshared.Load())
		}
	}
	u := newUpper(t, "dir elsewhere")
	elsewhere, err := u.dir.OpenDir("elsewhere")
	must(t, err)
	defer elsewhere.Close()
	u.ShareIn(elsewhere)
	must(t, u.makeDevice(u.dir, "x"))
	if names := list(t, elsewhere); len(names) != 1 {
		t.Errorf("the device lies in %v", names)
	}
	for _, call := range []string{"mknodat", "linkat"} {
		u.Close()
		refusing(func(op sys.Op) bool { return op.Call == call }, unix.ENOSPC, func() {
			if err := u.makeDevice(u.dir, "full"); err != unix.ENOSPC {
				t.Errorf("failing %s: %v", call, err)
			}
		})
	}
}
