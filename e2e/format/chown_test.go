package e2e

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
)

// usedBytes is what the objects below a folder take up on the disk, directories included.
func usedBytes(t *testing.T, dir string) (bytes int64) {
	t.Helper()
	check(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err == nil {
			st := lstat(t, path)
			bytes += st.Blocks * 512
		}
		return err
	}))
	return bytes
}

// dataBytes is how much of a file is not hole.
func dataBytes(t *testing.T, path string) (bytes int64) {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	check(t, err)
	defer unix.Close(fd)
	for end := int64(0); ; {
		start, err := unix.Seek(fd, end, unix.SEEK_DATA)
		if err == unix.ENXIO {
			return bytes
		}
		check(t, err)
		end, err = unix.Seek(fd, start, unix.SEEK_HOLE)
		check(t, err)
		bytes += end - start
	}
}

// chown -R of 10,000 files copies no data, and the kernel finds all of it where it was.
func TestChownOfManyFilesCopiesNoData(t *testing.T) {
	needDaemon(t)
	eachMode(t, onlyRoot, func(t *testing.T, e *env) {
		const files = 10000
		// A disk with a journal, where a copy-up need not wait for it.
		disk := testkit.MountImage(t, "ext4", "loop")
		o := e.overlay(t)
		o.lowers, o.upper, o.work = []string{disk + "/lower"}, disk+"/upper", disk+"/work"
		mkdir(t, o.upper, o.work)
		text := strings.Repeat("0123456789abcdef", 256)
		for i := range files {
			dir := fmt.Sprintf("%s/d/%02d", o.lowers[0], i%100)
			mkdir(t, dir)
			write(t, fmt.Sprintf("%s/file%05d", dir, i), text)
		}
		o.opts = append(o.opts, redirects, "metacopy=on")
		o.mount()
		got := o.during(func() { sh(t, o.mnt, "chown -R 7:8 d") })
		equal(t, "reads and writes", got["READ"]+got["WRITE"], 0)
		equal(t, "changes", got["SETATTR"], files+101)
		o.unmount()
		var data int64
		check(t, filepath.WalkDir(o.upper, func(path string, entry fs.DirEntry, err error) error {
			if err == nil && entry.Type().IsRegular() {
				data += dataBytes(t, path)
			}
			return err
		}))
		equal(t, "bytes of data in the upper", data, 0)
		o.kernelOpts = redirects + ",metacopy=on,index=off,xino=off"
		for _, kernel := range []bool{true, false} {
			o.kernel = kernel
			o.mount()
			for i := 0; i < files; i += 97 {
				path := o.path(fmt.Sprintf("d/%02d/file%05d", i%100, i))
				wantText(t, path, text)
				st := lstat(t, path)
				equal(t, path, fmt.Sprint(st.Uid, ":", st.Gid), "7:8")
			}
			o.unmount()
		}
	})
}

// frob is a package that has a folder in its first version, and in its second a link to another.
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
func installFrob(t *testing.T, e *env, root string, version int) {
	t.Helper()
	out, err := runIn(e.dir, []string{"DEBIAN_FRONTEND=noninteractive"}, time.Minute,
		"dpkg", "--root="+root, "--force-script-chrootless", "--log=/dev/null", "-i", fmt.Sprintf("frob%d.deb", version))
	if err != nil {
		t.Fatalf("dpkg: %v\n%s", err, out)
	}
}

// directoryRenames are what other installers do to a directory of a lower: rename(2), with no way round. pip puts what it
// replaces aside as ~NAME, rustup takes a component away and puts it back when an update fails, npm and conda put aside too.
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
	needDaemon(t)
	eachMode(t, onlyRoot, func(t *testing.T, e *env) {
		o := e.overlay(t, `
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
		sh(t, e.dir, frob)
		installFrob(t, e, o.lowers[0], 1)
		plainCopy := filepath.Join(e.dir, "plain")
		sh(t, e.dir, "cp -a lower0 plain")
		o.opts = append(o.opts, redirects)
		o.kernelOpts = redirects + ",index=off,metacopy=off,xino=off"
		o.mount()
		for _, root := range []string{plainCopy, o.mnt} {
			installFrob(t, e, root, 2)
			if out, err := runIn(root, nil, time.Minute, "perl", "-e", directoryRenames); err != nil {
				t.Fatalf("%s: %v\n%s", root, err, out)
			}
		}
		if target, _, _ := strings.Cut(sh(t, o.mnt, "readlink usr/share/frob"), "\n"); target != "frob2" {
			t.Errorf("usr/share/frob is a link to %q", target)
		}
		for _, kernel := range []bool{false, true} {
			sameTreeAs(t, "changed", plainCopy, o.mnt, kernelView)
			o.unmount()
			o.kernel = kernel
			o.mount()
		}
		sameTreeAs(t, "mounted by the kernel", plainCopy, o.mnt, kernelView)
		o.unmount()
		for _, moved := range []string{"toolchain/lib/a.so", "toolchain/bin-old/rustc", "pkgs/f", "node_modules/left/deep/x.js"} {
			var st unix.Stat_t
			if unix.Lstat(filepath.Join(o.upper, moved), &st) == nil {
				t.Errorf("%s was copied", moved)
			}
		}
	})
}
