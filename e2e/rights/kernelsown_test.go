package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// What the kernel does with files of every FUSE file system, without a request to the daemon.

// A regular file can be waited for by epoll, and is always ready (D38).
func TestEpollOfRegularFiles(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, e *env) {
		o := e.mounted(t, "file f 0644 \"x\"")
		f := open(t, o.path("f"), os.O_RDWR)
		defer f.Close()
		ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
		check(t, err)
		defer unix.Close(ep)
		err = unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, int(f.Fd()), &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLOUT})
		if o.kernel {
			wantErr(t, "epoll_ctl in the kernel's overlayfs", err, syscall.EPERM)
			return
		}
		check(t, err)
		events := make([]unix.EpollEvent, 1)
		n, err := unix.EpollWait(ep, events, 1000)
		if n != 1 || err != nil || events[0].Events != unix.EPOLLIN|unix.EPOLLOUT {
			t.Errorf("%d, %v, events %x", n, err, events[0].Events)
		}
	})
}

// In a user namespace an object whose owner or group is not mapped cannot be removed or renamed where the overflow id is not
// mapped either (may_delete); squash_to_gid shows the group as one that is (D36).
func TestUnmappedGroupInANamespaceOfOneID(t *testing.T) {
	needDaemon(t)
	eachMode(t, onlyRoot, func(t *testing.T, e *env) {
		for opt, want := range map[string]string{"": "EOVERFLOW", ",squash_to_gid=0": ""} {
			o := e.overlay(t, "")
			o.log = ""
			for _, dir := range []string{o.lowers[0], o.upper, o.work} { // from the turn before
				check(t, os.RemoveAll(dir))
				mkdir(t, dir)
			}
			for _, name := range []string{"removed", "renamed"} {
				path := filepath.Join(o.lowers[0], name)
				write(t, path, "x")
				check(t, os.Lchown(path, plainUser.uid, 0))
			}
			for _, dir := range []string{o.lowers[0], o.upper, o.work} {
				check(t, os.Chown(dir, plainUser.uid, plainUser.gid))
			}
			const script = `"$1" -o "$2" "$3"; cd "$3"; perl -MErrno -e '
				for (["removed", unlink "removed"], ["renamed", rename "renamed", "other"]) { print "$$_[0] ", ($$_[1] ? "ok" : $!+0 == Errno::EOVERFLOW() ? "EOVERFLOW" : $!), "\n" }'; cd /; umount "$3"`
			cmd := exec.Command("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh", binPath, o.options()+opt, o.mnt)
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(plainUser.uid), Gid: uint32(plainUser.gid)}}
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			if want == "" {
				want = "ok"
			}
			equal(t, "with "+opt, string(out), "removed "+want+"\nrenamed "+want+"\n")
		}
	})
}

// The work directory is closed to all but its owner, an impure mark stays when what it was written for is gone, and a directory
// that takes no entries is no work directory (D35).
func TestWorkDirectoryAndMarksThatStay(t *testing.T) {
	needDaemon(t)
	eachMode(t, onlyRoot, func(t *testing.T, e *env) {
		o := e.mounted(t, "file d/f 0644 \"x\"")
		appendTo(t, o.path("d/f"), "+")
		check(t, os.Remove(o.path("d/f")))
		check(t, os.Remove(o.path("d")))
		check(t, os.Mkdir(o.path("d"), 0o755))
		equal(t, "mode of the staging directory", owner(t, filepath.Join(o.work, "work")), "0:0 0700")
		equal(t, "impure", xattrOf(o.upper, "trusted.overlay.impure"), "y")
		o.remount()
		equal(t, "impure after a remount", xattrOf(o.upper, "trusted.overlay.impure"), "y")
		o.unmount()
		check(t, os.RemoveAll(filepath.Join(o.work, "work")))
		sh(t, e.dir, "chattr +i work")
		defer sh(t, e.dir, "chattr -i work")
		out, err := o.tryMount()
		if err == nil || !strings.Contains(out, "workdir") || !strings.Contains(out, "operation not permitted") {
			t.Errorf("an immutable work directory: %v\n%s", err, out)
		}
	})
}
