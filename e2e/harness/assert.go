package harness

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Check ends the test if there is an error.
func Check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Equal fails the test if two values differ.
func Equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// WantErr fails the test unless err is one of the wanted errors.
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

// ErrnoName is the name of an errno, "ok" for no error, and the text of any other error.
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

// WantText fails the test if a file cannot be read or holds another text.
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

// WantNames fails the test unless a directory lists these names.
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

// WantAbsent fails the test unless there is no object of this name.
func WantAbsent(t *testing.T, path string) {
	t.Helper()
	_, err := os.Lstat(path)
	WantErr(t, "lstat "+path, err, syscall.ENOENT)
}

// Brief quotes a text, at most 80 bytes of it.
func Brief(s string) string {
	if len(s) > 80 {
		s = s[:80] + "..."
	}
	return strings.ReplaceAll(strconv.Quote(s), "\n", `\n`)
}

// Clip is the beginning of a long report.
func Clip(s string) string {
	if len(s) > 6000 {
		return s[:6000] + "..."
	}
	return s
}

// Digest quotes a short text, and is the sum of any other.
func Digest(data []byte) string {
	if len(data) < 40 {
		return strconv.Quote(string(data))
	}
	sum := sha256.Sum256(data)
	return fmt.Sprintf("%x", sum[:8])
}
