package harness

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
)

// OldTime is the mtime of all that Build makes, so that a later change of it shows.
var OldTime = time.Unix(1_000_000_000, 0)

// Build makes the objects of a table below dir. The tables are those of testkit.Build, with these
// differences:
//
//	opaque  PATH [MODE]    the xattr of the directory is the one that the mode may write
//	time    PATH SECONDS   atime and mtime; all other objects get OldTime
//	# COMMENT
func Build(t *testing.T, e *Env, dir, table string) {
	t.Helper()
	var objects, paths []string
	var times []func() // in the order of the table: two names may be one object
	for line := range strings.SplitSeq(table, "\n") {
		words, err := testkit.Words(line)
		switch {
		case err != nil, len(words) == 1:
			t.Fatalf("line %q: a word without a path, or %v", line, err)
		case len(words) == 0 || strings.HasPrefix(words[0], "#"):
			continue
		case words[0] == "time":
			seconds, err := strconv.ParseInt(words[2], 10, 64)
			Check(t, err)
			times = append(times, func() {
				Check(t, SetTimes(filepath.Join(dir, words[1]), time.Unix(seconds, 0)))
			})
			continue
		case words[0] == "opaque": // the mode comes last: it may forbid a write of the xattr
			dir := "dir " + Word(words[1])
			objects = append(objects, dir, fmt.Sprintf("xattr %s %s y", Word(words[1]), e.OpaqueName()))
			line = dir + " " + strings.Join(words[2:], " ")
		}
		objects = append(objects, line)
		for p := filepath.Clean(words[1]); p != "."; p = filepath.Dir(p) {
			paths = append(paths, p)
		}
	}
	testkit.Build(t, dir, strings.Join(objects, "\n"))
	for _, p := range append(paths, ".") {
		Check(t, SetTimes(filepath.Join(dir, p), OldTime))
	}
	for _, set := range times {
		set()
	}
}

// Word is a word of a table, quoted only if it has to be.
func Word(s string) string {
	if q := strconv.Quote(s); len(q) != len(s)+2 || s == "" || strings.ContainsAny(s, " #") {
		return q
	}
	return s
}

// SetTimes sets atime and mtime of an object, and does not follow a symbolic link.
func SetTimes(path string, at time.Time) error {
	ts := unix.NsecToTimespec(at.UnixNano())
	return unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
}
