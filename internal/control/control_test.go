package control

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/host"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
)

func TestRequests(t *testing.T) {
	want := Stats{
		Uptime:   1.5,
		Requests: []Request{{Kind: "LOOKUP", Count: 3, Seconds: 0.25, Latency: []Bucket{{1024, 1}, {2048, 2}}}},
		CopyUps:  CopyUps{2, 4096}, Inodes: Inodes{5, 6}, Caches: Caches{1, 2, 3, 4, 5}, Process: Process{7, 8, 9, 10},
	}
	s := newSite(t).listen(func() Stats { return want })
	m, err := s.info()
	if err != nil || m == nil || m.PID != os.Getpid() || m.Point != "/mnt" || len(m.Lowers) != 2 {
		t.Errorf("info: %+v, %v", m, err)
	}
	r, err := callIn(t.Context(), s.dir, testName, requestStats)
	if err != nil || r.Stats == nil || !reflect.DeepEqual(*r.Stats, want) {
		t.Errorf("stats: %+v, %v", r, err)
	}
	if r, err := callIn(t.Context(), s.dir, testName, "shutdown"); err == nil || !strings.Contains(err.Error(), `unknown request "shutdown"`) {
		t.Errorf("an unknown request: %+v, %v", r, err)
	}
}

// Only the user of the daemon can reach folder and socket, whatever the umask is.
func TestModes(t *testing.T) {
	old := unix.Umask(0)
	defer unix.Umask(old)
	s := newSite(t).listen(nil)
	for path, want := range map[string]os.FileMode{
		filepath.Dir(s.socket()): os.ModeDir | 0o700,
		s.socket():               os.ModeSocket | 0o600,
	} {
		info, err := os.Lstat(path)
		must(t, err)
		if info.Mode() != want {
			t.Errorf("%s has mode %v, want %v", path, info.Mode(), want)
		}
	}
}

// A client of another user gets nothing, even if the modes let it in.
func TestOtherUsersAreRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to become another user")
	}
	s := newSite(t).listen(nil)
	var closed, open string
	ask := func() string {
		c, err := (&host.RuntimeDir{Path: s.dir.Path, Owner: 0}).Open()
		if err == nil {
			c.Close()
		}
		conn, err := dialPath(s.socket())
		if err != nil {
			return err.Error()
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, "info\n"); err != nil {
			return err.Error()
		}
		text, err := io.ReadAll(conn)
		if err != nil {
			return err.Error()
		}
		return string(text)
	}
	testkit.AsUser(t, 1234, func() { closed = ask() })
	if !strings.Contains(closed, "permission denied") {
		t.Errorf("with the modes as they are: %s", closed)
	}
	for path := filepath.Dir(s.socket()); path != "/"; path = filepath.Dir(path) {
		info, err := os.Stat(path)
		must(t, err)
		must(t, os.Chmod(path, info.Mode()|0o055))
	}
	must(t, os.Chmod(s.socket(), 0o666))
	testkit.AsUser(t, 1234, func() { open = ask() })
	if open != `{"error":"not permitted"}`+"\n" {
		t.Errorf("with the modes of all users: %q", open)
	}
}

// A socket that a killed daemon has left is replaced, and so is any other name in its place.
func TestStaleSocketIsReplaced(t *testing.T) {
	s := newSite(t).listen(nil)
	must(t, s.server.listener.Close()) // as after a kill: the name stays
	if _, err := s.info(); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("the socket of a dead daemon: %v, want ECONNREFUSED", err)
	}
	s.listen(nil)
	if _, err := s.info(); err != nil {
		t.Errorf("the socket in its place: %v", err)
	}
}

// A client removes the socket that a killed daemon has left, and no other.
func TestRemoveLeft(t *testing.T) {
	s := newSite(t)
	remove := func() error { return removeLeft(t.Context(), s.dir, testName) }
	if err := remove(); !errors.Is(err, unix.ENOENT) {
		t.Errorf("no folder: %v", err)
	}
	s.listen(nil)
	must(t, remove())
	if _, err := s.info(); err != nil {
		t.Errorf("the socket of a daemon: %v", err)
	}
	must(t, s.server.listener.Close())
	must(t, remove())
	if _, err := os.Lstat(s.socket()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket of a dead daemon: %v", err)
	}
	if err := remove(); !errors.Is(err, unix.ENOENT) {
		t.Errorf("no socket: %v", err)
	}
}

