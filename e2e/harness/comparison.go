package harness

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// ReadByEngine is an overlay without an upper, with the folders that container engines use to read
// their layers.
func (e *Env) ReadByEngine(t *testing.T, lowers ...string) *Overlay {
	t.Helper()
	o := e.Overlay(t, lowers...)
	diff := filepath.Join(e.Dir, "diff")
	o.Lowers, o.Upper, o.Work, o.Point = append([]string{diff}, o.Lowers...), "", "", filepath.Join(e.Dir, "merged")
	Mkdir(t, diff, o.Point)
	return o
}

// Requested is what a comparison requests of each object.
type Requested int

// What comparisons request.
const (
	Capabilities         Requested = iota // security.capability, as docker does
	CapabilitiesAndLists                  // and the list of all xattrs, as podman does
)

// Compared requests the xattrs of each object below root but root itself, as an engine that
// compares two trees does. It returns the number of objects, and how many answers of each errno
// there were.
func Compared(t *testing.T, root string, what Requested) (objects int, answers map[string]int) {
	t.Helper()
	answers = map[string]int{}
	count := func(err error) {
		if err != nil {
			answers[unix.ErrnoName(err.(unix.Errno))]++
		}
	}
	Check(t, filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		objects++
		var buf [128]byte
		_, err = unix.Lgetxattr(path, "security.capability", buf[:])
		count(err)
		if what == CapabilitiesAndLists {
			_, err = unix.Llistxattr(path, buf[:])
			count(err)
		}
		return nil
	}))
	return objects, answers
}

// IsQuiet reports whether the daemon logs within some time that the kernel is to request no values
// of xattrs any more.
func (o *Overlay) IsQuiet(within time.Duration) bool {
	return Eventually(within, func() bool {
		text, _ := os.ReadFile(o.Log)
		return LogsQuiet(string(text))
	})
}

// LogsQuiet reports whether a log has the line that IsQuiet waits for.
func LogsQuiet(log string) bool {
	return strings.Contains(log, `"requested":"none"`) || strings.Contains(log, `"requested":"lists"`)
}
