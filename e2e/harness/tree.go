package harness

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A tree is written as a table, one object a line; words may be quoted as in Go:
//
//	dir     PATH [MODE]             made with its parents
//	file    PATH [MODE] ["TEXT"]
//	link    PATH EXISTING           hard link
//	symlink PATH TARGET
//	fifo    PATH [MODE]
//	sock    PATH [MODE]
//	char    PATH MAJOR/MINOR [MODE]
//	block   PATH MAJOR/MINOR [MODE]
//	white   PATH                    whiteout: character device 0/0
//	opaque  PATH [MODE]             directory with the opaque mark of the mode
//	xattr   PATH NAME VALUE
//	own     PATH UID GID
//	time    PATH SECONDS            atime and mtime
//	size    PATH BYTES              truncates or extends with a hole

// OldTime is the mtime of everything a table builds, so that a change of it shows.
var OldTime = time.Unix(1_000_000_000, 0)

// OpaqueName is the xattr that marks opaque directories where the mode may write it.
func (e *Env) OpaqueName() string {
	if e.Mode == ModeRoot {
		return "trusted.overlay.opaque"
	}
	return "user.overlay.opaque"
}

// Build makes the objects of a table under dir.
func Build(t *testing.T, e *Env, dir, table string) {
	t.Helper()
	var paths, times []string
	for line := range strings.SplitSeq(table, "\n") {
		words, err := SplitWords(line)
		if err != nil {
			t.Fatalf("line %q: %v", line, err)
		}
		if len(words) == 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		if words[0] == "time" {
			times = append(times, line)
			continue
		}
		if err := buildOne(e, dir, words); err != nil {
			t.Fatalf("line %q: %v", line, err)
		}
		for p := words[1]; p != "."; p = filepath.Dir(p) {
			paths = append(paths, p)
		}
	}
	for _, p := range append(paths, ".") {
		Check(t, SetTimes(filepath.Join(dir, p), OldTime))
	}
	for _, line := range times {
		words, _ := SplitWords(line)
		sec, err := strconv.ParseInt(words[2], 10, 64)
		Check(t, err)
		Check(t, SetTimes(filepath.Join(dir, words[1]), time.Unix(sec, 0)))
	}
}

func SetTimes(path string, at time.Time) error {
	ts := unix.NsecToTimespec(at.UnixNano())
	return unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
}

func buildOne(e *Env, dir string, words []string) error {
	if len(words) < 2 {
		return fmt.Errorf("no path")
	}
	path := filepath.Join(dir, words[1])
	arg := func(i int) string {
		if i < len(words) {
			return words[i]
		}
		return ""
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	switch words[0] {
	case "dir", "opaque":
		if err := os.MkdirAll(path, 0o755); err != nil {
			return err
		}
		if words[0] == "opaque" {
			if err := unix.Lsetxattr(path, e.OpaqueName(), []byte("y"), 0); err != nil {
				return err
			}
		}
		return setMode(path, arg(2), 0o755)
	case "file":
		text := arg(3)
		mode := arg(2)
		if len(words) == 3 && !isMode(mode) {
			mode, text = "", mode
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
		return setMode(path, mode, 0o644)
	case "link":
		return os.Link(filepath.Join(dir, arg(2)), path)
	case "symlink":
		return os.Symlink(arg(2), path)
	case "fifo":
		return makeNode(path, unix.S_IFIFO, 0, arg(2))
	case "sock":
		return makeNode(path, unix.S_IFSOCK, 0, arg(2))
	case "white":
		return makeNode(path, unix.S_IFCHR, 0, "0000")
	case "char", "block":
		var major, minor uint32
		if _, err := fmt.Sscanf(arg(2), "%d/%d", &major, &minor); err != nil {
			return err
		}
		kind := uint32(unix.S_IFCHR)
		if words[0] == "block" {
			kind = unix.S_IFBLK
		}
		return makeNode(path, kind, unix.Mkdev(major, minor), arg(3))
	case "xattr":
		return unix.Lsetxattr(path, arg(2), []byte(arg(3)), 0)
	case "own":
		uid, err := strconv.Atoi(arg(2))
		if err != nil {
			return err
		}
		gid, err := strconv.Atoi(arg(3))
		if err != nil {
			return err
		}
		return os.Lchown(path, uid, gid)
	case "size":
		n, err := strconv.ParseInt(arg(2), 10, 64)
		if err != nil {
			return err
		}
		return os.Truncate(path, n)
	}
	return fmt.Errorf("unknown word %q", words[0])
}

func isMode(s string) bool {
	_, err := strconv.ParseUint(s, 8, 12)
	return err == nil && len(s) == 4
}

func setMode(path, mode string, otherwise uint32) error {
	perm := otherwise
	if mode != "" {
		n, err := strconv.ParseUint(mode, 8, 12)
		if err != nil {
			return err
		}
		perm = uint32(n)
	}
	return unix.Chmod(path, perm)
}

func makeNode(path string, kind uint32, dev uint64, mode string) error {
	if err := unix.Mknod(path, kind|0o644, int(dev)); err != nil {
		return err
	}
	if kind == unix.S_IFCHR && dev == 0 {
		return nil
	}
	return setMode(path, mode, 0o644)
}

// SplitWords splits at blanks outside of Go quotes.
func SplitWords(line string) ([]string, error) {
	var words []string
	for rest := strings.TrimSpace(line); rest != ""; rest = strings.TrimSpace(rest) {
		if rest[0] == '"' {
			q, err := strconv.QuotedPrefix(rest)
			if err != nil {
				return nil, err
			}
			word, err := strconv.Unquote(q)
			if err != nil {
				return nil, err
			}
			words, rest = append(words, word), rest[len(q):]
			continue
		}
		word, after, _ := strings.Cut(rest, " ")
		words, rest = append(words, word), after
	}
	return words, nil
}

func quote(s string) string { return strconv.Quote(s) }
