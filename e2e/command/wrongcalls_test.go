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

// wrongCall is a command line that a user may type and that mounts nothing. The message is one line
// with each word of want. It names the wrong argument, and the remedy if that does not follow from
// the reason.
type wrongCall struct {
	line  string
	want  []string
	modes []harness.Mode // nil: all
}

func wrong(line string, want ...string) wrongCall { return wrongCall{line: line, want: want} }

func (c wrongCall) as(modes ...harness.Mode) wrongCall {
	c.modes = modes
	return c
}

const (
	needsO     = "options are given by -o"
	separators = `layers are separated by ":", and a comma in a name is "\,"`
)

// The folder of each call has the layers l and l2, an upper u, a work directory w and a mount point
// m. It also has the folders a:b, c,d and u/in, a file, and the links dangling and loop.
var wrongCalls = []wrongCall{
	// Missing arguments.
	wrong(`fuse-overlay`, "no mount point given", "--help"),
	wrong(`fuse-overlay m`, "no lower layer given", "-o lowerdir=DIR[:DIR]..."),
	wrong(`fuse-overlay -o lowerdir=l`, "no mount point given"),
	wrong(`fuse-overlay -o lowerdir=l ''`, "mount point is an empty string"),
	wrong(`fuse-overlay m -o`, "-o needs a value after it"),
	wrong(`fuse-overlay -o upperdir=u,workdir=w m`, "no lower layer given"),
	wrong(`fuse-overlay -o lowerdir=l,upperdir=u m`, "upperdir=u needs a workdir="),
	wrong(`fuse-overlay -o lowerdir=l,workdir=w m`, "workdir=w", "upperdir="),
	wrong(`fuse-overlay -o lowerdir m`, "option lowerdir needs a value", "lowerdir=DIR"),
	wrong(`fuse-overlay -o lowerdir= m`, "option lowerdir needs a value"),
	wrong(`fuse-overlay -o datadir+=l m`, "data-only layers need another lower layer", "lowerdir+="),

	// Arguments in the wrong place.
	wrong(`fuse-overlay lowerdir=l m`, "no lower layer given", `"lowerdir=l" is an option without -o`),
	wrong(`fuse-overlay lowerdir=l,upperdir=u,workdir=w m`, "is an option without -o"),
	wrong(`fuse-overlay -o lowerdir=l upperdir=u workdir=w m`, `"upperdir=u" is an option without -o`),
	wrong(`fuse-overlay -o lowerdir=l,upperdir=u workdir=w m`, `"workdir=w" is an option without -o`),
	wrong(`fuse-overlay l u w m`, "more than a source and a mount point", `"w"`),
	wrong(`fuse-overlay --lowerdir=l m`, `"--lowerdir=l"`, needsO, "-o lowerdir=l"),
	wrong(`fuse-overlay --lowerdir l m`, `"--lowerdir"`, needsO, "-o lowerdir=DIR"),
	wrong(`fuse-overlay -lowerdir=l m`, `"-lowerdir=l"`, "-o lowerdir=l"),
	wrong(`fuse-overlay --volatile -o lowerdir=l m`, "-o volatile"),
	wrong(`fuse-overlay -ro -o lowerdir=l m`, "-o ro"),
	wrong(`fuse-overlay -t overlay overlay -o lowerdir=l m`, `"-t"`, needsO),
	wrong(`fuse-overlay -x -o lowerdir=l m`, `unknown flag "-x"`, needsO, "--help"),
	wrong(`fuse-overlay -r -o lowerdir=l m`, `unknown flag "-r"`, needsO),
	wrong(`fuse-overlay --debug=1 -o lowerdir=l m`, "--debug takes no value"),
	wrong(`fuse-overlay --forground -o lowerdir=l m`, `"--forground"`, "--foreground"),
	wrong(`fuse-overlay --vesion`, "--version"),

	// Separators.
	wrong(`fuse-overlay -o lowerdir=l,l2 m`, `unknown option "l2"`, separators),
	wrong(`fuse-overlay -o lowerdir=a,b m`, `unknown option "b"`, separators),
	wrong(`fuse-overlay -o lowerdir=c,d m`, `unknown option "d"`, separators),
	wrong(`fuse-overlay -o lowerdir=a,b,e m`, `unknown options "b", "e"`, separators),
	wrong(`fuse-overlay -o 'lowerdir=l l2' m`, `lowerdir "l l2": no such file`),
	wrong(`fuse-overlay -o lowerdir=a:b m`, `lowerdir "a": no such file`, `a\:b`),
	wrong(`fuse-overlay -o lowerdir=l:a:b m`, `lowerdir "a": no such file`, `a\:b`),
	wrong(`fuse-overlay -o lowerdir=$PWD/a:b m`, `/a": no such file`, `/a\:b`),
	wrong(`fuse-overlay -o lowerdir=l: m`, "ends with a colon"),
	wrong(`fuse-overlay -o lowerdir=:l m`, "begins with a colon"),
	wrong(`fuse-overlay -o lowerdir=l:::l2 m`, "'::'"),
	wrong(`fuse-overlay -o lowerdir=l::l2:a m`, "cannot follow data layers"),
	wrong(`fuse-overlay -o lowerdir=l,lowerdir+=l2 m`, "cannot follow lowerdir"),
	wrong(`fuse-overlay -o 'lowerdir=l, upperdir=u' m`, `" upperdir"`, `nearest known one is "upperdir"`),

	// Names of options.
	wrong(`fuse-overlay -o lowerdri=l m`, `"lowerdri"`, `"lowerdir"`),
	wrong(`fuse-overlay -o lower=l m`, `"lower"`, `"lowerdir"`),
	wrong(`fuse-overlay -o LOWERDIR=l m`, `"LOWERDIR"`, `"lowerdir"`),
	wrong(`fuse-overlay -o lowerdir=l,volatil m`, `"volatil"`, `"volatile"`),
	wrong(`fuse-overlay -o lowerdir=l,volatil,wrietback=1,b m`, `"volatil"`, `"volatile"`, `"wrietback"`, `"writeback"`,
		`"b"`),
	wrong(`fuse-overlay -o lowerdir=l,frobnicate=1 m`, `unknown option "frobnicate"`, "--help"),
	wrong(`fuse-overlay -o lowerdir=l,rwx m`, `"rwx"`, `"rw"`),
	wrong(`fuse-overlay -o lowerdir=l,$(printf %0100000d 0) m`, `unknown option "0000`, `..."`),

	// Values.
	wrong(`fuse-overlay -o lowerdir=l,timeout=soon m`, "timeout", `"soon"`, "seconds"),
	wrong(`fuse-overlay -o lowerdir=l,timeout=$(printf %0100000d 0)x m`, "timeout", `..."`),
	wrong(`fuse-overlay -o lowerdir=l,max_write=1M m`, "max_write", "bytes"),
	wrong(`fuse-overlay -o lowerdir=l,cache_inodes=many m`, "cache_inodes", "inodes"),
	wrong(`fuse-overlay -o lowerdir=l,volatile=1 m`, "volatile takes no value"),
	wrong(`fuse-overlay -o lowerdir=l,fsync=no m`, "fsync", "neither 0 nor 1"),
	wrong(`fuse-overlay -o lowerdir=l,index m`, "index=on|off"),
	wrong(`fuse-overlay -o lowerdir=l,redirect_dir=1 m`, "redirect_dir", "on, off, follow and nofollow"),
	wrong(`fuse-overlay -o lowerdir=l,io=direct m`, "io", "auto, cached and passthrough"),
	wrong(`fuse-overlay -o lowerdir=l,uidmapping=1000 m`, "uidmapping", "DISK:SHOWN:LENGTH"),
	wrong(`fuse-overlay -o lowerdir=l,squash_to_uid=root m`, "squash_to_uid", `"root"`),
	wrong(`fuse-overlay -o lowerdir=l,log=none/log m`, "none/log", "no such file"),
	wrong(`fuse-overlay -o lowerdir=l,remount,ro m`, "no mount of this program"),
	wrong(`fuse-overlay -o lowerdir=l,nfs_export=on m`, "nfs_export"),
	wrong(`fuse-overlay -o lowerdir=l,userxattr,metacopy=on m`, "userxattr,metacopy=on"),
	wrong(`fuse-overlay -o lowerdir=l,noxattrs,index=on,upperdir=u,workdir=w m`, "noxattrs,index=on"),
	wrong(`fuse-overlay -o lowerdir=l,io=passthrough,writeback=1 m`, "io=passthrough", "writeback=1"),

	// Directories.
	wrong(`fuse-overlay -o lowerdir=none m`, `lowerdir "none": no such file`),
	wrong(`fuse-overlay -o lowerdir=l:l2:none m`, `lowerdir "none": no such file`),
	wrong(`fuse-overlay -o lowerdir=file m`, `lowerdir "file": not a directory`),
	wrong(`fuse-overlay -o lowerdir=dangling m`, `lowerdir "dangling": no such file`),
	wrong(`fuse-overlay -o lowerdir=loop m`, `lowerdir "loop": too many levels`),
	wrong(`fuse-overlay -o lowerdir=$(printf %05000d 0) m`, "name too long"),
	wrong(`fuse-overlay -o lowerdir=l,upperdir=none,workdir=w m`, `upperdir "none": no such file`),
	wrong(`fuse-overlay -o lowerdir=l,upperdir=file,workdir=w m`, `upperdir "file": not a directory`),
	wrong(`fuse-overlay -o lowerdir=l,upperdir=u,workdir=none/w m`, `workdir "none/w": no such file`),
	wrong(`fuse-overlay -o lowerdir=l,upperdir=u,workdir=file m`, `workdir "file"`),
	wrong(`fuse-overlay -o lowerdir=l,upperdir=u,workdir=u m`, `workdir "u": is the upperdir`, "another directory"),
	wrong(`fuse-overlay -o lowerdir=l,upperdir=u,workdir=u/in m`, `workdir "u/in": lies inside the upperdir "u"`),
	wrong(`fuse-overlay -o lowerdir=l,upperdir=u/in,workdir=u m`, `workdir "u": holds the upperdir "u/in"`),
	wrong(`fuse-overlay -o lowerdir=u/in,upperdir=u,workdir=w m`, `lowerdir "u/in"`, `lies inside the upperdir "u"`),
	wrong(`fuse-overlay -o lowerdir=l,upperdir=u,workdir=l2 m`, `workdir "l2"`, "is not empty"),
	wrong(`fuse-overlay -o lowerdir=l,upperdir=u,workdir=/dev/shm m`, `workdir "/dev/shm"`, "same mount", "upperdir"),
	wrong(`fuse-overlay -o lowerdir=/root/none m`, `lowerdir "/root/none": permission denied`).as(harness.ModeUserns,
		harness.ModeFusermount),

	// The mount point.
	wrong(`fuse-overlay -o lowerdir=l none`, `mount point "none": no such file`),
	wrong(`fuse-overlay -o lowerdir=l file`, `mount point "file": not a directory`),
	wrong(`fuse-overlay -o lowerdir=l dangling`, `mount point "dangling": no such file`),
	wrong(`fuse-overlay -o lowerdir=l /dev/fd/77`, `"/dev/fd/77"`, "bad file descriptor"),
	wrong(`fuse-overlay -o lowerdir=l /dev/fd/5 5</dev/null`, `"/dev/fd/5": not an open /dev/fuse`),
	wrong(`fuse-overlay -o lowerdir=l /usr`, `mount point "/usr"`).as(harness.ModeFusermount),

	// The machine.
	wrong(`ulimit -n 12; fuse-overlay -o lowerdir=l m`, "ulimit -n"),
	wrong(`mount -t tmpfs none w; mkdir w/u w/w; mount -o remount,ro w; fuse-overlay -o lowerdir=l,upperdir=w/u,workdir=w/w m; c=$?; umount w; exit $c`,
		"read-only file system", "leave out upperdir and workdir").as(harness.ModeRoot, harness.ModeUserns),
	wrong(`fuse-overlay -o lowerdir=l,allow_other m`, "user_allow_other", "/etc/fuse.conf").as(harness.ModeFusermount),
}

