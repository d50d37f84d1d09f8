package harness

import (
	"errors"
	"fmt"
	"io"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// MiB is the number of bytes in a mebibyte.
const MiB = 1 << 20

// Mkdir makes directories with their parents.
func Mkdir(t *testing.T, dirs ...string) {
	t.Helper()
	for _, d := range dirs {
		Check(t, os.MkdirAll(d, 0o755))
	}
}

// Write writes a file anew.
func Write(t *testing.T, path, text string) {
	t.Helper()
	Check(t, os.WriteFile(path, []byte(text), 0o644))
}

// AppendTo appends to a file that exists.
func AppendTo(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	Check(t, err)
	_, err = io.WriteString(f, text)
	Check(t, err)
	Check(t, f.Close())
}

// AppendErr appends to a file that exists, and returns the error of open, write or close.
func AppendErr(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString("more")
	return errors.Join(err, f.Close())
}

// Open opens a file until the test ends.
func Open(t *testing.T, path string, flags int) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, flags, 0o644)
	Check(t, err)
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// ReadText is the content of a file.
func ReadText(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	Check(t, err)
	return string(text)
}

// Lstat is lstat(2).
func Lstat(t *testing.T, path string) unix.Stat_t {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatalf("lstat %s: %v", path, err)
	}
	return st
}

// Fstat is fstat(2).
func Fstat(t *testing.T, f *os.File) unix.Stat_t {
	t.Helper()
	var st unix.Stat_t
	Check(t, unix.Fstat(int(f.Fd()), &st))
	return st
}

// KindOf is the type bits of an object's mode, 0 if there is no object.
func KindOf(path string) uint32 {
	var st unix.Stat_t
	if unix.Lstat(path, &st) != nil {
		return 0
	}
	return st.Mode & unix.S_IFMT
}

// Owner is the owner, the group and the mode of an object.
func Owner(t *testing.T, path string) string {
	t.Helper()
	st := Lstat(t, path)
	return fmt.Sprintf("%d:%d %04o", st.Uid, st.Gid, st.Mode&0o7777)
}

// ModeAlone looks up the mode and no more, as exec and permission checks do. For the size and the
// times, which a write invalidates, the kernel would send GETATTR to the daemon, and would get the
// mode as well.
func ModeAlone(t *testing.T, path string) uint16 {
	t.Helper()
	var st unix.Statx_t
	Check(t, unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_MODE, &st))
	return st.Mode & 0o7777
}
