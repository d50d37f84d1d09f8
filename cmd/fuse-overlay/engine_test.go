package main

import (
	"strings"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/internal/mountargs"
)

// The mounts by which podman, buildah and docker read layers are recognised, and those of other
// callers are not (docs/CONTAINERS.md has the lines).
func TestMountsThatEnginesRead(t *testing.T) {
	for line, read := range map[string]bool{
		"fuse-overlay -o lowerdir=/s/overlay/ID/diff:/s/overlay/l/AAA:/s/overlay/l/BBB /s/overlay/ID/merged":                              true,
		"fuse-overlay -o lowerdir=/s/overlay/ID/diff:/s/overlay/ID/empty /s/overlay/ID/merged":                                            true,
		"fuse-overlay -o lowerdir=/s/overlay/ID/diff:/s/overlay/l/AAA,xattr_permissions=2 /s/overlay/ID/merged":                           true,
		"fuse-overlayfs -o lowerdir=/d/fuse-overlayfs/ID/diff:/d/fuse-overlayfs/l/AAA /d/fuse-overlayfs/ID/merged":                        true,
		"fuse-overlay -o lowerdir=/s/overlay/l/AAA,upperdir=/s/overlay/ID/diff,workdir=/s/overlay/ID/work,,volatile /s/overlay/ID/merged": false,
		"fuse-overlay -o lowerdir=/s/overlay/l/AAA:/s/overlay/ID/diff /s/overlay/ID/merged":                                               false,
		"fuse-overlay -o lowerdir=/s/overlay/ID/diff,private /c/overlay/N/merge":                                                          false,
		"fuse-overlay -o lowerdir=/s/overlay/ID/merged:/c/overlay/N/lower,private /c/overlay/N/merge":                                     false,
		"fuse-overlayfs overlay /tmp/containerd-mount1 -o lowerdir=/v/snapshots/2/fs:/v/snapshots/1/fs,ro,dev,suid":                       false,
		"fuse-overlay -o lowerdir=/other/diff:/s /s/overlay/ID/merged":                                                                    false,
		"fuse-overlay -o lowerdir=diff M": false,
	} {
		argv := strings.Fields(line)
		r, err := parseRequest(mountargs.CalledBy(argv), argv)
		if err != nil {
			t.Errorf("%s: %v", line, err)
		} else if r.overlay.ReadByEngine != read {
			t.Errorf("%s: read by an engine: %v", line, r.overlay.ReadByEngine)
		}
	}
}
