package view

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// kinds is a table with an object of every kind that the mode may make.
func kinds(m harness.Mode) string {
	table := `
		dir dir 0750
		file file 0640 "text"
		file empty 0600 ""
		file hard1 "hard"
		link hard2 hard1
		link dir/hard3 hard1
		symlink symlink file
		symlink dangling "no where"
		fifo fifo 0620
		sock sock 0600`
	if m == harness.ModeRoot {
		table += "\nchar char 1/3 0666\nblock block 7/250 0660\nchar highchar 300/70000 0600"
	}
	return table
}

func TestEveryKindIsListedFromTheLower(t *testing.T) {
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, kinds(e.Mode))
		harness.CompareTrees(t, "the mount", o.Lowers[0], o.Point, harness.ExactView)
		if d := harness.IdentityFaults(o.Point); d != "" && !harness.Oracle {
			t.Error(d)
		}
		harness.WantTree(t, "the upper after looking", o.Upper, "")
	})
}

func TestEveryKindIsCreated(t *testing.T) {
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, "dir in")
		harness.Build(t, e, o.Path("in"), kinds(e.Mode))
		harness.Build(t, e, e.Dir+"/plain", kinds(e.Mode))
		harness.CompareTrees(t, "the mount", e.Dir+"/plain", o.Path("in"), harness.ExactView)
		o.Remount()
		harness.CompareTrees(t, "the mount after a remount", e.Dir+"/plain", o.Path("in"), harness.ExactView)
		o.Unmount()
		v := harness.ExactView
		v.Xattr = harness.HidePrivate
		harness.CompareTrees(t, "the upper", e.Dir+"/plain", o.Upper+"/in", v)
	})
}

// chmod, chown, utimes, setxattr, link and rename copy up every kind. Unlink and reads copy nothing
// up.
func TestEveryKindIsCopiedUp(t *testing.T) {
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		changes := map[string]func(path string) error{
			"chmod":  func(p string) error { return os.Chmod(p, 0o611) },
			"chown":  func(p string) error { return os.Lchown(p, os.Getuid(), os.Getgid()) },
			"utimes": func(p string) error { return harness.SetTimes(p, harness.OldTime) },
			"rename": func(p string) error { return os.Rename(p, filepath.Dir(p)+"/renamed-"+filepath.Base(p)) },
			"link":   func(p string) error { return os.Link(p, filepath.Dir(p)+"/linked-"+filepath.Base(p)) },
			"xattr":  func(p string) error { return unix.Setxattr(p, "user.x", []byte("v"), 0) },
		}
		table, names := "", []string{"file", "empty", "fifo", "sock", "symlink", "char", "block"}
		if e.Mode != harness.ModeRoot {
			names = names[:5]
		}
		for change := range changes {
			for _, line := range strings.Split(strings.TrimSpace(kinds(e.Mode)), "\n") {
				words := strings.Fields(line)
				if words[0] != "link" && words[0] != "dir" {
					table += fmt.Sprintf("%s %s/%s %s\n", words[0], change, words[1], strings.Join(words[2:], " "))
				}
			}
		}
		o := e.Mounted(t, table)
		for change, fn := range changes {
			for _, name := range names {
				p := o.Path(change + "/" + name)
				if name == "symlink" && (change == "chmod" || change == "xattr") || change == "xattr" && name != "file" &&
					name != "empty" {
					continue
				}
				before := harness.Lstat(t, p)
				if err := fn(p); err != nil {
					t.Errorf("%s of a lower %s: %v", change, name, err)
					continue
				}
				up := filepath.Join(o.Upper, change, name)
				if change == "rename" {
					up = filepath.Join(o.Upper, change, "renamed-"+name)
					harness.WantAbsent(t, p)
				}
				st := harness.Lstat(t, up)
				if st.Mode&unix.S_IFMT != before.Mode&unix.S_IFMT || st.Rdev != before.Rdev || st.Size != before.Size {
					t.Errorf("%s of a lower %s left mode %o rdev %d size %d in the upper", change, name, st.Mode, st.Rdev, st.Size)
				}
				if change != "utimes" {
					harness.Equal(t, change+" of "+name+": mtime in the upper", harness.TimeClass(st.Mtim),
						harness.TimeClass(before.Mtim))
				}
			}
		}
	})
}

