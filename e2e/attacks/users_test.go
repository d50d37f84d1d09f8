package attacks

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// A plain user reaches through a mount of another user's directories only what this user could
// reach before.
func TestPlainUserReachesNoMore(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, []harness.Mode{harness.ModeFusermount}, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t)
		o.Lowers = []string{"/etc"}
		o.Mount()
		secrets := 0
		err := filepath.WalkDir("/etc", func(path string, entry fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrPermission) {
				secrets++
				if _, err := os.ReadDir(o.Path(path[len("/etc"):])); err == nil {
					t.Errorf("the closed directory %s can be listed in the mount", path)
				}
				return fs.SkipDir
			}
			if err != nil || !entry.Type().IsRegular() || unix.Access(path, unix.R_OK) == nil {
				return err
			}
			secrets++
			in := o.Path(path[len("/etc"):])
			if _, err := os.ReadFile(in); err == nil {
				t.Errorf("%s can be read in the mount", path)
			}
			harness.WantErr(t, "chmod of "+path, os.Chmod(in, 0o666), unix.EPERM)
			if err := harness.AppendErr(in); err == nil {
				t.Errorf("%s can be written in the mount", path)
			}
			if err := os.Link(in, o.Path("linked")); err == nil {
				t.Errorf("%s can be linked in the mount", path)
			}
			return nil
		})
		harness.Check(t, err)
		if secrets == 0 {
			t.Error("this machine has no file in /etc that a plain user may not read")
		}
		harness.Check(t, filepath.WalkDir(o.Upper, func(path string, entry fs.DirEntry, err error) error {
			if err == nil && !entry.IsDir() {
				t.Errorf("%s is in the upper", path)
			}
			return err
		}))
		o.Unmount()
		o.Lowers = []string{"/root"}
		if out, err := o.TryMount(); err == nil || !strings.Contains(out, "permission denied") {
			t.Errorf("a closed directory as a lower: %v\n%s", err, out)
		}
	})
}

// protections are the sysctls that limit what users do with objects of others in directories with
// the sticky bit, and their strictest values.
var protections = map[string]string{"protected_hardlinks": "1", "protected_symlinks": "1", "protected_regular": "2", "protected_fifos": "2"}

// protect sets the protections of the machine until the function that it returns is called.
func protect(t *testing.T) (end func()) {
	t.Helper()
	before := map[string]string{}
	end = func() {
		for name, value := range before {
			harness.Write(t, "/proc/sys/fs/"+name, value)
		}
	}
	for name, value := range protections {
		path := "/proc/sys/fs/" + name
		before[name] = harness.ReadText(t, path)
		if err := os.WriteFile(path, []byte(value), 0); err != nil {
			end()
			t.Fatal(err)
		}
	}
	return end
}

// The sysctls protected_hardlinks, protected_symlinks, protected_regular and protected_fifos hold
// in a mount as in the kernel's overlayfs, for objects of lowers and of the upper.
func TestProtectedObjects(t *testing.T) {
	harness.NeedDaemon(t)
	const objects = `dir LAYER 1777
		file LAYER/suid 0755
		file LAYER/closed 0600
		file LAYER/theirs 0666
		own LAYER/theirs 1001 1001
		file LAYER/mine 0666
		own LAYER/mine 1000 1000
		fifo LAYER/fifo 0666
		own LAYER/fifo 1001 1001
		file LAYER/target 0644
		symlink LAYER/link target
		own LAYER/link 1001 1001
		symlink LAYER/own target
		own LAYER/own 1000 1000`
	open := func(name string) func(dir string) error {
		return func(dir string) error {
			fd, err := unix.Open(dir+"/"+name, unix.O_CREAT|unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0o666)
			if err == nil {
				err = unix.Close(fd)
			}
			return err
		}
	}
	stat := func(name string) func(dir string) error {
		return func(dir string) error { _, err := os.Stat(dir + "/" + name); return err }
	}
	link := func(name string) func(dir string) error {
		return func(dir string) error { return os.Link(dir+"/"+name, dir+"/linked-"+name) }
	}
	attempts := map[string]func(dir string) error{
		"open theirs": open("theirs"), "open mine": open("mine"), "open the fifo": open("fifo"), "follow theirs": stat("link"), "follow mine": stat("own"),
		"link suid": link("suid"), "link closed": link("closed"), "link theirs": link("theirs"), "link mine": link("mine"), "link the fifo": link("fifo"),
	}
	harness.EachPolicy(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		results := map[harness.Implementation]map[string]string{}
		for _, side := range []harness.Implementation{harness.Ours, harness.Kernel} {
			o := newEnvLike(t, e).Overlay(t, strings.ReplaceAll(objects, "LAYER", "lower"))
			o.Kernel = side == harness.Kernel
			harness.Check(t, os.Chmod(filepath.Join(o.Lowers[0], "lower/suid"), 0o755|os.ModeSetuid))
			o.Mount()
			harness.Build(t, e, o.Point, strings.ReplaceAll(objects, "LAYER", "upper"))
			harness.Check(t, os.Chmod(o.Path("upper/suid"), 0o755|os.ModeSetuid))
			got := map[string]string{}
			results[side] = got
			end := protect(t)
			harness.As(t, attacker, attacker, func() {
				for what, try := range attempts {
					for _, layer := range []string{"lower", "upper"} {
						got[what+" of the "+layer] = harness.ErrnoName(try(o.Path(layer)))
					}
				}
			})
			end()
		}
		refused := 0
		for what, want := range results[harness.Kernel] {
			harness.Equal(t, what, results[harness.Ours][what], want)
			if want != "ok" {
				refused++
			}
		}
		harness.Equal(t, "attempts that are refused", refused, 2*6)
	})
}
