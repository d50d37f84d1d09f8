package engines

import (
	"os"
	"slices"
	"testing"
	"time"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

const (
	nspawnRoot = `
		rm -r /usr/share/locale; mv /usr/share/doc /usr/share/documents; mkdir /usr/share/doc; echo new >/etc/new
		chmod -R go-rwx /usr/share/zoneinfo; chown -R 33:33 /usr/share/documents; ln /etc/passwd /etc/passwd.linked
		cp -a /etc /etc.bak; sed -i s/root/toor/ /etc.bak/passwd; mkfifo /srv/pipe; rm /etc/issue; ln -s x /srv/link`
	nspawnTree = `
		rm -r /srv/usr/share/locale; mv /srv/etc /srv/etc2; echo more >>/srv/etc2/passwd; rm /srv/usr/bin/cat
		rm -r /srv/usr/share/doc; mkdir /srv/usr/share/doc; ln /srv/usr/bin/tac /srv/tac; chown 3:4 /srv/usr/bin/tac`
)

// nspawn runs a script in a container of systemd-nspawn, which leaves cgroups below its own.
func nspawn(t *testing.T, root, script string, options ...string) {
	t.Helper()
	const inCgroup = `mkdir -p "$0"; echo $$ >"$0/cgroup.procs"; exec systemd-nspawn "$@"`
	args := slices.Concat([]string{"-ec", inCgroup, "/sys/fs/cgroup" + harness.CgroupName() + "/nspawn"},
		[]string{"--quiet", "--register=no", "--keep-unit", "--pipe", "--as-pid2", "--private-network"},
		[]string{"--resolv-conf=off", "--timezone=off", "--link-journal=no", "--directory=" + root}, options,
		[]string{"/bin/sh", "-euc", script})
	environ := []string{"SYSTEMD_NSPAWN_LOCK=0", "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1"}
	if out, err := harness.RunIn("/", environ, 2*time.Minute, "sh", args...); err != nil {
		t.Fatalf("systemd-nspawn %q: %v\n%s", args, err, out)
	}
}

// systemd-nspawn runs a container whose root is the mount. In a user namespace it maps the ids of
// the mount itself, by an idmapped mount.
func TestNspawn(t *testing.T) {
	needClients(t)
	root := harness.DebianRoot(t)
	harness.EachMode(t, harness.PrivateModes, func(t *testing.T, e *harness.Env) {
		harness.Tried(t, "systemd-nspawn", actRun, actUserns)
		harness.NothingLeft(t)
		for name, options := range map[string][]string{
			"plain": nil, "mapped": {"--private-users=524288:65536", "--private-users-ownership=map"},
		} {
			t.Run(name, func(t *testing.T) {
				o := harness.NewEnv(t, e.Mode).Overlay(t)
				plainCopy := o.Env.Dir + "/plain"
				harness.Shell(t, "", "cp -a "+root+" "+plainCopy)
				o.Lowers = []string{root}
				o.Mount()
				for _, r := range []string{plainCopy, o.Point} {
					nspawn(t, r, nspawnRoot, options...)
				}
				sameTree(t, name, plainCopy, o.Point)
				o.Unmount()
			})
		}
	})
}

// A tree that a container changes below a bind mount of the program equals that of the option
// --overlay, with which systemd-nspawn mounts the kernel's overlayfs.
func TestNspawnOverlay(t *testing.T) {
	needClients(t)
	root := harness.DebianRoot(t)
	harness.EachMode(t, harness.PrivateModes, func(t *testing.T, e *harness.Env) {
		harness.Tried(t, "systemd-nspawn", "--overlay")
		harness.NothingLeft(t)
		upper, kept := e.Dir+"/kernel-upper", e.Dir+"/kept"
		harness.Mkdir(t, upper, kept)
		harness.Check(t, os.Chmod(kept, 0o777))
		kernel := []string{"--read-only", "--bind=" + kept + ":/mnt", "--overlay=" + root + ":" + upper + ":/srv"}
		nspawn(t, root, nspawnTree, kernel...)
		nspawn(t, root, "cp -a /srv /mnt/tree", kernel...)
		o := e.Overlay(t)
		o.Lowers = []string{root}
		o.Mount()
		nspawn(t, root, nspawnTree, "--read-only", "--bind="+o.Point+":/srv")
		sameTreeAs(t, "below /srv", kept+"/tree", o.Point, kernelView)
		o.Unmount()
	})
}
