package engines

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// The lower is a whole root file system. Programs change it by chroot, and the result equals that
// on a plain copy.

// legitimate are the paths whose content differs between any two runs of the same commands, with
// the reasons.
var legitimate = map[string]string{
	"var/log":                         "time stamps",
	"var/cache/ldconfig/aux-cache":    "inode numbers and ctimes of libraries",
	"var/cache/apt/pkgcache.bin":      "times of the package lists",
	"var/cache/apt/srcpkgcache.bin":   "times of the package lists",
	"var/lib/systemd/random-seed":     "random",
	"etc/machine-id":                  "random",
	"var/lib/dbus/machine-id":         "random",
	"var/cache/debconf/config.dat":    "order of a hash",
	"var/cache/debconf/templates.dat": "order of a hash",
	"root/.bash_history":              "time stamps",
}

var rootView = harness.View{Mode: true, Owner: true, Nlink: true, DirNlink: !harness.Oracle, Xattrs: true,
	Skip: func(rel string) bool { _, ok := legitimate[rel]; return ok }}

// kernelView is rootView for a comparison with the kernel's overlayfs, which does not count
// subdirectories.
var kernelView = harness.View{Mode: true, Owner: true, Nlink: true, Xattrs: true, Skip: rootView.Skip}

func sameTree(t *testing.T, what, plainCopy, mount string) {
	t.Helper()
	sameTreeAs(t, what, plainCopy, mount, rootView)
}

func sameTreeAs(t *testing.T, what, plainCopy, mount string, v harness.View) {
	t.Helper()
	want, err := harness.Snapshot(plainCopy, v)
	harness.Check(t, err)
	got, err := harness.Snapshot(mount, v)
	harness.Check(t, err)
	delete(want, ".")
	delete(got, ".")
	if len(want) < 50 {
		t.Fatalf("%s: only %d objects in the plain copy", what, len(want))
	}
	if d := harness.DiffLines(want, got); d != "" {
		t.Errorf("%s: %s and %s differ:\n%s", what, plainCopy, mount, harness.Clip(d))
	}
}

const busyboxChanges = `
	echo host >/etc/hostname; sed -i s/root/toor/ /etc/passwd; echo x:x:1::/:/bin/sh >>/etc/group
	mkdir -p /srv/www; tar cf - etc | tar xf - -C /srv/www
	rm /bin/vi /bin/wget; ln -s busybox /bin/new; mv /bin/ls /bin/list; cp -a /etc /etc.bak
	rm -r /usr/share/doc; mkdir /usr/share/doc; echo r >/usr/share/doc/README
	find /usr/share/man -type f | xargs rm; chmod -R go-w /usr; chown -R 1:1 /home
	mknod /run/pipe p; ln /etc/hostname /etc/hostname2; echo more >>/etc/hostname
	i=0; while [ $i -lt 300 ]; do echo $i >/tmp/f$i; i=$((i+1)); done; rm /tmp/f1*
	mv /opt/tree /opt/tree2; rm -rf /opt/gone; gzip /usr/share/big; touch -d 2001-01-01 /etc/passwd`

// installBusybox puts busybox and its names into the folder bin of a root file system.
func installBusybox(t *testing.T, root string) {
	t.Helper()
	harness.Mkdir(t, root+"/bin")
	harness.Check(t, harness.CopyFile(harness.Busybox(t), root+"/bin/busybox"))
	harness.Equal(t, "busybox in a chroot", harness.Shell(t, "", "chroot "+root+" /bin/busybox echo runs"), "runs\n")
	for _, applet := range strings.Fields(harness.Shell(t, "", "busybox --list")) {
		if applet != "busybox" {
			harness.Check(t, os.Symlink("busybox", root+"/bin/"+applet))
		}
	}
}

