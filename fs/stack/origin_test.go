package stack

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/copyup"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
)

// copyUp copies an object up, into a directory that is in the upper already.
func (s *site) copyUp(path string) {
	s.t.Helper()
	m, name, f := s.at(path)
	h, err := m.Layer(f.Layer)
	must(s.t, err)
	var st sys.Stat
	staged, _, err := s.Stage(&Source{Layer: f.Layer, Path: path, Ref: h.At(name), Shared: f.Shared}, copyup.Whole(), &st)
	must(s.t, err)
	defer staged.Discard()
	if f.Shared != nil {
		must(s.t, s.PublishCopy(f.Shared, staged))
	} else {
		must(s.t, s.MarkImpure(&m.Dir, m.upper()))
		must(s.t, staged.Publish(m.upper(), name))
	}
	if file := staged.File(); file != nil {
		file.Close()
	}
}

// originOf returns the origin of an object of the upper.
func (s *site) originOf(path string) (st sys.Stat, found bool) {
	s.t.Helper()
	m, name, f := s.at(path)
	if f.Layer != Upper || !m.Impure() {
		s.t.Fatalf("%s: %+v, impure %v", path, f, m.Impure())
	}
	found, err := s.origin(m, name, &f, &st)
	must(s.t, err)
	return st, found
}

func lstat(t *testing.T, path string) (st unix.Stat_t) {
	t.Helper()
	must(t, unix.Lstat(path, &st))
	return st
}

// origin finds the origin of an object of the upper as a lookup does.
func (s *site) origin(m *merged, name string, f *Found, st *sys.Stat) (found bool, err error) {
	up, err := m.Layer(Upper)
	if err != nil {
		return false, err
	}
	h, ok, err := s.OriginHandle(up.At(name))
	if err != nil || !ok {
		return false, err
	}
	found, incomplete, err := s.Origin(m.query(name), m, &h, f, st)
	if incomplete {
		s.SetOrigin(up.At(name), h)
	}
	return found, err
}

func TestOrigin(t *testing.T) {
	for _, uuid := range []UUID{UUIDAuto, UUIDOff, UUIDNull, UUIDOn} {
		c := newFolders(t, "dir d\ndir e", "dir d", "file d/f \"text\"\nsymlink d/l x\nfifo d/p\ndir e")
		c.Features.UUID = uuid
		s := openSite(t, c)
		for _, name := range []string{"f", "l", "p"} {
			want := lstat(t, filepath.Join(c.Lowers[1], "d", name))
			s.copyUp("d/" + name)
			s.remount()
			st, found := s.originOf("d/" + name)
			if !found || st.Ino != want.Ino || st.Dev != want.Dev {
				t.Errorf("uuid %v: the origin of %s is %d, found %v, want %d", uuid, name, st.Ino, found, want.Ino)
			}
		}
		from, to := s.dir("d").end("f"), s.dir("e").end("g")
		from.HasOrigin = true
		must(t, s.Rename(from, to))
		if _, found := s.originOf("e/g"); !found {
			t.Errorf("uuid %v: renamed, and not found", uuid)
		}
	}
}

// A daemon that must not open by handles finds an origin that still has the name of its copy.
func TestOriginByName(t *testing.T) {
	s := newSite(t, "dir d", "file d/other", "file d/f \"text\"\nfile d/g")
	s.copyUp("d/f")
	s.copyUp("d/g")
	must(t, os.Rename(filepath.Join(s.cfg.Upper, "d/g"), filepath.Join(s.cfg.Upper, "d/other")))
	s.remount()
	m, _, _ := s.at("d/f")
	for name, want := range map[string]bool{"f": true, "other": false} {
		for call, errno := range map[string]unix.Errno{"": 0, "fstatat": unix.EIO, "name_to_handle_at": unix.EIO, "getxattr": unix.EIO} {
			f := m.lookup(name)
			sys.SetFault(func(op sys.Op) error {
				switch op.Call {
				case "open_by_handle_at":
					return unix.EPERM
				case call:
					return errno
				}
				return nil
			})
			var st sys.Stat
			found, err := s.origin(m, name, &f, &st)
			sys.SetFault(nil)
			if errno == 0 && (found != want || err != nil) || errno != 0 && err != errno {
				t.Errorf("%s, failing %q: %v, %v", name, call, found, err)
			}
		}
	}
}

