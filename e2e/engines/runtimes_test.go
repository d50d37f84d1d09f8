package engines

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// Some programs run the overlay in the foreground, or set up its rights in a way of their own.

// asUser is a prefix of commands in scripts that run as root.
const asUser = `as_user() { setpriv --reuid "$USER_ID" --regid "$USER_ID" --init-groups "$@"; }
`

// await is a shell function that waits for the mount of a program in the background while that
// program runs, as enroot does.
const await = `
	await() { while ! mountpoint -q "$1"; do kill -0 $2; sleep 0.02; done; }
`

func TestRuntimes(t *testing.T) {
	harness.NeedDaemon(t)
	// enroot has lower, upper and work below the mount point, and requests whiteouts as files.
	enroot := await + `
		FUSE_OVERLAYFS_DISABLE_OVL_WHITEOUT=y $PROG -f -o lowerdir=$R/lower,upperdir=$R/upper,workdir=$R/work $R 2>$R.log &
		pid=$!; await $R $pid
		test ! -e $R/lower; cat $R/a; echo changed >$R/a; rm $R/b; rm -r $R/d; mkdir $R/d; echo new >$R/d/new
		kill $pid; wait $pid
		find $R/upper -mindepth 1 -printf '%P %y\n' | sort | tr '\n' ' '
		test -z "$(find $R/upper -type c)"`
	const enrootWrote = "A.wh.b f a f d d d/new f "
	// apptainer gives a process of a plain user ambient capabilities.
	apptainer := await + `
		$PROG -f -o "allow_other,lowerdir=$R/lower,upperdir=$R/upper,workdir=$R/work,noacl" $R/mnt 2>$R.log &
		pid=$!; await $R/mnt $pid
		cat $R/mnt/a; echo changed >$R/mnt/a; rm $R/mnt/b; rm -r $R/mnt/d; mkdir $R/mnt/d; stat -c '%F' $R/mnt/a $R/upper/b
		umount $R/mnt; wait $pid`
	// benchexec mounts a writable view of the whole system.
	benchexec := `
		$PROG -o lowerdir=/ -o upperdir=$R/upper -o workdir=$R/work $R/mnt
		cmp /etc/passwd $R/mnt/etc/passwd; echo new >$R/mnt/etc/e2e-new; rm $R/mnt/etc/passwd
		chroot $R/mnt /bin/cat /etc/e2e-new
		umount $R/mnt; cat $R/upper/etc/e2e-new; stat -c %F $R/upper/etc/passwd; test -s /etc/passwd; test ! -e /etc/e2e-new`
	// Without the right to chown, only its top can be changed, as with the kernel's overlayfs: the
	// folders below belong to other users, and a copy-up of an object copies up its folders.
	rootless := `
		$PROG -o lowerdir=/ -o upperdir=$R/upper -o workdir=$R/work $R/mnt
		cmp /etc/passwd $R/mnt/etc/passwd; echo new >$R/mnt/new; mkdir $R/mnt/dir; cat $R/mnt/new $R/mnt/$R/lower/b
		umount $R/mnt; ls $R/upper; test ! -e /new`
	const ambient = "--inh-caps +sys_admin,+sys_ptrace,+dac_override --ambient-caps +sys_admin,+sys_ptrace,+dac_override"
	for name, c := range map[string]struct{ prefix, script, want string }{
		"enroot, root": {"unshare -m", enroot, enrootWrote},
		"enroot":       {"as_user unshare -Urm", enroot, enrootWrote},
		"apptainer, setuid": {"unshare -m setpriv --reuid $USER_ID --regid $USER_ID --init-groups " + ambient, apptainer,
			"Aregular file\ncharacter special file\n"},
		"apptainer": {"as_user unshare -Um --map-current-user --keep-caps", apptainer,
			"Aregular file\ncharacter special file\n"},
		"apptainer, fakeroot": {"as_user unshare -Um --map-root-user --map-auto", apptainer,
			"Aregular file\ncharacter special file\n"},
		"benchexec, root": {"unshare -m", benchexec, "new\nnew\ncharacter special file\n"},
		"benchexec":       {"as_user unshare -Urm", rootless, "new\nBdir\nnew\n"},
		"unshare -Urm, as in README": {"as_user unshare -Urm", `
			cd $R; PATH=$(dirname $PROG):$PATH
			fuse-overlay -o lowerdir=lower,upperdir=upper,workdir=work mnt; cat mnt/a; echo x >mnt/b; cat upper/b; umount mnt`, "Ax\n"},
		"fusermount3, as in README": {"as_user env", `
			cd $R; PATH=$(dirname $PROG):$PATH
			fuse-overlay -o lowerdir=lower,upperdir=upper,workdir=work mnt; cat mnt/a; echo x >mnt/b; cat upper/b; fusermount3 -u mnt`, "Ax\n"},
	} {
		t.Run(name, func(t *testing.T) {
			e := harness.NewEnv(t, harness.ModeRoot)
			root := filepath.Join(e.Dir, "root")
			harness.Mkdir(t, root+"/lower", root+"/upper", root+"/work", root+"/mnt")
			harness.Build(t, e, root+"/lower", "file a \"A\"\nfile b \"B\"\nfile d/x \"x\"")
			if strings.Contains(c.prefix, "USER") || strings.Contains(c.prefix, "as_user") {
				harness.Shell(t, "", "chown -R "+harness.PlainUser.Name+": "+root)
			}
			harness.Check(t, os.Chmod(e.Dir, 0o777)) // for the log
			harness.Check(t, os.WriteFile(e.Dir+"/script", []byte(c.script), 0o644))
			out, err := harness.RunIn("/", []string{"R=" + root, "PROG=" + harness.Program, "USER_ID=" +
				harness.PlainUser.Name}, time.Minute,
				"bash", "-euc", asUser+c.prefix+" bash -eu "+e.Dir+"/script")
			if err != nil || out != c.want {
				t.Errorf("%v: got %q, want %q", err, out, c.want)
			}
			if m, ok := harness.MountAt(root + "/mnt"); ok {
				t.Errorf("still mounted: %v", m)
				harness.Check(t, unix.Unmount(m.Point, unix.MNT_DETACH))
			}
			harness.WantNothingRuns(t, root)
		})
	}
}
