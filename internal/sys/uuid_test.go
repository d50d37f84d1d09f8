package sys

import (
	"crypto/rand"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
)

// refuse makes calls fail whose names are in names.
func refuse(errno unix.Errno, names ...string) {
	SetFault(func(op Op) error {
		for _, name := range names {
			if op.Name == name {
				return errno
			}
		}
		return nil
	})
}

// Every source gives the same UUID: older kernels know only the later ones.
func TestFSUUID(t *testing.T) {
	const generic = "GETFSUUID"
	for _, c := range []struct {
		fstype string
		option string // of mkfs, for the UUID
		// sources are the calls that are tried. Each has to fail before the next is made.
		sources []string
	}{
		{"btrfs", "-U%s", []string{generic, "BTRFS_FS_INFO"}},
		{"xfs", "-muuid=%s", []string{generic, "XFS_FSGEOMETRY"}},
		{"ext4", "-U%s", []string{generic, "EXT4_GETFSUUID", byUUID, "superblock"}},
	} {
		var want UUID
		_, _ = rand.Read(want[:])
		text := fmt.Sprintf("%x-%x-%x-%x-%x", want[:4], want[4:6], want[6:8], want[8:10], want[10:])
		d := openPlain(t, testkit.MountImage(t, c.fstype, "", fmt.Sprintf(c.option, text)))
		for i := range c.sources {
			refuse(unix.ENOTTY, c.sources[:i]...)
			uuid, err := d.FSUUID()
			SetFault(nil)
			if err != nil || uuid != want {
				t.Errorf("%s without %v: %x, %v; want %x", c.fstype, c.sources[:i], uuid, err, want)
			}
		}
		for _, name := range c.sources[:min(2, len(c.sources))] {
			refused := c.sources[0]
			if name == refused {
				refused = "none"
			}
			SetFault(func(op Op) error {
				switch op.Name {
				case refused:
					return unix.ENOTTY
				case name:
					return unix.EIO
				}
				return nil
			})
			_, err := d.FSUUID()
			SetFault(nil)
			if err != unix.EIO {
				t.Errorf("%s, %s on a failing disk: %v", c.fstype, name, err)
			}
		}
		SetFault(func(op Op) error {
			if op.Call == "ioctl" || op.Call == "open" {
				return unix.EACCES
			}
			return nil
		})
		uuid, err := d.FSUUID()
		SetFault(nil)
		if err != nil || uuid != (UUID{}) {
			t.Errorf("%s without any source: %x, %v", c.fstype, uuid, err)
		}
	}
}

// udev links devices under the UUIDs of their file systems.
func TestUUIDLink(t *testing.T) {
	uuidOfDisk := UUID{0x12, 0x34, 15: 0xff}
	text := fmt.Sprintf("%x-%x-%x-%x-%x", uuidOfDisk[:4], uuidOfDisk[4:6], uuidOfDisk[6:8], uuidOfDisk[8:10], uuidOfDisk[10:])
	d, folder := openPlain(t, testkit.MountImage(t, "ext4", "", "-U", text)), t.TempDir()
	dev, err := d.device()
	must(t, err)
	must(t, os.Symlink("/dev/null", folder+"/0000-0000"))
	must(t, os.Symlink("nowhere", folder+"/00000000-0000-0000-0000-000000000000"))
	_, err = uuidLink(folder, dev)
	want(t, "without a link", err, unix.ENOENT)
	must(t, os.Symlink(fmt.Sprintf("/dev/loop%d", unix.Minor(dev)), folder+"/"+text))
	if uuid, err := uuidLink(folder, dev); err != nil || uuid != uuidOfDisk {
		t.Errorf("%x, %v; want %x", uuid, err, uuidOfDisk)
	}
	_, err = uuidLink(folder+"/nothing", dev)
	want(t, "without the folder", err, unix.ENOENT)
	// /proc is on no device.
	_, err = openPlain(t, "/proc/self").device()
	want(t, "/proc", err, unix.ENOENT)
}

func TestParseUUID(t *testing.T) {
	for text, ok := range map[string]bool{
		"01234567-89ab-cdef-0123-456789abcdef": true, "0123-4567": false, "0123456789abcdef": false, "": false,
		"01234567-89ab-cdef-0123-456789abcdeg": false, "0123456789abcdef0123456789abcdef": false,
	} {
		if u, err := parseUUID(text); (err == nil) != ok || ok && u[0] != 1 {
			t.Errorf("%q: %x, %v", text, u, err)
		}
	}
}
