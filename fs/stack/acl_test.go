package stack

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
)

// aclText returns the value of an ACL given in setfacl's short form, such as
// "u::rwx,u:1234:r--,g::r-x,m::r-x,o::---".
func aclText(text string) string {
	tags := map[string]uint16{"u:": aclUserObj, "u": 2, "g:": aclGroupObj, "g": 8, "m:": aclMask, "o:": aclOther}
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for entry := range strings.SplitSeq(text, ",") {
		f := strings.Split(entry, ":")
		kind, id := f[0], ^uint32(0)
		if f[1] == "" {
			kind += ":"
		} else if _, err := fmt.Sscan(f[1], &id); err != nil {
			panic(err)
		}
		perm := uint16(0)
		for i, c := range "rwx" {
			if f[2][i] == byte(c) {
				perm |= 4 >> i
			}
		}
		b = binary.LittleEndian.AppendUint16(b, tags[kind])
		b = binary.LittleEndian.AppendUint16(b, perm)
		b = binary.LittleEndian.AppendUint32(b, id)
	}
	return string(b)
}

// acls are default ACLs of a directory; the first stands for none.
var acls = []string{
	"",
	"u::rwx,g::r-x,o::r-x",
	"u::rw-,g::---,o::---",
	"u::rwx,u:1234:rwx,g::r-x,m::rwx,o::r-x",
	"u::rwx,u:1234:rw-,g::rwx,g:77:r--,m::r--,o::---",
	"u::---,u:0:r-x,g::---,g:0:rwx,m::-wx,o::rwx",
}

var dirModes = []uint32{0o755, 0o2775, 0o3777}

var madeModes = []uint32{
	unix.S_IFREG | 0o666, unix.S_IFREG | 0o600, unix.S_IFREG | 0o4755, unix.S_IFREG | 0o007, unix.S_IFDIR | 0o777,
	unix.S_IFDIR | 0o1750, unix.S_IFIFO | 0o666, unix.S_IFSOCK | 0o755, unix.S_IFLNK | 0o777,
}

// An object made in the work directory inherits what the file system gives to one made in place:
// mode, group and ACLs, byte for byte.
func TestStagedObjectsInheritAsTheFileSystemDoes(t *testing.T) {
	for i, acl := range acls {
		for _, dirMode := range dirModes {
			t.Run(fmt.Sprintf("acl%d/%o", i, dirMode), func(t *testing.T) {
				upper := fmt.Sprintf("dir plain %04o\nown plain 0 55\ndir d %04o\nown d 0 55\n", dirMode, dirMode)
				for i := range madeModes {
					upper += fmt.Sprintf("white d/%d\n", i)
				}
				s := newSite(t, upper)
				for _, dir := range []string{"plain", "d"} {
					path := filepath.Join(s.cfg.Upper, dir)
					must(t, unix.Chmod(path, dirMode))
					if acl != "" {
						must(t, unix.Setxattr(path, defaultACL, []byte(aclText(acl)), 0))
					}
				}
				for i, mode := range madeModes {
					want := makePlain(t, filepath.Join(s.cfg.Upper, "plain", fmt.Sprint(i)), mode)
					got := makeStaged(t, s, fmt.Sprint(i), mode)
					if got != want {
						t.Errorf("mode %o: staged\n%s\nin place\n%s", mode, got, want)
					}
				}
				s.wantEmptyWork()
			})
		}
	}
}

// makePlain makes an object in place and describes it.
func makePlain(t *testing.T, path string, mode uint32) string {
	t.Helper()
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		must(t, unix.Mkdir(path, mode&0o7777))
	case unix.S_IFLNK:
		must(t, os.Symlink("target", path))
	default:
		must(t, unix.Mknod(path, mode, 0))
	}
	return describe(t, path)
}

// makeStaged makes an object over the whiteout of its name in d, and describes it.
func makeStaged(t *testing.T, s *site, name string, mode uint32) string {
	t.Helper()
	create(t, s, "d/"+name, &Object{Mode: mode, Target: "target"})
	return describe(t, filepath.Join(s.cfg.Upper, "d", name))
}

