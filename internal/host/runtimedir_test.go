package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Root of the first user namespace has /run, whatever its environment is. Others prefer their own.
func TestRuntimeDirs(t *testing.T) {
	user := uint32(os.Geteuid())
	for _, variable := range []string{"", "relative", "/nowhere/run"} {
		t.Setenv("XDG_RUNTIME_DIR", variable)
		got := RuntimeDirs()
		if IsHostRoot() {
			if len(got) != 1 || got[0] != (RuntimeDir{"/run", 0}) {
				t.Errorf("XDG_RUNTIME_DIR=%q: %v", variable, got)
			}
			continue
		}
		last := RuntimeDir{fmt.Sprintf("/run/user/%d", outerID(user)), user}
		if got[len(got)-1] != last || (len(got) == 2) != (variable == "/nowhere/run") {
			t.Errorf("XDG_RUNTIME_DIR=%q: %v", variable, got)
		}
	}
	if got := RuntimeDirOf(1000); got != (RuntimeDir{"/run/user/1000", 1000}) {
		t.Errorf("that of user 1000: %v", got)
	}
	if got := RuntimeDirOf(0); got != (RuntimeDir{"/run", 0}) {
		t.Errorf("that of root: %v", got)
	}
}

func TestRuntimeDirThatOthersReach(t *testing.T) {
	user := uint32(os.Geteuid())
	path := t.TempDir()
	for mode, ok := range map[os.FileMode]bool{0o700: true, 0o500: true, 0o711: false, 0o750: false, 0o702: false} {
		must(t, os.Chmod(path, mode))
		f, err := RuntimeDir{path, user}.Open()
		if (err == nil) != ok || err != nil && !errors.Is(err, unix.EPERM) {
			t.Errorf("mode %o: %v", mode, err)
		}
		if f != nil {
			f.Close()
		}
	}
	must(t, os.Chmod(path, 0o700))
	if _, err := (RuntimeDir{path, user + 1}).Open(); err == nil || !strings.Contains(err.Error(), "belongs to user") {
		t.Errorf("another user's: %v", err)
	}
	if _, err := (RuntimeDir{filepath.Join(path, "none"), user}).Open(); !errors.Is(err, unix.ENOENT) {
		t.Errorf("a missing one: %v", err)
	}
}

func openFolder(t *testing.T) (path string, f *Folder) {
	t.Helper()
	path = t.TempDir()
	must(t, os.Chmod(path, 0o700))
	f, err := RuntimeDir{path, uint32(os.Geteuid())}.Open()
	must(t, err)
	t.Cleanup(f.Close)
	return path, f
}

func TestSocketInAFolder(t *testing.T) {
	path, f := openFolder(t)
	if f.Identify("s") != (Identity{}) {
		t.Error("a missing name has an identity")
	}
	l, err := f.Listen("s", 1)
	must(t, err)
	info, err := os.Lstat(filepath.Join(path, "s"))
	must(t, err)
	if info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	if _, err := f.Listen("s", 1); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("a second socket of the name: %v", err)
	}
	c, err := f.Dial(context.Background(), "s")
	must(t, err)
	defer c.Close()
	server, err := l.AcceptUnix()
	must(t, err)
	defer server.Close()
	for _, end := range []*net.UnixConn{c, server} {
		if uid, err := PeerUser(end); err != nil || uid != uint32(os.Geteuid()) {
			t.Errorf("the peer is user %d, %v", uid, err)
		}
	}
	// The kernel has room for one client more than the backlog.
	var full error
	for range 4 {
		waiting, err := f.Dial(context.Background(), "s")
		if err != nil {
			full = err
			break
		}
		defer waiting.Close()
	}
	if !errors.Is(full, unix.EAGAIN) {
		t.Errorf("beyond the backlog: %v, want EAGAIN", full)
	}
	must(t, l.Close())
	if _, err := f.Dial(context.Background(), "s"); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("without a listener: %v", err)
	}
	first := f.Identify("s")
	must(t, f.Remove("s"))
	must(t, f.Remove("s"))
	if _, err := f.Dial(context.Background(), "s"); !errors.Is(err, unix.ENOENT) {
		t.Errorf("without the name: %v", err)
	}
	l, err = f.Listen("s", 1)
	must(t, err)
	defer l.Close()
	if f.Identify("s") == first {
		t.Error("two sockets of one name have the same identity")
	}
}

func TestMakeKeepsAFolder(t *testing.T) {
	user := uint32(os.Geteuid())
	path, f := openFolder(t)
	if _, err := f.Enter("sub", user); !errors.Is(err, unix.ENOENT) {
		t.Errorf("a missing one: %v", err)
	}
	for range 2 {
		sub, err := f.Make("sub", user)
		must(t, err)
		if want := filepath.Join(path, "sub"); sub.Path() != want {
			t.Errorf("path %s, want %s", sub.Path(), want)
		}
		sub.Close()
	}
	info, err := os.Stat(filepath.Join(path, "sub"))
	must(t, err)
	if info.Mode() != os.ModeDir|0o700 {
		t.Errorf("mode %v", info.Mode())
	}
}

func TestResidentMemory(t *testing.T) {
	before, err := ResidentMemory()
	must(t, err)
	const size = 64 << 20
	used := make([]byte, size)
	for i := 0; i < size; i += 4096 {
		used[i] = 1
	}
	after, err := ResidentMemory()
	must(t, err)
	if after < before+size/2 || after > before+4*size {
		t.Errorf("%d bytes before %d more are used, and %d then", before, len(used), after)
	}
}
