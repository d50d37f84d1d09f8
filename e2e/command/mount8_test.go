package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// mount(8), fstab(5) and their programs: mount.fuse3 for the types fuse.NAME, mount.fuse-overlay for the type fuse-overlay.
// The programs are looked for in fixed places only, so the tests put them there in a mount namespace of their own.

// privately runs a script in a mount namespace in which /usr/local/sbin holds the program under both of its names, and
// /sbin the mount helper besides what is there. $DIR is the folder of the test.
func privately(t *testing.T, e *env, script string) (string, error) {
	t.Helper()
	programs, helpers := filepath.Join(e.dir, "programs"), filepath.Join(e.dir, "helpers")
	if _, err := os.Stat(programs); err != nil {
		mkdir(t, programs, helpers)
		check(t, copyFile(binPath, programs+"/fuse-overlay"))
		check(t, os.Symlink("fuse-overlay", programs+"/fuse-overlayfs"))
		check(t, os.Symlink("/usr/local/sbin/fuse-overlay", helpers+"/mount.fuse-overlay"))
	}
	place := `
		mount --bind $DIR/programs /usr/local/sbin
		sbin=$(readlink -f /sbin)
		mount -t overlay helpers -o lowerdir=$DIR/helpers:$sbin $sbin`
	environ := []string{"DIR=" + e.dir, "RUN_AS=setpriv --reuid " + plainUser.name + " --regid " + plainUser.name + " --init-groups"}
	out, err := runIn("/", environ, time.Minute, "unshare", "-m", "bash", "-euc", place+"\n"+script)
	wantNothingRuns(t, e.dir)
	return out, err
}

// wantNothingRuns waits for the end of all processes that name a folder in their arguments.
func wantNothingRuns(t *testing.T, dir string) {
	t.Helper()
	if eventually(5*time.Second, func() bool { return len(mentioning(dir)) == 0 }) {
		return
	}
	for pid, line := range mentioning(dir) {
		t.Errorf("left behind: %d %s", pid, line)
		kill(pid, syscall.SIGKILL)
	}
}

// mentioning lists the processes that name a folder in their arguments: those of another mount namespace cannot be told
// by their executable.
func mentioning(dir string) map[int]string {
	found := map[int]string{}
	entries, _ := os.ReadDir("/proc")
	for _, entry := range entries {
		if pid := atoi(entry.Name()); entry.IsDir() && fmt.Sprint(pid) == entry.Name() {
			if line := strings.Join(cmdline(pid), " "); strings.Contains(line, dir+"/") {
				found[pid] = line
			}
		}
	}
	return found
}

// mountFunctions are functions for scripts: what is mounted on a folder, in the words of /proc/self/mounts.
const mountFunctions = `
	mounted() { awk -v p="$1" '$2 == p {print $3, $4}' /proc/self/mounts; }
	expect() { local got; got=$(mounted "$1"); case "$got" in $2) ;; *) echo "on $1: '$got', want $2"; exit 1;; esac; }
	fails() { if "$@"; then echo "worked, but should not have: $*"; exit 1; fi; }
	L=$DIR/lower0 U=$DIR/upper W=$DIR/work M=$DIR/mnt
`

