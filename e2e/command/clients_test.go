package command

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// clientLine is a command line of a client, literally but for the folders, and the way in which the
// client runs it. S is the storage of the client, ID the folder of the mounted layer, PROG the
// program under its own name. Names without a folder are found in PATH.
type clientLine struct {
	line string
	cwd  string // "" is S
	// oneStream: fd 1 and 2 are one pipe. Otherwise fd 1 is /dev/null and fd 2 a pipe. Each is read to
	// its end.
	oneStream bool
	kind      string // of the mount, after "fuse."
	owner     string // that the merged tree shows of what root owns in the layers; "" is root
	merged    string // a table, "nothing" or "/" of the machine; "" is what both lowers hold
}

const (
	// upperWork is the part of the options in which containers/storage names upper and work directory.
	upperWork = "upperdir=S/overlay/ID/diff,workdir=S/overlay/ID/work"
	lowersOf  = "lowerdir=S/overlay/l/AAA:S/overlay/l/BBB"
	// lowersAndUpper are the options in the order of containerd.
	workUpperLower = "workdir=S/overlay/ID/work,upperdir=S/overlay/ID/diff,lowerdir=S/overlay/l/AAA:S/overlay/l/BBB"
)

// clientLines are the command lines that each client was observed to use.
var clientLines = map[string]clientLine{
	"podman": {line: "PROG -o " + lowersOf + "," + upperWork + ",,volatile S/overlay/ID/merged",
		cwd: "S/overlay"},
	"podman, short lowers": {line: "PROG -o lowerdir=l/AAA:l/BBB," + upperWork + ",,volatile S/overlay/ID/merged",
		cwd: "S/overlay"},
	"buildah, empty last": {line: "PROG -o " + lowersOf + "," + upperWork + ", S/overlay/ID/merged",
		cwd: "S/overlay"},
	"podman, read-only": {line: "PROG -o lowerdir=S/overlay/one/diff:S/overlay/l/BBB S/overlay/ID/merged",
		cwd: "S/overlay"},
	"podman, base image": {line: "PROG -o lowerdir=S/overlay/two/diff:S/overlay/ID/empty S/overlay/ID/merged",
		cwd: "S/overlay", merged: "file b \"B\""},
	"podman, nothing but this": {line: "PROG -o lowerdir=S/overlay/ID/empty," + upperWork + ", S/overlay/ID/merged",
		cwd: "S/overlay", merged: "nothing"},
	"podman, fsync=0": {line: "PROG -o " + lowersOf + "," + upperWork + ",,fsync=0,volatile S/overlay/ID/merged",
		cwd: "S/overlay"},
	"podman, noacl": {line: "PROG -o " + lowersOf + "," + upperWork + ",,noacl,volatile S/overlay/ID/merged",
		cwd: "S/overlay"},
	"podman, userns": {line: "PROG -o " + lowersOf + "," + upperWork +
		",,volatile,uidmapping=:0:200000:65536,gidmapping=:0:200000:65536 S/overlay/ID/merged",
		cwd: "S/overlay", owner: "200000:200000"},
	"podman, userns, two ranges": {line: "PROG -o " + lowersOf + "," + upperWork +
		",uidmapping=:0:1000:1:1:100000:65536,gidmapping=:0:1000:1:1:100000:65536 S/overlay/ID/merged",
		cwd: "S/overlay", owner: "1000:1000"},
	"podman, keep-id": {line: "PROG -o " + lowersOf + "," + upperWork +
		",,volatile,uidmapping=:0:1:1001:1001:0:1:1002:1002:64535,gidmapping=:0:1:1001:1001:0:1:1002:1002:64535 S/overlay/ID/merged",
		cwd: "S/overlay", owner: "1:1"},
	"podman, force_mask": {line: "PROG -o " + lowersOf + "," + upperWork +
		",,volatile,xattr_permissions=2 S/overlay/ID/merged", cwd: "S/overlay"},
	"podman, SELinux": {line: "PROG -o " + lowersOf + "," + upperWork +
		`,volatile,'context="system_u:object_r:container_file_t:s0:c1,c2"' S/overlay/ID/merged`,
		cwd: "S/overlay"},
	"podman, volume :O": {line: "PROG -o 'lowerdir=S/with\\:colon,upperdir=S/overlay/ID/diff,workdir=S/overlay/ID/work,private' S/overlay/ID/merged",
		cwd: "S/overlay", merged: "file c \"C\""},
	"podman, volume :O, SELinux": {line: "PROG -o 'lowerdir=S/with\\:colon,upperdir=S/overlay/ID/diff,workdir=S/overlay/ID/work,private,context=\"a_u:b_r:c_t:s0:c1,c2\"' S/overlay/ID/merged",
		cwd: "S/overlay", merged: "file c \"C\""},
	"podman 5":        {line: "PROG -o " + lowersOf + "," + upperWork + ",volatile S/overlay/ID/merged", cwd: "S/overlay"},
	"podman 5, build": {line: "PROG -o " + lowersOf + "," + upperWork + " S/overlay/ID/merged", cwd: "S/overlay"},
	"podman 5, userns": {line: "PROG -o " + lowersOf + "," + upperWork +
		",volatile,uidmapping=:0:200000:65536,gidmapping=:0:200000:65536 S/overlay/ID/merged",
		cwd: "S/overlay", owner: "200000:200000"},
	"podman 5, same ids": {line: "PROG -o " + lowersOf + "," + upperWork +
		",volatile,uidmapping=:0:0:65536,gidmapping=:0:0:65536 S/overlay/ID/merged", cwd: "S/overlay"},
	"podman 5, keep-id": {line: "PROG -o " + lowersOf + "," + upperWork +
		",volatile,uidmapping=:0:1:1001:1001:0:1:1002:1002:64535,gidmapping=:0:1:1001:1001:0:1:1002:1002:64535 S/overlay/ID/merged",
		cwd: "S/overlay", owner: "1:1"},
	"podman 5, force_mask": {line: "PROG -o " + lowersOf + "," + upperWork +
		",volatile,xattr_permissions=2 S/overlay/ID/merged", cwd: "S/overlay"},
	"podman 5, force_mask, read-only": {line: "PROG -o lowerdir=S/overlay/one/diff:S/overlay/l/BBB,xattr_permissions=2 S/overlay/ID/merged",
		cwd: "S/overlay"},
	"podman 5, image as a volume": {line: "PROG -o lowerdir=S/overlay/one/diff:S/overlay/l/BBB,private S/overlay/ID/merged",
		cwd: "S/overlay"},
	"docker": {line: "fuse-overlayfs -o " + lowersOf + "," + upperWork + " S/overlay/ID/merged",
		cwd: "S/overlay", kind: "fuse-overlayfs"},
	"docker, read-only": {line: "fuse-overlayfs -o " + lowersOf + " S/overlay/ID/merged", cwd: "S/overlay",
		kind: "fuse-overlayfs"},
	"containerd": {line: "mount.fuse3 overlay S/overlay/ID/merged -o workdir=S/overlay/ID/work -o upperdir=S/overlay/ID/diff -o " + lowersOf + " -t fuse-overlayfs",
		oneStream: true, kind: "fuse-overlayfs"},
	"containerd, the shell of mount.fuse3": {line: "/bin/sh -c \"'fuse-overlayfs' 'overlay' 'S/overlay/ID/merged' '-o' '" + workUpperLower + ",dev,suid'\"",
		oneStream: true, kind: "fuse-overlayfs"},
	"containerd, the probe": {line: "fuse-overlayfs overlay S/overlay/ID/merged -o " + lowersOf + ",dev,suid",
		oneStream: true, kind: "fuse-overlayfs"},
	"containerd, userns": {line: "fuse-overlayfs overlay S/overlay/ID/merged -o " + workUpperLower +
		",uidmapping=0:200000:65536,gidmapping=0:200000:65536,dev,suid",
		oneStream: true, kind: "fuse-overlayfs", owner: "200000:200000"},
	"containerd, a view": {line: "fuse-overlayfs overlay S/overlay/ID/merged -o " + workUpperLower +
		",ro,dev,suid", oneStream: true, kind: "fuse-overlayfs"},
	"BuildKit, one lower": {line: "fuse-overlayfs overlay S/overlay/ID/merged -o workdir=S/overlay/ID/work,upperdir=S/overlay/ID/diff,lowerdir=S/overlay/l/BBB,dev,suid",
		oneStream: true, kind: "fuse-overlayfs", merged: "file b \"B\""},
	"mount(8)": {line: "fuse-overlayfs overlay S/overlay/ID/merged -o rw," + lowersOf + "," +
		upperWork + ",dev,suid", kind: "fuse-overlayfs"},
	"mount(8), restrictions": {line: "fuse-overlayfs overlay S/overlay/ID/merged -o rw,nosuid,nodev,noatime," +
		lowersOf + "," + upperWork, kind: "fuse-overlayfs"},
	"mount -r": {line: "fuse-overlayfs overlay S/overlay/ID/merged -o ro," + lowersOf + ",dev,suid",
		kind: "fuse-overlayfs"},
	"fstab, user":                {line: "fuse-overlayfs overlay S/overlay/ID/merged -o rw,noexec,nosuid,nodev,allow_other," + lowersOf, kind: "fuse-overlayfs"},
	"fstab, the words that stay": {line: "fuse-overlay S/overlay/ID/merged -o rw,dev,suid,exec,relatime,diratime,nofail,_netdev,x-systemd.automount,fsname=src," + lowersOf},
	"squashing": {line: "fuse-overlay S/overlay/ID/merged -o " + lowersOf +
		",squash_to_uid=7,squash_to_gid=8," + upperWork, owner: "7:8"},
	"squashing to root":       {line: "fuse-overlay S/overlay/ID/merged -o " + lowersOf + ",squash_to_root," + upperWork},
	"own name, options after": {line: "fuse-overlay S/overlay/ID/merged -o " + lowersOf + " -o " + upperWork},
	"lowerdir+": {line: "fuse-overlay -o lowerdir+=S/overlay/l/AAA,lowerdir+=S/overlay/l/BBB," + upperWork +
		" S/overlay/ID/merged"},
	"benchexec": {line: "fuse-overlayfs -o lowerdir=/ -o upperdir=S/overlay/ID/diff -o workdir=S/overlay/ID/work S/overlay/ID/merged",
		kind: "fuse-overlayfs", merged: "/"},
}