// For wrong command lines the exit code is 1, and one line names the argument and the reason.
// Nothing is mounted or changed, and no process is left.
func TestWrongCalls(t *testing.T) {
	harness.NeedDaemon(t)
	if len(wrongCalls) < 60 {
		t.Errorf("%d calls only", len(wrongCalls))
	}
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		harness.Mkdir(t, e.Dir+"/bin")
		for i, c := range wrongCalls {
			if c.modes != nil && !slices.Contains(c.modes, e.Mode) {
				continue
			}
			dir := filepath.Join(e.Dir, fmt.Sprint(i))
			for _, d := range []string{"l", "l2", "u/in", "w", "m", "a:b", "c,d"} {
				harness.Mkdir(t, filepath.Join(dir, d))
			}
			harness.Write(t, dir+"/file", "x")
			harness.Write(t, dir+"/l2/g", "x")
			harness.Check(t, os.Symlink("nowhere", dir+"/dangling"))
			harness.Check(t, os.Symlink("loop", dir+"/loop"))
			c.try(t, dir)
		}
	})
}

func (c wrongCall) try(t *testing.T, dir string) {
	t.Helper()
	before, err := harness.Snapshot(dir, harness.View{})
	harness.Check(t, err)
	daemons := len(harness.ProcessesOf(harness.Program))
	environ := []string{"PATH=" + filepath.Dir(harness.Program) + ":" + os.Getenv("PATH")}
	out, err := harness.RunIn(dir, environ, harness.CommandLimit, "bash", "-c", c.line)
	line := harness.Brief(c.line)
	if harness.ExitCode(err) != 1 {
		t.Errorf("%s: exit %d (%v), want 1", line, harness.ExitCode(err), err)
	}
	text, ended := strings.CutSuffix(out, "\n")
	if !ended || strings.Contains(text, "\n") || !strings.HasPrefix(text, "fuse-overlay: ") || len(text) > 1300 {
		t.Errorf("%s: wrote %.2000q, want one line of the program", line, out)
	}
	for _, want := range c.want {
		if !strings.Contains(text, want) {
			t.Errorf("%s\n wrote %.2000s\n lacks %s", line, text, want)
		}
	}
	for _, m := range harness.MountTable() {
		if strings.HasPrefix(m.Point, dir+"/") {
			t.Errorf("%s: %s is mounted", line, m.Point)
		}
	}
	if !harness.Eventually(2*time.Second, func() bool { return len(harness.ProcessesOf(harness.Program)) <= daemons }) {
		t.Errorf("%s: processes are left: %v", line, harness.ProcessesOf(harness.Program))
	}
	after, err := harness.Snapshot(dir, harness.View{})
	harness.Check(t, err)
	if diff := harness.DiffLines(before, after); diff != "" {
		t.Errorf("%s: changed\n%s", line, diff)
	}
}