func create(t *testing.T, s *site, path string, o *Object) {
	t.Helper()
	dir, name, f := s.at(path)
	file, err := s.Create(&dir.Dir, dir.upper(), name, &f, o)
	if err != nil {
		t.Fatalf("create %s: %v", path, err)
	}
	if (file != nil) != (o.Mode&unix.S_IFMT == unix.S_IFREG) {
		t.Errorf("create %s: file is %v", path, file)
	}
	if file != nil {
		file.Close()
	}
}

// describe returns a line about an object without its name.
func describe(t *testing.T, path string) string {
	t.Helper()
	o, err := testkit.Read(path)
	must(t, err)
	return o.String()
}

// An object with another owner is staged as well, and inherits the same otherwise.
func TestInheritanceDoesNotDependOnTheOwner(t *testing.T) {
	for i, acl := range acls {
		t.Run(fmt.Sprint("acl", i), func(t *testing.T) {
			s := newSite(t, "dir d 2775\nown d 0 55")
			path := filepath.Join(s.cfg.Upper, "d")
			must(t, unix.Chmod(path, 0o2775))
			if acl != "" {
				must(t, unix.Setxattr(path, defaultACL, []byte(aclText(acl)), 0))
			}
			for i, mode := range madeModes {
				make := func(who string, uid, gid uint32) string {
					name := fmt.Sprint(who, i)
					create(t, s, "d/"+name, &Object{Mode: mode, UID: uid, GID: gid, Target: "target"})
					o, err := testkit.Read(filepath.Join(path, name))
					must(t, err)
					if o.UID != uid || o.GID != 55 {
						t.Errorf("mode %o: owner %d:%d, want %d:55", mode, o.UID, o.GID, uid)
					}
					o.UID = 0
					return o.String()
				}
				inPlace, staged := make("root", 0, 0), make("user", 1000, 1000)
				if inPlace != staged {
					t.Errorf("mode %o: staged\n%s\nin place\n%s", mode, staged, inPlace)
				}
			}
		})
	}
}

func TestUmaskAppliesWithoutDefaultACLOnly(t *testing.T) {
	s := newSite(t, "dir d", "file white\nfile d/white")
	must(t, unix.Setxattr(filepath.Join(s.cfg.Upper, "d"), defaultACL, []byte(aclText("u::rwx,g::rwx,o::rwx")), 0))
	for _, c := range []struct {
		path string
		uid  uint32
		want string
	}{
		{"place", 0, "file  0640 \"\""}, {"staged", 1000, "file  0640 \"\" own 1000 0"},
		{"d/place", 0, "file  0666 \"\""}, {"d/staged", 1000, "file  0666 \"\" own 1000 0"},
	} {
		create(t, s, c.path, &Object{Mode: unix.S_IFREG | 0o666, Umask: 0o027, UID: c.uid})
		if got := describe(t, filepath.Join(s.cfg.Upper, c.path)); got != c.want {
			t.Errorf("%s: %s, want %s", c.path, got, c.want)
		}
	}
}

// Without POSIX ACL support the stack ignores a default ACL of the upper's directory. An object
// made in place inherits it by the file system.
func TestWithoutACLSupport(t *testing.T) {
	c := newFolders(t, "")
	c.ACL = false
	s := openSite(t, c)
	made := calls(func() { create(t, s, "f", &Object{Mode: unix.S_IFREG | 0o666, Umask: 0o022, UID: 1000}) })
	for _, call := range made {
		if call == "getxattr" {
			t.Errorf("calls: %v", made)
		}
	}
	if got := describe(t, filepath.Join(s.cfg.Upper, "f")); got != "file  0644 \"\" own 1000 0" {
		t.Error(got)
	}
}

func TestDefaultACLIsReadOnce(t *testing.T) {
	s := newSite(t, "")
	d := s.dir("")
	make := func(name string) []string {
		return calls(func() {
			f := d.lookup(name)
			file, err := s.Create(&d.Dir, d.upper(), name, &f, &Object{Mode: unix.S_IFREG | 0o644})
			must(t, err)
			file.Close()
		})
	}
	if made := make("a"); len(made) != 2 {
		t.Errorf("first: %v", made)
	}
	if made := make("b"); len(made) != 1 {
		t.Errorf("second: %v", made)
	}
	must(t, unix.Setxattr(s.cfg.Upper, defaultACL, []byte(aclText("u::rw-,g::r--,o::---")), 0))
	d.ForgetDefaultACL()
	if made := make("c"); len(made) != 2 {
		t.Errorf("after a change: %v", made)
	}
}