// The end of a daemon removes its own socket, and not that of the next daemon of the same name.
func TestCloseRemovesOnlyItsOwn(t *testing.T) {
	s := newSite(t).listen(nil)
	first := s.server
	must(t, first.listener.Close())
	s.listen(nil)
	if err := first.Close(); err == nil {
		t.Error("the first socket was closed twice without an error")
	}
	if _, err := s.info(); err != nil {
		t.Errorf("after the end of the daemon before: %v", err)
	}
	must(t, s.server.Close())
	if _, err := os.Lstat(s.socket()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after the end of the daemon its socket is there: %v", err)
	}
}

// What another user, or another program, has put in the place of the folder is not used.
func TestForeignFolders(t *testing.T) {
	for _, tt := range []struct {
		name string
		make func(path string) error
		want string
	}{
		{"link", func(path string) error { return os.Symlink(t.TempDir(), path) }, "not a directory"},
		{"file", func(path string) error { return os.WriteFile(path, nil, 0o600) }, "not a directory"},
		{"open to all", func(path string) error { return errors.Join(os.Mkdir(path, 0o700), os.Chmod(path, 0o755)) }, "has mode 0755"},
		{"another user's", func(path string) error { return errors.Join(os.Mkdir(path, 0o700), os.Chown(path, 1234, 1234)) },
			"belongs to user 1234"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSite(t)
			must(t, tt.make(filepath.Join(s.dir.Path, folderName)))
			server, err := s.place.Listen(testDev, s.dir.Owner, Source{})
			if err == nil {
				t.Fatal(server.Close())
			}
			if _, client := s.info(); !strings.Contains(err.Error(), tt.want) || client == nil || !strings.Contains(client.Error(), tt.want) {
				t.Errorf("daemon: %v\nclient: %v\nwant: %s", err, client, tt.want)
			}
		})
	}
	t.Run("directory as socket", func(t *testing.T) {
		s := newSite(t)
		must(t, os.MkdirAll(s.socket(), 0o700))
		if server, err := s.place.Listen(testDev, s.dir.Owner, Source{}); !errors.Is(err, unix.EISDIR) {
			t.Errorf("%v, %v", server, err)
		}
	})
}

// The folder outlives the path to it: the daemon leaves all mounts.
func TestPathThatIsGone(t *testing.T) {
	s := newSite(t).listen(nil)
	moved := s.dir.Path + ".moved"
	must(t, os.Rename(s.dir.Path, moved))
	t.Cleanup(func() { _ = os.RemoveAll(moved) })
	must(t, s.server.Close())
	if left, err := os.ReadDir(filepath.Join(moved, folderName)); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestSocketNames(t *testing.T) {
	for _, dev := range []uint64{0, unix.Mkdev(8, 1)} {
		if name, err := socketName(dev); err == nil {
			t.Errorf("device %d:%d has the socket %q", unix.Major(dev), unix.Minor(dev), name)
		}
	}
	if name, err := socketName(unix.Mkdev(0, 1<<20-1)); err != nil || name != "1048575" {
		t.Errorf("%q, %v", name, err)
	}
}

// A client looks in the directories of its own user, and in that of the user who has mounted.
func TestWhereClientsLook(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", "/nowhere/run")
	has := func(dirs []host.RuntimeDir, want host.RuntimeDir) bool {
		for _, d := range dirs {
			if d == want {
				return true
			}
		}
		return false
	}
	other := uint32(os.Geteuid() + 1000)
	options := fmt.Sprintf("rw,user_id=%d,group_id=0", other)
	if dirs := runtimeDirs(host.MountEntry{Options: options}); !has(dirs, host.RuntimeDirOf(other)) || len(dirs) != len(host.RuntimeDirs())+1 {
		t.Errorf("a mount of another user: %v", dirs)
	}
	own := fmt.Sprintf("rw,user_id=%d", os.Geteuid())
	for _, options := range []string{"rw", own, "rw,user_id=", "rw,user_id=-1", "rw,user_id=99999999999"} {
		if dirs := runtimeDirs(host.MountEntry{Options: options}); len(dirs) != len(host.RuntimeDirs()) {
			t.Errorf("%s: %v", options, dirs)
		}
	}
}

func TestMountWithoutSocket(t *testing.T) {
	dev := unix.Mkdev(0, 1<<20-1) // none
	if m, err := Info(host.MountEntry{Dev: dev, Options: "user_id=0"}); !errors.Is(err, ErrNoSocket) {
		t.Errorf("%+v, %v", m, err)
	}
	if s, err := ReadStats(host.MountEntry{Dev: dev, Options: "user_id=0"}); !errors.Is(err, ErrNoSocket) {
		t.Errorf("%+v, %v", s, err)
	}
}
