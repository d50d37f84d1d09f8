package changes

import (
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	overlay "github.com/fuse-overlay/fuse-overlay/fs"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit/systest"
)

func TestMain(m *testing.M) { testkit.MainInMemory(m) }

var must = testkit.Must

// layers makes the folders that tables describe, the upper first. All objects have one time of
// modification.
func layers(t *testing.T, upper string, lowers ...string) overlay.Config {
	t.Helper()
	l := testkit.NewLayers(t, upper, lowers...)
	for _, dir := range append([]string{l.Upper}, l.Lowers...) {
		age(t, dir)
	}
	return overlay.Config{
		Upper: l.Upper, Lowers: l.Lowers, Log: zap.NewNop(), Redirects: overlay.RedirectsFollow,
		Features: overlay.Features{MetaCopy: true},
	}
}

// age gives all objects of a folder the same time of modification.
func age(t *testing.T, dir string) {
	t.Helper()
	must(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		old := []unix.Timespec{{Sec: 1000}, {Sec: 1000}}
		return unix.UtimesNanoAt(unix.AT_FDCWD, path, old, unix.AT_SYMLINK_NOFOLLOW)
	}))
}

func open(t *testing.T, cfg overlay.Config) *Comparison {
	t.Helper()
	var c *Comparison
	var err error
	systest.WithoutClones(func() { c, err = Open(cfg) })
	must(t, err)
	t.Cleanup(c.Close)
	return c
}

// lines returns the lines of a comparison.
func lines(t *testing.T, cfg overlay.Config, paths ...string) string {
	t.Helper()
	var b strings.Builder
	must(t, open(t, cfg).Walk(paths, &Lines{W: &b}))
	return b.String()
}

// want compares lines, of which those of the table may be indented. "|" stands for a tab.
func want(t *testing.T, what, got, table string) {
	t.Helper()
	var b strings.Builder
	for line := range strings.Lines(table) {
		if line = strings.TrimSpace(line); line != "" {
			b.WriteString(strings.ReplaceAll(line, "|", "\t") + "\n")
		}
	}
	if got != b.String() {
		t.Errorf("%s:\n%swant:\n%s", what, got, b.String())
	}
}
