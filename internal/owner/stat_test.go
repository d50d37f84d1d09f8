package owner

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

func TestOverrideText(t *testing.T) {
	const onDisk = 33 // bytes of the file that holds the attribute
	for _, tt := range []struct {
		text  string
		inode uint32
		want  sys.Stat
	}{
		{"0:0:0755:dir", unix.S_IFDIR, sys.Stat{Mode: unix.S_IFDIR | 0o755, Size: onDisk}},
		{"5:6:04711:file", unix.S_IFREG, sys.Stat{Uid: 5, Gid: 6, Mode: unix.S_IFREG | 0o4711, Size: onDisk}},
		{"5:6:644", unix.S_IFREG, sys.Stat{Uid: 5, Gid: 6, Mode: unix.S_IFREG | 0o644, Size: onDisk}}, // fuse-overlayfs
		{"0:0:0100755", unix.S_IFREG, sys.Stat{Mode: unix.S_IFREG | 0o755, Size: onDisk}},             // libkrun
		{"0:0:0555", unix.S_IFDIR, sys.Stat{Mode: unix.S_IFDIR | 0o555, Size: onDisk}},
		{"1:2:0600:block-7-300", unix.S_IFREG, sys.Stat{Uid: 1, Gid: 2, Mode: unix.S_IFBLK | 0o600, Rdev: unix.Mkdev(7, 300)}},
		{"1:2:0666:char-1-3", unix.S_IFREG, sys.Stat{Uid: 1, Gid: 2, Mode: unix.S_IFCHR | 0o666, Rdev: unix.Mkdev(1, 3)}},
		{"1:2:0600:pipe", unix.S_IFREG, sys.Stat{Uid: 1, Gid: 2, Mode: unix.S_IFIFO | 0o600}},
		{"1:2:0600:socket", unix.S_IFREG, sys.Stat{Uid: 1, Gid: 2, Mode: unix.S_IFSOCK | 0o600}},
		// The type in the attribute of a directory or symbolic link is ignored.
		{"1:2:0600:char-1-3", unix.S_IFDIR, sys.Stat{Uid: 1, Gid: 2, Mode: unix.S_IFDIR | 0o600, Size: onDisk}},
		{"1:2:0777:symlink", unix.S_IFLNK, sys.Stat{Uid: 1, Gid: 2, Mode: unix.S_IFLNK | 0o777, Size: onDisk}},
	} {
		st := sys.Stat{Mode: tt.inode | 0o600, Size: onDisk, Uid: 99, Gid: 99}
		if err := parse([]byte(tt.text), &st); err != nil || st != tt.want {
			t.Errorf("%s: %+v, %v, want %+v", tt.text, st, err, tt.want)
		}
	}
}

func TestOverrideTextIsReadAsWritten(t *testing.T) {
	for _, want := range []sys.Stat{
		{Mode: unix.S_IFREG | 0o7777, Uid: 4294967294, Gid: 1},
		{Mode: unix.S_IFIFO | 0o1},
		{Mode: unix.S_IFSOCK | 0o700},
		{Mode: unix.S_IFCHR | 0o600, Rdev: unix.Mkdev(4095, 1048575)},
		{Mode: unix.S_IFBLK | 0o600, Rdev: unix.Mkdev(0, 1)},
	} {
		got := sys.Stat{Mode: unix.S_IFREG | 0o600}
		if err := parse(format(&want), &got); err != nil || got != want {
			t.Errorf("%s: %+v, %v, want %+v", format(&want), got, err, want)
		}
	}
}

func TestBadOverrideText(t *testing.T) {
	for _, text := range []string{
		"", ":", "::", "0:0", "0:0:", "a:0:644", "0:-1:644", "0:0:8", "4294967296:0:644", "0:0:644:file:x", "0:0:644:door",
		"0:0:644:char", "0:0:644:char-1", "0:0:644:char-1-x", "0:0:644:char-1-2-3", "0:0:644:file-1-2", "0:0:644:dir", "0:0:644:symlink",
	} {
		st := sys.Stat{Mode: unix.S_IFREG | 0o600}
		before := st
		if err := parse([]byte(text), &st); err != unix.EIO || st != before {
			t.Errorf("%q: %v, %+v", text, err, st)
		}
	}
}
