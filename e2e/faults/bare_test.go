package faults

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// Uppers on file systems without xattrs, device nodes or RENAME_EXCHANGE, such as NFS. Not every
// machine has one, so a FUSE server shows a folder and refuses these.

// envBare is set for the process that serves such a file system, see serveBare.
const envBare = "FUSE_OVERLAY_E2E_BARE"

// bareNode is an object of such a file system.
type bareNode struct {
	*gofs.LoopbackNode
	can abilities
}

// abilities are the features that a file system has.
type abilities struct{ xattrs, nodes, exchange bool }

func (n *bareNode) WrapChild(_ context.Context, ops gofs.InodeEmbedder) gofs.InodeEmbedder {
	return &bareNode{ops.(*gofs.LoopbackNode), n.can}
}

func (n *bareNode) Mknod(ctx context.Context, name string, mode, rdev uint32, out *fuse.EntryOut) (*gofs.Inode,
	syscall.Errno) {
	if kind := mode & unix.S_IFMT; !n.can.nodes && (kind == unix.S_IFCHR || kind == unix.S_IFBLK) {
		return nil, syscall.EPERM
	}
	return n.LoopbackNode.Mknod(ctx, name, mode, rdev, out)
}

// Open fails for files whose names begin with sick, as on a disk that cannot be read.
func (n *bareNode) Open(ctx context.Context, flags uint32) (gofs.FileHandle, uint32, syscall.Errno) {
	if name, _ := n.Parent(); strings.HasPrefix(name, "sick") && flags&unix.O_ACCMODE == unix.O_RDONLY {
		return nil, 0, syscall.EIO
	}
	return n.LoopbackNode.Open(ctx, flags)
}

func (n *bareNode) Rename(ctx context.Context, name string, to gofs.InodeEmbedder, newName string,
	flags uint32) syscall.Errno {
	if !n.can.exchange && flags != 0 {
		return syscall.EINVAL
	}
	return n.LoopbackNode.Rename(ctx, name, to, newName, flags)
}

func (n *bareNode) Getxattr(ctx context.Context, attr string, dest []byte) (uint32, syscall.Errno) {
	if !n.can.xattrs {
		return 0, syscall.EOPNOTSUPP
	}
	return n.LoopbackNode.Getxattr(ctx, attr, dest)
}

func (n *bareNode) Setxattr(ctx context.Context, attr string, data []byte, flags uint32) syscall.Errno {
	if !n.can.xattrs {
		return syscall.EOPNOTSUPP
	}
	return n.LoopbackNode.Setxattr(ctx, attr, data, flags)
}

func (n *bareNode) Removexattr(ctx context.Context, attr string) syscall.Errno {
	if !n.can.xattrs {
		return syscall.EOPNOTSUPP
	}
	return n.LoopbackNode.Removexattr(ctx, attr)
}

func (n *bareNode) Listxattr(ctx context.Context, dest []byte) (uint32, syscall.Errno) {
	if !n.can.xattrs {
		return 0, syscall.EOPNOTSUPP
	}
	return n.LoopbackNode.Listxattr(ctx, dest)
}

// serveBare is the role of a process that serves such a file system. A process that works in the
// mount cannot do so: it would wait for itself.
func serveBare(words string) error {
	var folder, mnt string
	var can abilities
	if _, err := fmt.Sscan(words, &folder, &mnt, &can.xattrs, &can.nodes, &can.exchange); err != nil {
		return err
	}
	root, err := gofs.NewLoopbackRoot(folder)
	if err != nil {
		return err
	}
	privileged := os.Geteuid() == 0
	server, err := gofs.Mount(mnt, &bareNode{root.(*gofs.LoopbackNode), can},
		&gofs.Options{MountOptions: fuse.MountOptions{
			FsName: "bare", Name: "bare", AllowOther: privileged, DirectMountStrict: privileged,
			Options: []string{"default_permissions"},
		}})
	if err != nil {
		return err
	}
	syscall.Umask(0)
	fmt.Println("ready")
	server.Wait()
	return nil
}

// bare mounts a file system with these abilities until the test ends, and returns its mount point.
func bare(t *testing.T, e *harness.Env, can abilities) string {
	t.Helper()
	folder, mnt := filepath.Join(e.Dir, "behind"), filepath.Join(e.Dir, "bare")
	harness.Mkdir(t, folder, mnt)
	self, err := os.Executable()
	harness.Check(t, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), envBare+"="+fmt.Sprint(folder, " ", mnt, " ", can.xattrs, " ", can.nodes, " ",
		can.exchange))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	harness.Check(t, err)
	harness.Check(t, cmd.Start())
	t.Cleanup(func() {
		if e.Mode == harness.ModeFusermount {
			_, err = harness.Run("fusermount3", "-u", mnt)
		} else {
			err = harness.UnmountAt(mnt)
		}
		if err != nil {
			t.Errorf("unmounting %s: %v", mnt, err)
			_ = cmd.Process.Kill()
		}
		timer := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
		defer timer.Stop()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the server of %s: %v", mnt, err)
		}
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("the server of %s: %q, %v", mnt, line, err)
	}
	return mnt
}

// onWhiteouts replaces whiteouts, and a directory of whiteouts.
const onWhiteouts = `
	mkdir whited; echo new >whited/new; mkdir whited2; rm replaced/*; mkdir dir; echo new >dir/new; mv -T dir replaced
	mkdir dir; rm replaced/new; mv -T dir replaced; mv replaced dir`

