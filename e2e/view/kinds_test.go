package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// kinds is a table with an object of every kind the mode may make.
func kinds(m mode) string {
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
	if m == modeRoot {
		table += "\nchar char 1/3 0666\nblock block 7/250 0660\nchar highchar 300/70000 0600"
	}
	return table
}

func TestEveryKindIsListedFromTheLower(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, e *env) {
		o := e.mounted(t, kinds(e.mode))
		compareTrees(t, "the mount", o.lowers[0], o.mnt, exact)
		if d := identityFaults(o.mnt); d != "" && !oracle {
			t.Error(d)
		}
		wantTree(t, "the upper after looking", o.upper, "")
	})
}

func TestEveryKindIsCreated(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, e *env) {
		o := e.mounted(t, "dir in")
		build(t, e, o.path("in"), kinds(e.mode))
		build(t, e, e.dir+"/plain", kinds(e.mode))
		compareTrees(t, "the mount", e.dir+"/plain", o.path("in"), exact)
		o.remount()
		compareTrees(t, "the mount after a remount", e.dir+"/plain", o.path("in"), exact)
		o.unmount()
		v := exact
		v.xattr = hidePrivate
		compareTrees(t, "the upper", e.dir+"/plain", o.upper+"/in", v)
	})
}

// chmod, chown, utimes, setxattr, link and rename bring every kind up; unlink and reading bring nothing up.
func TestEveryKindIsCopiedUp(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, e *env) {
		changes := map[string]func(path string) error{
			"chmod":  func(p string) error { return os.Chmod(p, 0o611) },
			"chown":  func(p string) error { return os.Lchown(p, os.Getuid(), os.Getgid()) },
			"utimes": func(p string) error { return setTimes(p, oldTime) },
			"rename": func(p string) error { return os.Rename(p, filepath.Dir(p)+"/renamed-"+filepath.Base(p)) },
			"link":   func(p string) error { return os.Link(p, filepath.Dir(p)+"/linked-"+filepath.Base(p)) },
			"xattr":  func(p string) error { return unix.Setxattr(p, "user.x", []byte("v"), 0) },
		}
		table, names := "", []string{"file", "empty", "fifo", "sock", "symlink", "char", "block"}
		if e.mode != modeRoot {
			names = names[:5]
		}
		for change := range changes {
			for _, line := range strings.Split(strings.TrimSpace(kinds(e.mode)), "\n") {
				words := strings.Fields(line)
				if words[0] != "link" && words[0] != "dir" {
					table += fmt.Sprintf("%s %s/%s %s\n", words[0], change, words[1], strings.Join(words[2:], " "))
				}
			}
		}
		o := e.mounted(t, table)
		for change, fn := range changes {
			for _, name := range names {
				p := o.path(change + "/" + name)
				if name == "symlink" && (change == "chmod" || change == "xattr") || change == "xattr" && name != "file" && name != "empty" {
					continue
				}
				before := lstat(t, p)
				if err := fn(p); err != nil {
					t.Errorf("%s of a lower %s: %v", change, name, err)
					continue
				}
				up := filepath.Join(o.upper, change, name)
				if change == "rename" {
					up = filepath.Join(o.upper, change, "renamed-"+name)
					wantAbsent(t, p)
				}
				st := lstat(t, up)
				if st.Mode&unix.S_IFMT != before.Mode&unix.S_IFMT || st.Rdev != before.Rdev || st.Size != before.Size {
					t.Errorf("%s of a lower %s left mode %o rdev %d size %d in the upper", change, name, st.Mode, st.Rdev, st.Size)
				}
				if change != "utimes" {
					equal(t, change+" of "+name+": mtime in the upper", timeClass(st.Mtim), timeClass(before.Mtim))
				}
			}
		}
	})
}

func TestUnlinkOfLowerCopiesNothing(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, e *env) {
		o := e.mounted(t, kinds(e.mode))
		check(t, os.RemoveAll(o.path("dir")))
		entries, err := os.ReadDir(o.mnt)
		check(t, err)
		want := "white dir\n"
		for _, entry := range entries {
			check(t, os.Remove(o.path(entry.Name())))
			want += "white " + entry.Name() + "\n"
		}
		wantNames(t, o.mnt)
		o.remount()
		wantNames(t, o.mnt)
		o.unmount()
		wantTree(t, "the upper", o.upper, want)
		sh(t, "", "test -z \"$(find "+o.upper+" ! -type d ! -type c)\"")
	})
}