// Subvolumes of a btrfs have device numbers of their own, and are one file system. Origins in each
// of them are found, and index=on works.
func TestOriginsInSubvolumes(t *testing.T) {
	base := testkit.MountImage(t, "btrfs", "")
	c := Config{Upper: base + "/upper", Work: base + "/upper.work"}
	c.Features.Index = true
	for _, name := range []string{"one", "two"} {
		lower := filepath.Join(base, name)
		if out, err := exec.Command("btrfs", "subvolume", "create", lower).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		testkit.Build(t, lower, "file d/"+name+" \"text\"")
		c.Lowers = append(c.Lowers, lower)
	}
	must(t, os.MkdirAll(c.Upper+"/d", 0o755))
	s := openSite(t, c)
	if !s.KeepsLinks() || len(s.Devices()) != 3 {
		t.Errorf("%v, devices %v", s.Warnings(), s.Devices())
	}
	for i, name := range []string{"one", "two"} {
		want := lstat(t, filepath.Join(c.Lowers[i], "d", name))
		s.copyUp("d/" + name)
		s.remount()
		for _, errno := range []unix.Errno{0, unix.EPERM} {
			if errno != 0 {
				sys.SetFault(func(op sys.Op) error {
					if op.Call == "open_by_handle_at" {
						return errno
					}
					return nil
				})
			}
			st, found := s.originOf("d/" + name)
			sys.SetFault(nil)
			if !found || st.Ino != want.Ino || st.Dev != want.Dev {
				t.Errorf("the origin of %s is %d of %d, found %v, want %d of %d", name, st.Ino, st.Dev, found, want.Ino, want.Dev)
			}
		}
	}
}

// An origin on a file system that no layer lies on, or that has the UUID of another one, leads
// nowhere.
func TestOriginsOfOtherFileSystems(t *testing.T) {
	s := newSite(t, "dir d", "file d/f \"text\"")
	s.copyUp("d/f")
	s.shut()
	other := t.TempDir()
	mountTmpfs(t, other)
	testkit.Build(t, other, "file d/f")
	s.cfg.Lowers[0] = other
	s.open()
	if _, found := s.originOf("d/f"); found {
		t.Error("an origin on another file system was found")
	}
	for _, errno := range []unix.Errno{unix.ESTALE, unix.EINVAL, unix.EOPNOTSUPP} {
		err := failing("open_by_handle_at", errno, func() error { s.originOf("d/f"); return nil })
		must(t, err)
	}
}

// failing makes one call fail while f runs.
func failing(call string, errno unix.Errno, f func() error) error {
	sys.SetFault(func(op sys.Op) error {
		if op.Call == call {
			return errno
		}
		return nil
	})
	defer sys.SetFault(nil)
	return f()
}

// A lower without handles, and an upper without xattrs, do not prevent a copy-up. An error of the
// disk is returned.
func TestCopyUpWithoutOrigin(t *testing.T) {
	for _, c := range []struct {
		call  string
		errno unix.Errno
		want  error
	}{
		{"name_to_handle_at", unix.EOPNOTSUPP, nil}, {"name_to_handle_at", unix.EPERM, nil}, {"setxattr", unix.EOPNOTSUPP, nil},
		{"name_to_handle_at", unix.EIO, unix.EIO}, {"setxattr", unix.ENOSPC, unix.ENOSPC},
	} {
		s := newSite(t, "dir d", "file d/f \"text\"")
		m, name, f := s.at("d/f")
		h, err := m.Layer(f.Layer)
		must(t, err)
		var st sys.Stat
		err = failing(c.call, c.errno, func() error {
			staged, _, err := s.Stage(&Source{Layer: f.Layer, Ref: h.At(name)}, copyup.Whole(), &st)
			if err == nil {
				staged.Discard()
				err = s.MarkImpure(&m.Dir, m.upper())
			}
			return err
		})
		if err != c.want {
			t.Errorf("%s fails with %v: %v", c.call, c.errno, err)
		}
		s.wantEmptyWork()
	}
}