func TestMountProgram(t *testing.T) {
	needDaemon(t)
	eachMode(t, onlyRoot, func(t *testing.T, e *env) {
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
				mount -t fuse-overlay overlay $M -o lowerdir=$L,upperdir=$U,workdir=$W
				fails mount -o remount,ro $M 2>$DIR/said; grep -q 'mount -i -o remount' $DIR/said
				mount -i -o remount,ro $M; expect $M "fuse.fuse-overlay ro,*"; fails touch $M/f 2>/dev/null
				mount -i -o remount,rw $M; expect $M "fuse.fuse-overlay rw,*"; echo new >$M/new; rm $M/new
				cat $M/f; umount $M
				mount -t fuse-overlay overlay $M -o lowerdir=$L
				mount -i -o remount,rw $M; fails touch $M/new 2>$DIR/said; grep -q 'Read-only file system' $DIR/said
				cat $M/f; umount $M`,
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
				o := newEnv(t, e.mode).overlay(t, "file f \"x\"")
				out, err := privately(t, o.env, mountFunctions+script)
				if err != nil || out != "xx" {
					t.Errorf("%v: %q", err, out)
				}
				wantTree(t, "the upper", o.upper, "")
				wantTree(t, "the lower", o.lowers[0], "file f \"x\"")
			})
		}
	})
}

// A line of fstab with the option user lets an ordinary user mount and unmount. mount(8) has the environment emptied then,
// and the program mounts through fusermount3.
func TestMountProgramOfOrdinaryUsers(t *testing.T) {
	needDaemon(t)
	eachMode(t, onlyRoot, func(t *testing.T, e *env) {
		for _, kind := range []string{"fuse.fuse-overlay", "fuse.fuse-overlayfs", "fuse-overlay"} {
			for _, others := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, allow_other %v", kind, others), func(t *testing.T) {
					o := newEnv(t, e.mode).overlay(t, "file f \"x\"")
					for _, dir := range []string{o.upper, o.work, o.mnt} {
						check(t, os.Chown(dir, plainUser.uid, plainUser.gid))
					}
					options := "user,noauto,lowerdir=" + o.lowers[0]
					user := ""
					if others {
						options += ",allow_other"
					} else {
						options += ",upperdir=" + o.upper + ",workdir=" + o.work
						user = "$RUN_AS "
					}
					write(t, o.env.dir+"/fstab", fmt.Sprintf("overlay %s %s %s 0 0\n", o.mnt, kind, options))
					write(t, o.env.dir+"/fuse.conf", "user_allow_other\n")
					want := "fuse.fuse-overlay r[ow],nosuid,nodev,noexec,relatime,user_id=" + fmt.Sprint(plainUser.uid) + ",*"
					if strings.HasSuffix(kind, "fs") {
						want = strings.Replace(want, "fuse-overlay", "fuse-overlayfs", 1)
					}
					out, err := privately(t, o.env, mountFunctions+`
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
						wantNames(t, o.upper, "new")
					}
				})
			}
		}
	})
}

// What make install puts in place is what mount(8), and those who look for fuse-overlayfs, find.
func TestInstall(t *testing.T) {
	needDaemon(t)
	eachMode(t, onlyRoot, func(t *testing.T, e *env) {
		e.overlay(t, "file f \"x\"")
		dest := filepath.Join(e.dir, "dest")
		run := func(target string) { // not built anew: it is the program under test that is installed
			sh(t, "..", "make -s -o build "+target+" PROGRAM="+binPath+" DESTDIR="+dest+" ALTERNATIVE=1")
		}
		run("install")
		list := sh(t, dest, `find . -not -type d -printf '%P %m %l\n' | sort`)
		equal(t, "installed", list, `sbin/mount.fuse-overlay 777 /usr/local/bin/fuse-overlay
usr/local/bin/fuse-overlay 755 
usr/local/bin/fuse-overlayfs 777 fuse-overlay
usr/local/share/man/man1/fuse-overlay.1 644 
`)
		page := readText(t, dest+"/usr/local/share/man/man1/fuse-overlay.1")
		if !strings.Contains(page, ".Nm fuse-overlay") {
			t.Errorf("the manual page begins with %s", brief(page))
		}
		out, err := runIn("/", []string{"DIR=" + e.dir}, time.Minute, "unshare", "-m", "bash", "-euc", mountFunctions+`
			sbin=$(readlink -f /sbin)
			mount --bind $DIR/dest/usr/local/bin /usr/local/bin
			mount -t overlay helpers -o lowerdir=$DIR/dest/sbin:$sbin $sbin
			for type in fuse-overlay fuse.fuse-overlay fuse.fuse-overlayfs; do
				mount -t $type overlay $M -o lowerdir=$L,upperdir=$U,workdir=$W
				cat $M/f; umount $M
			done
			PATH=/usr/local/bin:/usr/bin:/bin
			fuse-overlayfs --version | head -n 1 | grep -q '^fuse-overlayfs: version'
			fuse-overlayfs -o lowerdir=$L $M; expect $M "fuse.fuse-overlayfs ro,*"; umount $M`)
		if err != nil || out != "xxx" {
			t.Errorf("%v: %q", err, out)
		}
		// A program of that name by others stays.
		check(t, os.Remove(dest+"/usr/local/bin/fuse-overlayfs"))
		write(t, dest+"/usr/local/bin/fuse-overlayfs", "of others")
		run("uninstall")
		left := strings.Fields(sh(t, dest, "find . -not -type d"))
		if !slices.Equal(left, []string{"./usr/local/bin/fuse-overlayfs"}) {
			t.Errorf("left after make uninstall: %v", left)
		}
		wantNothingRuns(t, e.dir)
	})
}