// If users may not open the device, the message names the device, not the mount point.
func TestDeviceThatUsersMayNotOpen(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		harness.Mkdir(t, e.Dir+"/dev", e.Dir+"/l", e.Dir+"/m")
		harness.Check(t, os.Chown(e.Dir+"/m", harness.PlainUser.UID, harness.PlainUser.GID))
		script := fmt.Sprintf(`mount -t tmpfs none dev; mknod -m 600 dev/fuse c 10 229; mount --bind dev/fuse /dev/fuse
			exec setpriv --reuid %d --regid %d --clear-groups %s -o lowerdir=l m`, harness.PlainUser.UID, harness.PlainUser.GID, harness.Program)
		out, err := harness.RunIn(e.Dir, nil, harness.CommandLimit, "unshare", "-m", "sh", "-ec", script)
		want := "fuse-overlay: cannot open /dev/fuse: permission denied (its mode usually lets all users in: chmod 666 /dev/fuse)\n"
		if harness.ExitCode(err) != 1 || out != want {
			t.Errorf("%v: wrote %q, want %q", err, out, want)
		}
	})
}

// Under the name fuse-overlayfs the program mounts with options that fuse-overlayfs ignores. It
// prints the same warnings.
func TestCompatibleCallsMount(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, `file f "x"`)
		name := filepath.Join(e.Dir, "fuse-overlayfs")
		harness.Check(t, os.Symlink(harness.Program, name))
		ignored := []string{"sync=0", "dev=0", "noacl=1", "volatile=1", "metacopy=1", "nfs_export=on", "timeout=x"}
		out, err := harness.Run(name, "-o", o.Lowerdir()+","+strings.Join(ignored, ","), o.Point)
		o.Guard()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		want := ""
		for _, i := range ignored {
			want += "unknown argument ignored: " + i + "\n"
		}
		harness.Equal(t, "what it wrote", out, want)
		harness.WantText(t, o.Path("f"), "x")
		o.Unmount()
	})
}
