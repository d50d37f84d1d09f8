package harness

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func Check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// WantErr fails unless err is one of the wanted errors.
func WantErr(t *testing.T, what string, err error, want ...syscall.Errno) {
	t.Helper()
	for _, w := range want {
		if errors.Is(err, w) {
			return
		}
	}
	names := make([]string, len(want))
	for i, w := range want {
		names[i] = ErrnoName(w)
	}
	t.Errorf("%s: got %v, want %s", what, err, strings.Join(names, " or "))
}

func ErrnoName(err error) string {
	if err == nil {
		return "ok"
	}
	var e syscall.Errno
	if errors.As(err, &e) {
		return unix.ErrnoName(e)
	}
	return err.Error()
}

func WantText(t *testing.T, path, want string) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		t.Errorf("reading %s: %v", path, err)
		return
	}
	if string(got) != want {
		t.Errorf("%s holds %s, want %s", path, Brief(string(got)), Brief(want))
	}
}

func WantNames(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	Check(t, err)
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%s lists %q, want %q", dir, got, want)
	}
}

func WantAbsent(t *testing.T, path string) {
	t.Helper()
	_, err := os.Lstat(path)
	WantErr(t, "lstat "+path, err, syscall.ENOENT)
}

func Equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func Brief(s string) string {
	if len(s) > 80 {
		s = s[:80] + "..."
	}
	return strings.ReplaceAll(strconv.Quote(s), "\n", `\n`)
}

func Mkdir(t *testing.T, dirs ...string) {
	t.Helper()
	for _, d := range dirs {
		Check(t, os.MkdirAll(d, 0o755))
	}
}

func Write(t *testing.T, path, text string) {
	t.Helper()
	Check(t, os.WriteFile(path, []byte(text), 0o644))
}

func AppendTo(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	Check(t, err)
	_, err = io.WriteString(f, text)
	Check(t, err)
	Check(t, f.Close())
}

func Open(t *testing.T, path string, flags int) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, flags, 0o644)
	Check(t, err)
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func Lstat(t *testing.T, path string) unix.Stat_t {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatalf("lstat %s: %v", path, err)
	}
	return st
}

func Fstat(t *testing.T, f *os.File) unix.Stat_t {
	t.Helper()
	var st unix.Stat_t
	Check(t, unix.Fstat(int(f.Fd()), &st))
	return st
}

func ReadText(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	Check(t, err)
	return string(text)
}

// WantEmpty fails when a directory has entries.
func WantEmpty(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	Check(t, err)
	if len(entries) > 0 {
		t.Errorf("%s holds %v", dir, entries)
	}
}

const MiB = 1 << 20

func Owner(t *testing.T, path string) string {
	t.Helper()
	st := Lstat(t, path)
	return fmt.Sprintf("%d:%d %04o", st.Uid, st.Gid, st.Mode&0o7777)
}

// ModeAlone asks for the mode and no more, as exec and permission checks do: for size and times, which a write makes it
// doubt, the kernel would ask the daemon, and learn the mode as well.
func ModeAlone(t *testing.T, path string) uint16 {
	t.Helper()
	var st unix.Statx_t
	Check(t, unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_MODE, &st))
	return st.Mode & 0o7777
}

func AppendErr(p string) error {
	f, err := os.OpenFile(p, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString("more")
	if e := f.Close(); err == nil {
		err = e
	}
	return err
}

func XattrOf(path, name string) string {
	v, err := GetXattr(path, name)
	if err != nil {
		return ErrnoName(err)
	}
	return v
}

// Listed is all that lies below a folder, in a line each.
func Listed(t *testing.T, dir string) string {
	t.Helper()
	return Shell(t, dir, `find . -mindepth 1 -printf '%P\n' | sort`)
}