func TestBareUpper(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		for _, c := range []struct {
			name   string
			can    abilities
			white  string // how a whiteout is written: "file", "node"
			opaque string // how a directory is opaque: "opaque attribute", "opaque file"
		}{
			{"like NFS", abilities{}, "file", "opaque file"},
			{"without attributes", abilities{nodes: true, exchange: true}, "node", "opaque file"},
			{"without attributes and exchange", abilities{nodes: true}, "file", "opaque file"},
			{"without nodes", abilities{xattrs: true, exchange: true}, "file", "opaque attribute"},
			{"without nodes and exchange", abilities{xattrs: true}, "file", "opaque attribute"},
			{"without exchange", abilities{xattrs: true, nodes: true}, "file", "opaque attribute"},
		} {
			t.Run(c.name, func(t *testing.T) {
				e := harness.NewEnv(t, e.Mode)
				o := e.Overlay(t, harness.BusyTree+"\nfile replaced/x \"x\"\nfile replaced/y \"y\"\nfile whited/x \"x\"\nfile whited2 \"x\"")
				o.Opts = nil // no passthrough to what is FUSE itself
				dir := bare(t, e, c.can)
				o.Upper, o.Work = dir+"/upper", dir+"/work"
				harness.Mkdir(t, o.Upper, o.Work)
				// Another program that could make nodes has left these whiteouts.
				harness.Build(t, e, e.Dir+"/behind/upper", "white whited\nwhite whited2")
				copyOf := filepath.Join(e.Dir, "plain")
				harness.Shell(t, e.Dir, "cp -a lower0 plain; cp -a lower0 before; rm -r plain/whited plain/whited2")
				o.Mount()
				for depth, work := range append([]string{onWhiteouts}, harness.WorkAtDepth...) {
					harness.Shell(t, o.Point, work)
					harness.Shell(t, copyOf, work)
					harness.CompareTrees(t, fmt.Sprintf("work %d", depth), copyOf, o.Point, harness.NoLinksView)
					o.Remount()
					harness.CompareTrees(t, fmt.Sprintf("work %d, after a remount", depth), copyOf, o.Point, harness.NoLinksView)
				}
				wantMarks(t, e.Dir+"/behind/upper", c.white, c.opaque)
				harness.Shell(t, e.Dir, "rm -r plain/*; rm -r mnt/*; echo new >plain/etc; echo new >mnt/etc")
				o.Remount()
				harness.CompareTrees(t, "emptied", copyOf, o.Point, harness.NoLinksView)
				o.Unmount()
				harness.CompareTrees(t, "the lower", e.Dir+"/before", o.Lowers[0], harness.ExactView)
				if rest := harness.WorkRest(o.Work); len(rest) > 0 {
					t.Errorf("left in the work directory: %v", rest)
				}
			})
		}
	})
}

// wantMarks fails the test unless the folder behind an upper has whiteouts and opaque directories
// in these forms, and in no other.
func wantMarks(t *testing.T, upper, white, opaque string) {
	t.Helper()
	count := map[string]int{}
	harness.Check(t, filepath.WalkDir(upper, func(path string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		names, err := harness.XattrNames(path)
		for _, name := range names {
			if strings.Contains(name, "opaque") {
				count["opaque attribute"]++
			}
		}
		switch name := entry.Name(); {
		case name == ".wh..wh..opq":
			count["opaque file"]++
		case strings.HasPrefix(name, ".wh."):
			count["file"]++
		case entry.Type()&os.ModeCharDevice != 0:
			count["node"]++
		}
		return err
	}))
	other := map[string]string{
		"file": "node", "node": "file", "opaque file": "opaque attribute", "opaque attribute": "opaque file",
	}
	if count[white] == 0 || count[opaque] == 0 || count[other[white]] > 0 || count[other[opaque]] > 0 {
		t.Errorf("want whiteouts as a %s and opaque directories by an %s, got %v", white, opaque, count)
	}
}

// The mount of another overlay takes neither devices 0/0 nor names .wh.NAME, and with noxattrs no
// xattrs: no whiteout can be recorded there. A removal then fails and changes nothing, and the log
// reports that from the start.
func TestUpperWithoutWhiteouts(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		outer := e.Overlay(t, "")
		outer.Opts = []string{"noxattrs"}
		outer.Mount()
		o := harness.NewEnv(t, e.Mode).Overlay(t, "file f \"lower\"\ndir d\nfile d/x \"x\"")
		o.Upper, o.Work = outer.Path("upper"), outer.Path("work")
		harness.Mkdir(t, o.Upper, o.Work)
		o.Mount()
		for _, refused := range []string{"rm f", "rm -r d", "mv f g"} {
			if out, err := harness.RunIn(o.Point, nil, time.Minute, "sh", "-c", refused); err == nil || !strings.Contains(out, "not permitted") {
				t.Errorf("%s: %v, %s", refused, err, out)
			}
		}
		harness.Shell(t, o.Point, "echo more >>f; echo new >d/n; mkdir a; echo y >a/y; mv a b; rm d/n; rm b/y; rmdir b; touch g")
		o.Remount()
		harness.WantTree(t, "the merged tree", o.Point, "file f \"lowermore\\n\"\ndir d\nfile d/x \"x\"\nfile g \"\"")
		lines := logged(o, "mounted")
		if len(lines) == 0 {
			t.Fatal("no line about the mount")
		}
		l := lines[len(lines)-1]
		if l.Whiteouts != "the upper takes none" || !strings.Contains(fmt.Sprint(l.Without), "removals and renames of what a lower has") {
			t.Errorf("the log: %+v", l)
		}
		o.Unmount()
	})
}
