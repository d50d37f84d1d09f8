package main

import (
	"strings"
	"testing"
)

// Each option with and without a value, as fuse-overlayfs 1.10 takes it. A value that has a meaning
// there has the same one here. Other values are ignored with a warning. Only values that
// fuse-overlayfs refuses are refused.
func TestCallersOfTheOlderProgramGiveValues(t *testing.T) {
	const ignored = "ignored"
	for _, tt := range []struct{ option, want string }{ // what describe returns, ignored, or how the error begins
		{"sync=0", ignored}, {"sync=1", ignored}, {"dev=0", ignored}, {"nodev=1", ignored}, {"suid=1", ignored}, {"nosuid=0", ignored},
		{"exec=0", ignored}, {"noexec=1", ignored}, {"ro=0", ignored}, {"rw=1", ignored}, {"noatime=1", ignored}, {"atime=0", ignored},
		{"relatime=1", ignored}, {"dirsync=1", ignored}, {"dev=", ignored},
		{"noacl=0", ignored}, {"noacl=1", ignored}, {"noacl=", ignored}, {"volatile=0", ignored}, {"volatile=1", ignored},
		{"static_nlink=0", ignored}, {"static_nlink=1", ignored}, {"squash_to_root=1", ignored}, {"userxattr=1", ignored},
		{"default_permissions=0", ignored}, {"allow_other=0", ignored}, {"allow_root=1", ignored}, {"private=1", ignored},
		{"nofail=1", ignored}, {"_netdev=1", ignored}, {"users=1", ignored}, {"xattr_whiteouts=1", ignored},
		{"fsync", ignored}, {"writeback", ignored}, {"threaded", ignored}, {"fast_ino", ignored}, {"noxattrs", ignored},
		{"timeout", ignored}, {"timeout=", ignored}, {"timeout=x", ignored}, {"timeout=-1", ignored}, {"context", ignored},
		{"context=", ignored}, {"xattr_permissions", ignored}, {"squash_to_uid", ignored}, {"squash_to_uid=-1", ignored},
		{"squash_to_gid=4294967295", ignored}, {"uidmapping", ignored}, {"uidmapping=", ignored}, {"gidmapping=", ignored},
		{"redirect_dir", ignored}, {"lowerdir", ignored}, {"upperdir", ignored}, {"workdir", ignored}, {"plugins=", ignored},
		{"max_write=5", ignored}, {"max_write=x", ignored}, {"max_write", ignored}, {"metacopy", ignored}, {"metacopy=1", ignored},
		{"index=1", ignored}, {"xino=1", ignored}, {"uuid=x", ignored}, {"verity=1", ignored}, {"nfs_export=on", ignored}, {"io=x", ignored},
		{"cache_inodes=x", ignored}, {"cpu_idle=x", ignored}, {"disable=x", ignored}, {"fsname", ignored}, {"fsname=", ignored},
		{"subtype=", ignored}, {"ino32_t=x", ignored}, {"lowerdir+=k", ignored}, {"datadir+=k", ignored}, {"mountopt=nodev", ignored},

		{"sync", "sync"}, {"volatile", "volatile"}, {"noacl", "noacl"}, {"static_nlink", "static_nlink"}, {"noxattrs=1", "noxattrs"},
		{"noxattrs=0", ""}, {"noxattrs=2", "noxattrs"}, {"fsync=0", "nofsync"}, {"fsync=1", ""}, {"fsync=1x", ""}, {"fsync=-1", ""},
		{"writeback=2", "writeback"}, {"writeback=1", "writeback"}, {"threaded=8", ""}, {"fast_ino=1", ""},
		{"timeout=5", "timeout 5s"}, {"max_write=131072", "max_write 131072"}, {"xattr_permissions=0", ""}, {"redirect_dir=off", ""},
		{"uidmapping=:0:1:1", ""}, {"squash_to_uid=0", ""}, {"user=joe", ""},

		{"fsync=yes", "error: option fsync"}, {"fsync=", "error: option fsync"}, {"writeback=yes", "error: option writeback"},
		{"noxattrs=x", "error: option noxattrs"}, {"xattr_permissions=3", "error: option xattr_permissions"},
		{"xattr_permissions=x", "error: option xattr_permissions"}, {"squash_to_uid=root", "error: option squash_to_uid"},
		{"squash_to_uid=", "error: option squash_to_uid"}, {"redirect_dir=bogus", "error: option redirect_dir"},
		{"uidmapping=0:1", "error: option uidmapping"}, {"lowerdir=", "error: option lowerdir"}, {"upperdir=", "error: option upperdir"},
		{"workdir=", "error: option workdir"},
	} {
		r, err := parsed("fuse-overlayfs -o lowerdir=l,upperdir=u,workdir=w," + tt.option + " M")
		if err != nil {
			if text, ok := strings.CutPrefix(tt.want, "error: "); !ok || !strings.HasPrefix(err.Error(), text) {
				t.Errorf("%s: got error %v, want %q", tt.option, err, tt.want)
			}
			continue
		}
		want := "l upper u work w"
		if tt.want != ignored && tt.want != "" {
			want += " " + tt.want
		}
		want += " fuse-overlayfs(fuse-overlayfs) on M"
		if tt.want == ignored {
			want += " ignored " + tt.option
		}
		if got := describe(r); got != want {
			t.Errorf("%s:\n got %s\nwant %s", tt.option, got, want)
		}
	}
}
