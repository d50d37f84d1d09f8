package command

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// mount(8), fstab(5) and their programs: mount.fuse3 for the types fuse.NAME, mount.fuse-overlay
// for the type fuse-overlay. mount(8) looks for the programs in fixed folders, so the tests install
// them there in a mount namespace of their own.

// privately runs a script in a mount namespace in which /usr/local/sbin holds the program under
// both of its names, and /sbin also the mount helper. $DIR is the folder of the test.
func privately(t *testing.T, e *harness.Env, script string) (string, error) {
	t.Helper()
	programs, helpers := filepath.Join(e.Dir, "programs"), filepath.Join(e.Dir, "helpers")
	if _, err := os.Stat(programs); err != nil {
		harness.Mkdir(t, programs, helpers)
		harness.Check(t, harness.CopyFile(harness.Program, programs+"/fuse-overlay"))
		harness.Check(t, os.Symlink("fuse-overlay", programs+"/fuse-overlayfs"))
		harness.Check(t, os.Symlink("/usr/local/sbin/fuse-overlay", helpers+"/mount.fuse-overlay"))
	}
	place := `
		mount --bind $DIR/programs /usr/local/sbin
		sbin=$(readlink -f /sbin)
		mount -t overlay helpers -o lowerdir=$DIR/helpers:$sbin $sbin`
	environ := []string{"DIR=" + e.Dir, "RUN_AS=setpriv --reuid " + harness.PlainUser.Name + " --regid " +
		harness.PlainUser.Name + " --init-groups"}
	out, err := harness.RunIn("/", environ, time.Minute, "unshare", "-m", "bash", "-euc", place+"\n"+script)
	harness.WantNothingRuns(t, e.Dir)
	return out, err
}

// mountFunctions are functions for scripts. They print the mount on a folder, as in
// /proc/self/mounts.
const mountFunctions = `
	mounted() { awk -v p="$1" '$2 == p {print $3, $4}' /proc/self/mounts; }
	expect() { local got; got=$(mounted "$1"); case "$got" in $2) ;; *) echo "on $1: '$got', want $2"; exit 1;; esac; }
	fails() { if "$@"; then echo "worked, but should not have: $*"; exit 1; fi; }
	L=$DIR/lower0 U=$DIR/upper W=$DIR/work M=$DIR/mnt
`