func TestBusyboxRoot(t *testing.T) {
	harness.EachMode(t, harness.RootModes, func(t *testing.T, e *harness.Env) {
		var table strings.Builder
		table.WriteString("file etc/passwd \"root:x:0:0::/:/bin/sh\\n\"\nfile etc/group \"root:x:0:\\n\"\nfile etc/hostname \"h\\n\"\ndir tmp 1777\ndir run\nfile home/u/f \"x\"\n")
		for i := range 60 {
			fmt.Fprintf(&table, "file usr/share/doc/p%d/copyright \"c\"\nfile usr/share/man/m%d \"m\"\nfile opt/tree/a%d/f \"x\"\nfile opt/gone/g%d \"x\"\n", i, i, i, i)
		}
		fmt.Fprintf(&table, "file usr/share/big %q\n", strings.Repeat("text ", 50_000))
		o := e.Overlay(t, table.String())
		plainCopy := filepath.Join(e.Dir, "plain")
		harness.Check(t, os.Mkdir(plainCopy, 0o755))
		installBusybox(t, o.Lowers[0])
		harness.Shell(t, e.Dir, "cp -a lower0/. plain; cp -a lower0 before")
		o.Mount()
		for _, root := range []string{plainCopy, o.Point} {
			harness.Chroot(t, root, "/bin/sh", busyboxChanges)
		}
		sameTree(t, "changed", plainCopy, o.Point)
		o.Remount()
		sameTree(t, "after a remount", plainCopy, o.Point)
		harness.CompareTrees(t, "the lower", e.Dir+"/before", o.Lowers[0], harness.ExactView)
	})
}

var debianSteps = []struct{ what, script string }{
	{"packages are installed", `
		printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d; chmod 755 /usr/sbin/policy-rc.d
		dpkg -i /root/debs/hello*.deb /root/debs/ed_*.deb
		apt-get -qq install -y --no-install-recommends /root/debs/cron*.deb /root/debs/sensible*.deb >/dev/null
		hello; echo changed >>/etc/crontab; adduser --quiet --disabled-password --gecos '' e2e
		dpkg --verify`},
	{"packages are purged", `
		dpkg --purge hello; apt-get -qq purge -y cron cron-daemon-common >/dev/null; dpkg --purge ed
		dpkg --purge --force-depends tzdata
		userdel -r e2e 2>/dev/null
		dpkg --audit`},
	{"the tree is worked on", `
		rm -rf /usr/share/doc /usr/share/locale; mkdir /usr/share/doc; echo r >/usr/share/doc/README
		mv /etc/apt /etc/apt2; mv /etc/apt2 /etc/apt; cp -a /etc /etc.bak; sed -i s/root/toor/ /etc.bak/passwd
		chown -R 0:4 /var/lib/apt /usr/lib/apt; find /usr/share/man -delete; perl -e 'print "perl\n"'
		tar --sort=name --mtime=@0 -cf /root/etc.tar /etc; ldconfig; dpkg-query -l >/root/list`},
}

func TestDebianRoot(t *testing.T) {
	harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		root, packages := harness.DebianRoot(t), harness.DebianPackages(t)
		o := e.Overlay(t)
		o.Lowers = []string{root}
		plainCopy := filepath.Join(e.Dir, "plain")
		harness.Shell(t, e.Dir, "cp -a "+root+" plain")
		o.Mount()
		for i, step := range debianSteps {
			for _, r := range []string{plainCopy, o.Point} {
				if i == 0 {
					harness.Shell(t, r, "cp -r "+packages+" root/debs")
				}
				harness.Chroot(t, r, "/bin/sh", step.script)
			}
			sameTree(t, step.what, plainCopy, o.Point)
			o.Remount()
		}
		sameTree(t, "after a remount", plainCopy, o.Point)
		if d := harness.IdentityFaults(o.Point); d != "" && !harness.Oracle {
			t.Error(harness.Clip(d))
		}
		o.Unmount()
		// The kernel shows the same tree of the upper.
		o.Kernel = true
		o.Mount()
		sameTreeAs(t, "mounted by the kernel", plainCopy, o.Point, kernelView)
		o.Unmount()
	})
}
