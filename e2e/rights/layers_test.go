package rights

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// The daemon takes over a work directory that another user has made before it makes anything there.
func TestWorkDirectoryOfAnother(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.RootModes, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "file f 0644 \"x\"\nlink g f")
		for _, dir := range []string{"", "work", "index"} {
			path := filepath.Join(o.Work, dir)
			harness.Mkdir(t, path)
			harness.Check(t, os.Chown(path, attacker, attacker))
			harness.Check(t, unix.Chmod(path, 0o777))
		}
		open := harness.Open(t, filepath.Join(o.Work, "work"), os.O_RDONLY)
		o.Opts = append(o.Opts, "index=on")
		o.Mount()
		harness.As(t, attacker, attacker, func() {
			for _, dir := range []string{filepath.Join(o.Work, "work"), filepath.Join(o.Work, "index")} {
				harness.WantErr(t, "making a file in "+dir, os.WriteFile(filepath.Join(dir, "mine"), nil, 0o644), syscall.EACCES)
			}
			_, err := unix.Openat(int(open.Fd()), "mine", unix.O_CREAT|unix.O_WRONLY, 0o644)
			harness.WantErr(t, "making a file by a descriptor", err, syscall.EACCES)
		})
		harness.AppendTo(t, o.Path("f"), "+")
		harness.WantText(t, o.Path("g"), "x+")
	})
}

// Capabilities that root of a user namespace may write hold in that namespace only, in the mount as
// on the layer.
func TestCapabilitiesOfANamespacesRoot(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "")
		program := filepath.Join(o.Lowers[0], "capable")
		harness.Check(t, harness.CopyFile("/bin/cat", program))
		harness.Check(t, os.Chown(program, harness.PlainUser.UID, harness.PlainUser.GID))
		cmd := exec.Command("unshare", "--user", "--map-root-user", "setcap", "cap_net_raw+ep", program)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(harness.PlainUser.UID),
			Gid: uint32(harness.PlainUser.GID)}}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		o.Mount()
		for range 2 {
			if value := harness.XattrOf(o.Path("capable"), "security.capability"); !bytes.HasPrefix([]byte(value),
				[]byte("\x01\x00\x00\x03")) {
				t.Errorf("capabilities in the mount: %q, want those of a namespace's root", value)
			}
			harness.Equal(t, "capabilities of the program", effectiveCapabilities(t, e, o.Path("capable")), noCapabilities)
			harness.Check(t, os.Chtimes(o.Path("capable"), harness.OldTime, harness.OldTime)) // a copy in the upper
			o.Remount()
		}
	})
}

// The flags of the mount hold, not those of the file systems of its layers, as with the kernel's
// overlayfs.
func TestMountFlagsOfLayers(t *testing.T) {
	harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "")
		layer := o.Lowers[0]
		harness.Check(t, unix.Mount("layer", layer, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"))
		t.Cleanup(func() { _ = unix.Unmount(layer, unix.MNT_DETACH) })
		harness.Check(t, harness.CopyFile("/usr/bin/id", filepath.Join(layer, "setuid")))
		harness.Build(t, e, layer, "char zero 1/5 0666")
		harness.Check(t, os.Chmod(filepath.Join(layer, "setuid"), 0o755|os.ModeSetuid))
		for _, nosuid := range []bool{false, true} {
			if nosuid {
				o.Unmount()
				o.Opts = append(o.Opts, "nosuid", "nodev")
				o.KernelFlags |= unix.MS_NOSUID | unix.MS_NODEV
			}
			o.Mount()
			want := "0"
			if nosuid {
				want = userID(e)
			}
			got, err := runAs(e, caller, o.Path("setuid"), "-u")
			harness.Check(t, err)
			harness.Equal(t, "effective user id", got, want)
			harness.Equal(t, "the device can be opened", opensZeros(e, o.Path("zero")), !nosuid)
		}
		o.Unmount()
	})
}