func TestMountProgram(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		for name, script := range map[string]string{
			"by type": `
				for type in fuse.fuse-overlay fuse.fuse-overlayfs; do
					mount -t $type overlay $M -o lowerdir=$L,upperdir=$U,workdir=$W
					expect $M "$type rw,relatime,*"
					cat $M/f; echo new >$M/new; rm $M/new; umount $M; expect $M ""
				done`,
			"by the mount helper": `
				mount -t fuse-overlay overlay $M -o lowerdir=$L,upperdir=$U,workdir=$W
				expect $M "fuse.fuse-overlay rw,relatime,*"
				cat $M/f; echo new >$M/new; rm $M/new; umount $M; expect $M ""
				mount -v -n -t fuse-overlay.any overlay $M -o lowerdir=$L,_netdev,nofail,user,x-any
				expect $M "fuse.fuse-overlay ro,nosuid,nodev,noexec,*"; cat $M/f; umount $M`,
			"read-only": `
				for type in fuse.fuse-overlay fuse-overlay; do
					mount -r -t $type overlay $M -o lowerdir=$L,upperdir=$U,workdir=$W,nosuid,nodev,noatime
					expect $M "fuse.fuse-overlay ro,nosuid,nodev,noatime,*"
					cat $M/f; fails touch $M/f 2>/dev/null; umount $M
				done`,
			"mount -f, by the helper": `
				mount -f -t fuse-overlay overlay $M -o lowerdir=$L; expect $M ""
				fails mount -f -t fuse-overlay overlay $M -o lowerdri=$L 2>/dev/null
				cat $L/f $L/f`,
			"mount -s, by the helper": `
				fails mount -t fuse-overlay overlay $M -o lowerdir=$L,of-the-future=1 2>/dev/null
				expect $M ""
				mount -s -t fuse-overlay overlay $M -o lowerdir=$L,of-the-future=1 2>$DIR/said
				grep -qx 'unknown argument ignored: of-the-future=1' $DIR/said
				cat $M/f $M/f; umount $M`,
			"failing": `
				for type in fuse.fuse-overlay fuse.fuse-overlayfs fuse-overlay; do
					fails mount -t $type overlay $M -o lowerdir=$L/none 2>$DIR/said
					grep -q "^fuse-overlay.*: lowerdir \"$L/none\": no such file or directory$" $DIR/said
					expect $M ""
				done
				cat $L/f $L/f`,
			"remounting": `
				for type in fuse.fuse-overlay fuse.fuse-overlayfs fuse-overlay; do
					mount -t $type overlay $M -o lowerdir=$L,upperdir=$U,workdir=$W; rw=$(mounted $M)
					mount -o remount,ro,nosuid,noexec $M; expect $M "fuse.fuse-overlay* ro,nosuid,noexec,*"
					fails touch $M/f 2>$DIR/said; grep -q 'Read-only file system' $DIR/said
					mount -o remount,rw,suid,exec $M; expect $M "$rw"; echo new >$M/new; rm $M/new
					mount.fuse-overlay overlay $M -f -o remount,ro; expect $M "$rw"
					umount $M
				done
				for options in lowerdir=$L ro,lowerdir=$L,upperdir=$U,workdir=$W; do
					mount -t fuse-overlay overlay $M -o $options; ro=$(mounted $M)
					fails mount -o remount,rw $M 2>$DIR/said; grep -q 'its upper layer cannot be written' $DIR/said
					expect $M "$ro"; umount $M
				done
				echo "overlay $M fuse-overlay lowerdir=$L,upperdir=$U,workdir=$W,nodev,x-any 0 0" >$DIR/fstab
				mount --fstab $DIR/fstab $M
				mount --fstab $DIR/fstab -o remount,ro $M; expect $M "fuse.fuse-overlay ro,nodev,*"
				umount $M
				mkdir $DIR/other; mount -t tmpfs none $DIR/other; other=$(mounted $DIR/other)
				fails mount.fuse-overlay overlay $DIR/other -o remount,ro 2>$DIR/said
				grep -q 'no mount of this program' $DIR/said; expect $DIR/other "$other"
				fails fuse-overlay overlay $M -o remount,ro 2>$DIR/said; grep -q 'no mount of this program' $DIR/said
				cat $L/f $L/f`,
			"fstab": `
				mkdir "$DIR/with blank" $DIR/third; cp -a $L "$DIR/odd:a,b c"
				cat >$DIR/fstab <<EOF
overlay $M fuse.fuse-overlay lowerdir=$L,upperdir=$U,workdir=$W 0 0
over\040lay $DIR/with\040blank fuse-overlay nofail,x-systemd.requires=/,nosuid,lowerdir=$L 0 0
overlay $DIR/third fuse.fuse-overlay noauto,lowerdir=$DIR/odd\:a\,b\040c 0 0
EOF
				tab="--fstab $DIR/fstab"
				for i in 1 2; do # the second finds all mounted
					mount $tab -a
					expect $M "fuse.fuse-overlay rw,relatime,*"; expect $DIR/third ""
					grep -q "^over.040lay $DIR/with.040blank fuse.fuse-overlay ro,nosuid," /proc/self/mounts
				done
				cat $M/f "$DIR/with blank/f"; echo new >$M/new; rm $M/new
				umount $M "$DIR/with blank"; expect $M ""
				mount -T $DIR/fstab $DIR/third; expect $DIR/third "fuse.fuse-overlay ro,*"
				cmp $DIR/third/f $L/f; umount $DIR/third`,
			"an open device, without rights": `
				mount -t fuse.fuse-overlay overlay $M -o lowerdir=$L,upperdir=$U,workdir=$W,drop_privileges
				expect $M "fuse.fuse-overlay rw,*"; cat $M/f; echo new >$M/new; rm $M/new
				umount $M; expect $M ""; cat $L/f`,
			"umount by name and lazily": `
				mount -t fuse-overlay $DIR/a-source $M -o lowerdir=$L; umount $DIR/a-source; expect $M ""
				mount -t fuse-overlay overlay $M -o lowerdir=$L; exec 5<$M/f; fails umount $M 2>/dev/null; umount -l $M
				expect $M ""; cat <&5; exec 5<&-; cat $L/f`,
		} {
			t.Run(name, func(t *testing.T) {
				o := harness.NewEnv(t, e.Mode).Overlay(t, "file f \"x\"")
				out, err := privately(t, o.Env, mountFunctions+script)
				if err != nil || out != "xx" {
					t.Errorf("%v: %q", err, out)
				}
				harness.WantTree(t, "the upper", o.Upper, "")
				harness.WantTree(t, "the lower", o.Lowers[0], "file f \"x\"")
			})
		}
	})
}

// With the option user in fstab a plain user may mount and unmount. mount(8) then clears the
// environment, and the program mounts through fusermount3.
func TestMountProgramOfOrdinaryUsers(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		for _, kind := range []string{"fuse.fuse-overlay", "fuse.fuse-overlayfs", "fuse-overlay"} {
			for _, others := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, allow_other %v", kind, others), func(t *testing.T) {
					o := harness.NewEnv(t, e.Mode).Overlay(t, "file f \"x\"")
					for _, dir := range []string{o.Upper, o.Work, o.Point} {
						harness.Check(t, os.Chown(dir, harness.PlainUser.UID, harness.PlainUser.GID))
					}
					options := "user,noauto,lowerdir=" + o.Lowers[0]
					user := ""
					if others {
						options += ",allow_other"
					} else {
						options += ",upperdir=" + o.Upper + ",workdir=" + o.Work
						user = "$RUN_AS "
					}
					harness.Write(t, o.Env.Dir+"/fstab", fmt.Sprintf("overlay %s %s %s 0 0\n", o.Point, kind, options))
					harness.Write(t, o.Env.Dir+"/fuse.conf", "user_allow_other\n")
					want := "fuse.fuse-overlay r[ow],nosuid,nodev,noexec,relatime,user_id=" + fmt.Sprint(harness.PlainUser.UID) + ",*"
					if strings.HasSuffix(kind, "fs") {
						want = strings.Replace(want, "fuse-overlay", "fuse-overlayfs", 1)
					}
					out, err := privately(t, o.Env, mountFunctions+`
						mount --bind $DIR/fstab /etc/fstab; mount --bind $DIR/fuse.conf /etc/fuse.conf
						$RUN_AS mount $M
						expect $M '`+want+`'
						`+user+`cat $M/f
						`+user+`touch $M/new || echo not written
						$RUN_AS umount $M; expect $M ""`)
					if others {
						out, _, _ = strings.Cut(out, "touch:") // read-only, see below
					}
					if err != nil || out != "x" {
						t.Errorf("%v: %q", err, out)
					}
					if !others {
						harness.WantNames(t, o.Upper, "new")
					}
				})
			}
		}
	})
}