// clientStore makes the storage of a client: short links to layers, a layer to mount, a folder with
// a colon in its name.
func clientStore(t *testing.T, e *harness.Env) *harness.Overlay {
	t.Helper()
	o := e.Overlay(t)
	store := e.Dir + "/overlay"
	for _, id := range []string{"one", "two", "id"} {
		harness.Mkdir(t, store+"/"+id+"/diff", store+"/"+id+"/work", store+"/"+id+"/merged", store+"/"+id+"/empty")
	}
	harness.Mkdir(t, store+"/l", e.Dir+"/with:colon", e.Dir+"/bin")
	harness.Check(t, os.Symlink("../one/diff", store+"/l/AAA"))
	harness.Check(t, os.Symlink("../two/diff", store+"/l/BBB"))
	harness.Check(t, os.Symlink(harness.Program, e.Dir+"/bin/fuse-overlayfs"))
	harness.Build(t, e, store+"/one/diff", "file a \"A\"")
	harness.Build(t, e, store+"/two/diff", "file b \"B\"")
	harness.Build(t, e, e.Dir+"/with:colon", "file c \"C\"")
	o.Upper, o.Work, o.Point = store+"/id/diff", store+"/id/work", store+"/id/merged"
	return o
}

// run runs the line as its client does, and returns the output to its end.
func (c clientLine) run(o *harness.Overlay) (string, error) {
	o.T.Helper()
	store := o.Env.Dir
	words := strings.NewReplacer("S/overlay/ID", store+"/overlay/id", "S/", store+"/", "PROG", harness.Program)
	ctx, cancel := context.WithTimeout(o.T.Context(), harness.CommandLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", "exec "+words.Replace(c.line))
	cmd.Dir, cmd.WaitDelay = store, 3*time.Second
	if c.cwd != "" {
		cmd.Dir = words.Replace(c.cwd)
	}
	cmd.Env = append(os.Environ(), "PATH="+store+"/bin:"+filepath.Dir(harness.Program)+":"+os.Getenv("PATH"))
	var out strings.Builder
	cmd.Stderr = &out
	if c.oneStream {
		cmd.Stdout = &out
	}
	err := cmd.Run() // an error if the daemon keeps the pipe open
	return out.String(), err
}

// For the command line of each client the mount exists when the program returns. The program writes
// nothing, and the daemon holds nothing of the client.
func TestCommandLinesOfClients(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.RootModes, func(t *testing.T, e *harness.Env) {
		for name, c := range clientLines {
			if e.Mode == harness.ModeUserns && strings.Contains(c.owner, "00000") {
				continue // an id that this namespace does not have
			}
			t.Run(name, func(t *testing.T) {
				o := clientStore(t, harness.NewEnv(t, e.Mode))
				o.Guard()
				out, err := c.run(o)
				m, mounted := harness.MountAt(o.Point)
				if err != nil || !mounted {
					t.Fatalf("%s\n%v, mounted %v: %s", c.line, err, mounted, out)
				}
				o.Minor = m.Minor
				harness.Equal(t, "written", out, "")
				if c.kind == "" {
					c.kind = "fuse-overlay"
				}
				harness.Equal(t, "type", m.Kind, "fuse."+c.kind)
				if pids := harness.DaemonsOf(o.Point); len(pids) == 1 {
					o.PID = pids[0]
				} else {
					t.Fatalf("daemons: %v", pids)
				}
				harness.WantDetached(t, o.PID)
				wantClientTree(t, o, c.merged)
				st := harness.Lstat(t, o.Point)
				if owner := fmt.Sprintf("%d:%d", st.Uid, st.Gid); c.merged != "/" && owner != cmp.Or(c.owner, "0:0") {
					t.Errorf("root of the layers is shown as %s, want %q", owner, c.owner)
				}
				var werr error
				harness.As(t, int(st.Uid), int(st.Gid), func() { werr = os.WriteFile(o.Path("new"), nil, 0o644) })
				if ro := !strings.Contains(c.line, "upperdir") || strings.Contains(c.line, ",ro,"); ro == (werr == nil) {
					t.Errorf("read-only %v, but writing: %v", ro, werr)
				}
				var fs unix.Statfs_t
				harness.Check(t, unix.Statfs(o.Point, &fs))
				harness.Equal(t, "magic", fs.Type, 0x65735546) // containers/storage looks for it
				// containers/storage unmounts by fusermount3, or lazily after a sync.
				if strings.HasPrefix(name, "podman") {
					out, err := harness.Run("fusermount3", "-u", o.Point)
					if err != nil || o.IsMounted() {
						t.Errorf("fusermount3 -u: %v, mounted %v: %s", err, o.IsMounted(), out)
					}
					o.WaitEnd()
					return
				}
				dir := harness.Open(t, o.Point, os.O_RDONLY)
				harness.Check(t, unix.Syncfs(int(dir.Fd())))
				harness.Check(t, unix.Unmount(o.Point, unix.MNT_DETACH))
				harness.Check(t, dir.Close())
				o.WaitEnd()
			})
		}
	})
}

