package main

import (
	"reflect"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/internal/host"
	"github.com/fuse-overlay/fuse-overlay/internal/owner"
)

func TestIDOptions(t *testing.T) {
	overflowUID, overflowGID := host.OverflowIDs()
	type ids = owner.IDs
	for _, tt := range []struct {
		options string
		want    *ids
	}{
		{"", nil},
		{"uidmapping=:0:200000:65536,gidmapping=0:300000:65536", &ids{
			UIDs: owner.Mapping{{Disk: 0, Shown: 200000, Length: 65536}}, GIDs: owner.Mapping{{Disk: 0, Shown: 300000, Length: 65536}}}},
		// podman run --userns=keep-id
		{"uidmapping=:0:1:1001:1001:0:1:1002:1002:64535", &ids{UIDs: owner.Mapping{
			{Disk: 0, Shown: 1, Length: 1001}, {Disk: 1001, Shown: 0, Length: 1}, {Disk: 1002, Shown: 1002, Length: 64535}}}},
		{"squash_to_root", &ids{UID: owner.Squash{On: true}, GID: owner.Squash{On: true}}},
		{"squash_to_uid=7,squash_to_gid=8", &ids{UID: owner.Squash{On: true, ID: 7}, GID: owner.Squash{On: true, ID: 8}}},
		{"squash_to_gid=8", &ids{GID: owner.Squash{On: true, ID: 8}}},
	} {
		r, err := parsed("fuse-overlayfs -o lowerdir=l," + tt.options + " M")
		if err != nil {
			t.Errorf("%s: %v", tt.options, err)
			continue
		}
		if tt.want != nil {
			tt.want.OverflowUID, tt.want.OverflowGID = overflowUID, overflowGID
		}
		if !reflect.DeepEqual(r.overlay.IDs, tt.want) {
			t.Errorf("%s: %+v, want %+v", tt.options, r.overlay.IDs, tt.want)
		}
	}
}

func TestPermissionOptions(t *testing.T) {
	for option, attr := range map[string]string{
		"0": "", "1": "security.fuseoverlayfs.override_stat", "2": "user.containers.override_stat",
	} {
		r, err := parsed("fuse-overlayfs -o lowerdir=l,xattr_permissions=" + option + " M")
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if r.overlay.Permissions != nil {
			got = r.overlay.Permissions.Attr()
		}
		if got != attr {
			t.Errorf("xattr_permissions=%s: attribute %q, want %q", option, got, attr)
		}
	}
}
