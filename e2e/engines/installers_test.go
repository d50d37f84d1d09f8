package engines

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// frob makes a package whose first version has a folder. The second has a link to another folder in
// its place.
const frob = `
	build() {
		mkdir -p $1/DEBIAN $1/usr/share/$2
		for i in $(seq 20); do echo "$1 $i" >$1/usr/share/$2/file$i; done
		printf 'Package: frob\nVersion: %s\nArchitecture: all\nMaintainer: e2e <e2e@localhost>\nDescription: test\n' $1 >$1/DEBIAN/control
		for script in preinst postinst postrm; do
			printf '#!/bin/sh\nset -e\ndpkg-maintscript-helper dir_to_symlink /usr/share/frob frob2 2.0~ frob -- "$@"\n' >$1/DEBIAN/$script
			chmod 755 $1/DEBIAN/$script
		done
		find $1 -exec touch -h -d @1000000000 {} +
	}
	build 1.0 frob; rm 1.0/DEBIAN/p*; dpkg-deb -b 1.0 frob1.deb >/dev/null
	build 2.0 frob2; dpkg-deb -b 2.0 frob2.deb >/dev/null`

// installFrob installs a version below a root.
func installFrob(t *testing.T, e *harness.Env, root string, version int) {
	t.Helper()
	out, err := harness.RunIn(e.Dir, []string{"DEBIAN_FRONTEND=noninteractive"}, time.Minute,
		"dpkg", "--root="+root, "--force-script-chrootless", "--log=/dev/null", "-i", fmt.Sprintf("frob%d.deb", version))
	if err != nil {
		t.Fatalf("dpkg: %v\n%s", err, out)
	}
}

// directoryRenames are the renames of other installers, which have no fallback for EXDEV. pip
// renames what it replaces to ~NAME, rustup renames a component away and back if an update fails,
// npm and conda rename too.
const directoryRenames = `
	sub move { rename($_[0], $_[1]) or die "rename $_[0] $_[1]: $!\n" }
	sub text { open(my $f, ">", $_[0]) or die "$_[0]: $!\n"; print $f $_[1] }
	move("site/foo", "site/~oo"); move("site/foo-1.dist-info", "site/~oo-1.dist-info");
	mkdir("site/foo"); text("site/foo/__init__.py", "2"); mkdir("site/foo-2.dist-info"); text("site/foo-2.dist-info/RECORD", "2");
	system("rm", "-r", "site/~oo", "site/~oo-1.dist-info") and die;
	move("toolchain/lib", "tmp/bk1"); move("toolchain/bin", "tmp/bk2");
	mkdir("toolchain/lib"); text("toolchain/lib/new.so", "new"); unlink("toolchain/lib/new.so"); rmdir("toolchain/lib");
	move("tmp/bk1", "toolchain/lib"); move("tmp/bk2", "toolchain/bin-old"); move("tmp", "toolchain/tmp");
	move("node_modules/left", "node_modules/.left-x1"); mkdir("node_modules/left"); text("node_modules/left/index.js", "2");
	move("node_modules/.left-x1/deep", "node_modules/left/deep"); move("pkgs", ".trash"); move(".trash/a", "pkgs");
`

// Installers rename directories of lowers.
func TestInstallersRenameDirectories(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, `
			file site/foo/__init__.py "1"
			file site/foo/sub/m.py "1"
			file site/foo-1.dist-info/RECORD "1"
			file toolchain/lib/a.so "a"
			file toolchain/lib/deep/b.so "b"
			file toolchain/bin/rustc 0755 "r"
			dir tmp
			file node_modules/left/index.js "1"
			file node_modules/left/deep/x.js "x"
			file pkgs/a/f "f"
			file pkgs/b/g "g"
			dir var/lib/dpkg/info
			dir var/lib/dpkg/updates
			file var/lib/dpkg/status ""`)
		harness.Shell(t, e.Dir, frob)
		installFrob(t, e, o.Lowers[0], 1)
		plainCopy := filepath.Join(e.Dir, "plain")
		harness.Shell(t, e.Dir, "cp -a lower0 plain")
		o.Opts = append(o.Opts, harness.Redirects)
		o.KernelOpts = harness.Redirects + ",index=off,metacopy=off,xino=off"
		o.Mount()
		for _, root := range []string{plainCopy, o.Point} {
			installFrob(t, e, root, 2)
			if out, err := harness.RunIn(root, nil, time.Minute, "perl", "-e", directoryRenames); err != nil {
				t.Fatalf("%s: %v\n%s", root, err, out)
			}
		}
		if target, _, _ := strings.Cut(harness.Shell(t, o.Point, "readlink usr/share/frob"), "\n"); target != "frob2" {
			t.Errorf("usr/share/frob is a link to %q", target)
		}
		for _, kernel := range []bool{false, true} {
			sameTreeAs(t, "changed", plainCopy, o.Point, kernelView)
			o.Unmount()
			o.Kernel = kernel
			o.Mount()
		}
		sameTreeAs(t, "mounted by the kernel", plainCopy, o.Point, kernelView)
		o.Unmount()
		for _, moved := range []string{"toolchain/lib/a.so", "toolchain/bin-old/rustc", "pkgs/f",
			"node_modules/left/deep/x.js"} {
			var st unix.Stat_t
			if unix.Lstat(filepath.Join(o.Upper, moved), &st) == nil {
				t.Errorf("%s was copied", moved)
			}
		}
	})
}