func TestUnlinkOfLowerCopiesNothing(t *testing.T) {
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, kinds(e.Mode))
		harness.Check(t, os.RemoveAll(o.Path("dir")))
		entries, err := os.ReadDir(o.Point)
		harness.Check(t, err)
		want := "white dir\n"
		for _, entry := range entries {
			harness.Check(t, os.Remove(o.Path(entry.Name())))
			want += "white " + entry.Name() + "\n"
		}
		harness.WantNames(t, o.Point)
		o.Remount()
		harness.WantNames(t, o.Point)
		o.Unmount()
		harness.WantTree(t, "the upper", o.Upper, want)
		harness.Shell(t, "", "test -z \"$(find "+o.Upper+" ! -type d ! -type c)\"")
	})
}

func TestMknodOfWhiteoutIsRefused(t *testing.T) {
	harness.EachMode(t, harness.RootModes, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, "file f \"x\"")
		harness.WantErr(t, "mknod c 0 0", unix.Mknod(o.Path("w"), unix.S_IFCHR|0o600, 0), syscall.EPERM)
		harness.WantNames(t, o.Point, "f")
		harness.WantTree(t, "the upper", o.Upper, "")
	})
}

// Only directories merge. Any other object hides all below it. Attributes are those of the topmost
// object.
func TestMergeOfUnlikeKinds(t *testing.T) {
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t,
			"file a \"file\"\ndir b 0700\nxattr b user.top 1\ndir c\ndir d 0711\nsymlink s b",
			"dir a\nfile a/below \"x\"\nfile b/mid \"m\"\nxattr b user.mid 1\nfile c \"a file between\"\ndir s/x",
			"file a/other \"x\"\nfile b/low \"l\"\nfile c/low \"hidden by the file\"\nfile d/low \"l\"")
		harness.WantTree(t, "merged", o.Point, `
			file a "file"
			file b/mid "m"
			file b/low "l"
			dir c
			file d/low "l"
			symlink s b`)
		harness.Equal(t, "mode of b", harness.Lstat(t, o.Path("b")).Mode&0o7777, 0o700)
		names, err := harness.XattrNames(o.Path("b"))
		harness.Check(t, err)
		harness.Equal(t, "xattrs of b", strings.Join(names, " "), "user.top")
		harness.Equal(t, "mode of d", harness.Lstat(t, o.Path("d")).Mode&0o7777, 0o711)
	})
}

func TestReadOnlyMount(t *testing.T) {
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, kinds(e.Mode), "file below \"b\"")
		o.Upper, o.Work = "", ""
		o.Mount()
		harness.WantText(t, o.Path("below"), "b")
		for what, err := range map[string]error{
			"create": os.WriteFile(o.Path("new"), nil, 0o644), "mkdir": os.Mkdir(o.Path("newdir"), 0o755),
			"unlink": os.Remove(o.Path("below")), "rename": os.Rename(o.Path("file"), o.Path("x")),
			"link": os.Link(o.Path("file"), o.Path("x")), "symlink": os.Symlink("x", o.Path("x")),
			"chmod": os.Chmod(o.Path("file"), 0o600), "truncate": os.Truncate(o.Path("file"), 0),
			"utimes": harness.SetTimes(o.Path("file"), harness.OldTime), "setxattr": unix.Setxattr(o.Path("file"), "user.x",
				[]byte("x"), 0),
			"chown": os.Lchown(o.Path("file"), os.Getuid(), os.Getgid()), "rmdir": unix.Rmdir(o.Path("dir")),
			"mknod": unix.Mknod(o.Path("x"), unix.S_IFIFO|0o600, 0),
		} {
			harness.WantErr(t, what, err, syscall.EROFS)
		}
		_, err := os.OpenFile(o.Path("file"), os.O_WRONLY, 0)
		harness.WantErr(t, "open for writing", err, syscall.EROFS)
		harness.WantErr(t, "access(W_OK)", unix.Access(o.Path("file"), unix.W_OK), syscall.EROFS)
		m, _ := harness.MountAt(o.Point)
		if !strings.HasPrefix(m.Options, "ro") && !strings.HasPrefix(m.Super, "ro") {
			t.Errorf("mounted %s %s, want ro", m.Options, m.Super)
		}
	})
}

func TestStatfs(t *testing.T) {
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, "file f \"x\"")
		var got, want unix.Statfs_t
		harness.Check(t, unix.Statfs(o.Path("f"), &got))
		harness.Check(t, unix.Statfs(o.Upper, &want))
		if !harness.Oracle {
			harness.Equal(t, "magic", got.Type, 0x65735546)
		}
		harness.Equal(t, "blocks", got.Blocks*uint64(got.Frsize), want.Blocks*uint64(want.Frsize))
		harness.Equal(t, "files", got.Files, want.Files)
		harness.Equal(t, "name length", got.Namelen, want.Namelen)
	})
}
