package rights

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// The kernel does some things with files of every FUSE file system without a request to the daemon.

// epoll accepts a regular file, which is always ready (D38).
func TestEpollOfRegularFiles(t *testing.T) {
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, "file f 0644 \"x\"")
		f := harness.Open(t, o.Path("f"), os.O_RDWR)
		defer f.Close()
		ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
		harness.Check(t, err)
		defer unix.Close(ep)
		err = unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, int(f.Fd()), &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLOUT})
		if o.Kernel {
			harness.WantErr(t, "epoll_ctl in the kernel's overlayfs", err, syscall.EPERM)
			return
		}
		harness.Check(t, err)
		events := make([]unix.EpollEvent, 1)
		n, err := unix.EpollWait(ep, events, 1000)
		if n != 1 || err != nil || events[0].Events != unix.EPOLLIN|unix.EPOLLOUT {
			t.Errorf("%d, %v, events %x", n, err, events[0].Events)
		}
	})
}

// In a user namespace an object whose owner or group is not mapped can be neither removed nor
// renamed, if the overflow id is not mapped either (may_delete). squash_to_gid replaces the group
// by a mapped one (D36).
func TestUnmappedGroupInANamespaceOfOneID(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		for opt, want := range map[string]string{"": "EOVERFLOW", ",squash_to_gid=0": ""} {
			o := e.Overlay(t, "")
			o.Log = ""
			for _, dir := range []string{o.Lowers[0], o.Upper, o.Work} { // from the turn before
				harness.Check(t, os.RemoveAll(dir))
				harness.Mkdir(t, dir)
			}
			for _, name := range []string{"removed", "renamed"} {
				path := filepath.Join(o.Lowers[0], name)
				harness.Write(t, path, "x")
				harness.Check(t, os.Lchown(path, harness.PlainUser.UID, 0))
			}
			for _, dir := range []string{o.Lowers[0], o.Upper, o.Work} {
				harness.Check(t, os.Chown(dir, harness.PlainUser.UID, harness.PlainUser.GID))
			}
			const script = `"$1" -o "$2" "$3"; cd "$3"; perl -MErrno -e '
				for (["removed", unlink "removed"], ["renamed", rename "renamed", "other"]) { print "$$_[0] ", ($$_[1] ? "ok" : $!+0 == Errno::EOVERFLOW() ? "EOVERFLOW" : $!), "\n" }'; cd /; umount "$3"`
			cmd := exec.Command("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh", harness.Program,
				o.MountOptions()+opt, o.Point)
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(harness.PlainUser.UID),
				Gid: uint32(harness.PlainUser.GID)}}
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			if want == "" {
				want = "ok"
			}
			harness.Equal(t, "with "+opt, string(out), "removed "+want+"\nrenamed "+want+"\n")
		}
	})
}

// Only its owner can enter the work directory. An impure xattr stays after its reason is gone. An
// immutable directory is refused as a work directory (D35).
func TestWorkDirectoryAndMarksThatStay(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, "file d/f 0644 \"x\"")
		harness.AppendTo(t, o.Path("d/f"), "+")
		harness.Check(t, os.Remove(o.Path("d/f")))
		harness.Check(t, os.Remove(o.Path("d")))
		harness.Check(t, os.Mkdir(o.Path("d"), 0o755))
		harness.Equal(t, "mode of the staging directory", harness.Owner(t, filepath.Join(o.Work, "work")), "0:0 0700")
		harness.Equal(t, "impure", harness.XattrOf(o.Upper, "trusted.overlay.impure"), "y")
		o.Remount()
		harness.Equal(t, "impure after a remount", harness.XattrOf(o.Upper, "trusted.overlay.impure"), "y")
		o.Unmount()
		harness.Check(t, os.RemoveAll(filepath.Join(o.Work, "work")))
		harness.Shell(t, e.Dir, "chattr +i work")
		defer harness.Shell(t, e.Dir, "chattr -i work")
		out, err := o.TryMount()
		if err == nil || !strings.Contains(out, "workdir") || !strings.Contains(out, "operation not permitted") {
			t.Errorf("an immutable work directory: %v\n%s", err, out)
		}
	})
}