// mount(8), and programs that look for fuse-overlayfs, find what make install has installed.
func TestInstall(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		e.Overlay(t, "file f \"x\"")
		dest := filepath.Join(e.Dir, "dest")
		run := func(target string) { // not built anew: it is the program under test that is installed
			harness.Shell(t, "../..", "make -s -o build "+target+" PROGRAM="+harness.Program+" DESTDIR="+dest+" ALTERNATIVE=1")
		}
		run("install")
		list := harness.Shell(t, dest, `find . -not -type d -printf '%P %m %l\n' | sort`)
		harness.Equal(t, "installed", list, `sbin/mount.fuse-overlay 777 /usr/local/bin/fuse-overlay
usr/local/bin/fuse-overlay 755 
usr/local/bin/fuse-overlayfs 777 fuse-overlay
usr/local/libexec/fuse-overlay/fuse-overlay-commands 755 
usr/local/share/bash-completion/completions/fuse-overlay 644 
usr/local/share/fish/vendor_completions.d/fuse-overlay.fish 644 
usr/local/share/man/man1/fuse-overlay-apply.1 644 
usr/local/share/man/man1/fuse-overlay-check.1 644 
usr/local/share/man/man1/fuse-overlay-completion.1 644 
usr/local/share/man/man1/fuse-overlay-diff.1 644 
usr/local/share/man/man1/fuse-overlay-list.1 644 
usr/local/share/man/man1/fuse-overlay-merge.1 644 
usr/local/share/man/man1/fuse-overlay-mount.1 644 
usr/local/share/man/man1/fuse-overlay-stats.1 644 
usr/local/share/man/man1/fuse-overlay-try.1 644 
usr/local/share/man/man1/fuse-overlay-umount.1 644 
usr/local/share/man/man1/fuse-overlay-upgrade.1 644 
usr/local/share/man/man1/fuse-overlay-vacuum.1 644 
usr/local/share/man/man1/fuse-overlay-version.1 644 
usr/local/share/man/man1/fuse-overlay.1 644 
usr/local/share/zsh/site-functions/_fuse-overlay 644 
`)
		page := harness.ReadText(t, dest+"/usr/local/share/man/man1/fuse-overlay.1")
		if !strings.Contains(page, ".Nm fuse-overlay") {
			t.Errorf("the manual page begins with %s", harness.Brief(page))
		}
		out, err := harness.RunIn("/", []string{"DIR=" + e.Dir}, time.Minute, "unshare", "-m", "bash", "-euc", mountFunctions+`
			sbin=$(readlink -f /sbin)
			mount --bind $DIR/dest/usr/local/bin /usr/local/bin
			mount -t overlay helpers -o lowerdir=$DIR/dest/sbin:$sbin $sbin
			for type in fuse-overlay fuse.fuse-overlay fuse.fuse-overlayfs; do
				mount -t $type overlay $M -o lowerdir=$L,upperdir=$U,workdir=$W
				cat $M/f; umount $M
			done
			PATH=/usr/local/bin:/usr/bin:/bin
			fuse-overlayfs --version | head -n 1 | grep -q '^fuse-overlayfs: version'
			fuse-overlayfs -o lowerdir=$L $M; expect $M "fuse.fuse-overlayfs ro,*"; umount $M
			$DIR/dest/usr/local/bin/fuse-overlay version | grep -q '^fuse-overlay version ' # by libexec`)
		if err != nil || out != "xxx" {
			t.Errorf("%v: %q", err, out)
		}
		// Another program of that name stays.
		harness.Check(t, os.Remove(dest+"/usr/local/bin/fuse-overlayfs"))
		harness.Write(t, dest+"/usr/local/bin/fuse-overlayfs", "of others")
		run("uninstall")
		left := strings.Fields(harness.Shell(t, dest, "find . -not -type d"))
		if !slices.Equal(left, []string{"./usr/local/bin/fuse-overlayfs"}) {
			t.Errorf("left after make uninstall: %v", left)
		}
		harness.WantNothingRuns(t, e.Dir)
	})
}