func wantClientTree(t *testing.T, o *harness.Overlay, merged string) {
	t.Helper()
	switch merged {
	case "":
		harness.WantTree(t, "merged", o.Point, "file a \"A\"\nfile b \"B\"")
	case "nothing":
		harness.WantNames(t, o.Point)
	case "/":
		harness.WantText(t, o.Path("etc/passwd"), harness.ReadText(t, "/etc/passwd"))
	default:
		harness.WantTree(t, "merged", o.Point, merged)
	}
}

// After a failure a client gets an exit code and the reason, and nothing is left behind.
func TestFailuresAreToldToClients(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.RootModes, func(t *testing.T, e *harness.Env) {
		for name, c := range clientLines {
			if c.merged != "" || strings.Contains(c.line, "+=") {
				continue // no lower by the name that is changed here
			}
			t.Run(name, func(t *testing.T) {
				o := clientStore(t, harness.NewEnv(t, e.Mode))
				harness.Check(t, os.Remove(o.Env.Dir+"/overlay/l/BBB"))
				out, err := c.run(o)
				if harness.ExitCode(err) < 1 {
					t.Errorf("%s\nended with %v", c.line, err)
				}
				if !strings.Contains(out, "l/BBB") || !strings.Contains(out, "no such file or directory") ||
					strings.Count(out, "\n") != 1 {
					t.Errorf("the program wrote %q", out)
				}
				if o.IsMounted() {
					t.Error("something is mounted")
				}
				if pids := harness.DaemonsOf(o.Point); len(pids) > 0 {
					t.Errorf("left behind: %v", pids)
				}
			})
		}
	})
}

// An unknown or obsolete option is only a warning under the name fuse-overlayfs.
func TestUnknownOptionsOfClients(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.RootModes, func(t *testing.T, e *harness.Env) {
		o := clientStore(t, e)
		o.Guard()
		c := clientLine{line: "fuse-overlayfs -o " + lowersOf + ",future_option=1," + upperWork + " S/overlay/ID/merged"}
		out, err := c.run(o)
		harness.Check(t, err)
		harness.Equal(t, "written", out, "unknown argument ignored: future_option=1\n")
		wantClientTree(t, o, "")
		for _, pid := range harness.DaemonsOf(o.Point) {
			o.PID = pid
		}
		o.Unmount()
	})
}