func TestMknodOfWhiteoutIsRefused(t *testing.T) {
	eachMode(t, rootModes, func(t *testing.T, e *env) {
		o := e.mounted(t, "file f \"x\"")
		wantErr(t, "mknod c 0 0", unix.Mknod(o.path("w"), unix.S_IFCHR|0o600, 0), syscall.EPERM)
		wantNames(t, o.mnt, "f")
		wantTree(t, "the upper", o.upper, "")
	})
}

// Only directories merge; a non-directory hides all below; attributes come from the topmost.
func TestMergeOfUnlikeKinds(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, e *env) {
		o := e.mounted(t,
			"file a \"file\"\ndir b 0700\nxattr b user.top 1\ndir c\ndir d 0711\nsymlink s b",
			"dir a\nfile a/below \"x\"\nfile b/mid \"m\"\nxattr b user.mid 1\nfile c \"a file between\"\ndir s/x",
			"file a/other \"x\"\nfile b/low \"l\"\nfile c/low \"hidden by the file\"\nfile d/low \"l\"")
		wantTree(t, "merged", o.mnt, `
			file a "file"
			file b/mid "m"
			file b/low "l"
			dir c
			file d/low "l"
			symlink s b`)
		equal(t, "mode of b", lstat(t, o.path("b")).Mode&0o7777, 0o700)
		names, err := xattrNames(o.path("b"))
		check(t, err)
		equal(t, "xattrs of b", strings.Join(names, " "), "user.top")
		equal(t, "mode of d", lstat(t, o.path("d")).Mode&0o7777, 0o711)
	})
}

func TestReadOnlyMount(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, e *env) {
		o := e.overlay(t, kinds(e.mode), "file below \"b\"")
		o.upper, o.work = "", ""
		o.mount()
		wantText(t, o.path("below"), "b")
		for what, err := range map[string]error{
			"create": os.WriteFile(o.path("new"), nil, 0o644), "mkdir": os.Mkdir(o.path("newdir"), 0o755),
			"unlink": os.Remove(o.path("below")), "rename": os.Rename(o.path("file"), o.path("x")),
			"link": os.Link(o.path("file"), o.path("x")), "symlink": os.Symlink("x", o.path("x")),
			"chmod": os.Chmod(o.path("file"), 0o600), "truncate": os.Truncate(o.path("file"), 0),
			"utimes": setTimes(o.path("file"), oldTime), "setxattr": unix.Setxattr(o.path("file"), "user.x", []byte("x"), 0),
			"chown": os.Lchown(o.path("file"), os.Getuid(), os.Getgid()), "rmdir": unix.Rmdir(o.path("dir")),
			"mknod": unix.Mknod(o.path("x"), unix.S_IFIFO|0o600, 0),
		} {
			wantErr(t, what, err, syscall.EROFS)
		}
		_, err := os.OpenFile(o.path("file"), os.O_WRONLY, 0)
		wantErr(t, "open for writing", err, syscall.EROFS)
		wantErr(t, "access(W_OK)", unix.Access(o.path("file"), unix.W_OK), syscall.EROFS)
		m, _ := mountAt(o.mnt)
		if !strings.HasPrefix(m.options, "ro") && !strings.HasPrefix(m.super, "ro") {
			t.Errorf("mounted %s %s, want ro", m.options, m.super)
		}
	})
}

func TestStatfs(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, e *env) {
		o := e.mounted(t, "file f \"x\"")
		var got, want unix.Statfs_t
		check(t, unix.Statfs(o.path("f"), &got))
		check(t, unix.Statfs(o.upper, &want))
		if !oracle {
			equal(t, "magic", got.Type, 0x65735546)
		}
		equal(t, "blocks", got.Blocks*uint64(got.Frsize), want.Blocks*uint64(want.Frsize))
		equal(t, "files", got.Files, want.Files)
		equal(t, "name length", got.Namelen, want.Namelen)
	})
}
