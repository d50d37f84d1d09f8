package changes

import (
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	overlay "github.com/fuse-overlay/fuse-overlay/fs"
	"github.com/fuse-overlay/fuse-overlay/internal/ondisk"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit/systest"
)

// withIndex makes layers with an index in which the file at a path of the lower has a copy. lower
// names are those that only the lower has.
func withIndex(t *testing.T, upper, lower, path string, lowerNames int) overlay.Config {
	t.Helper()
	cfg := layers(t, upper, lower)
	cfg.Features.Index, cfg.Work = true, filepath.Join(t.TempDir(), "work")
	index := filepath.Join(cfg.Work, indexName)
	root, _, err := sys.OpenLower(cfg.Lowers[0])
	must(t, err)
	defer root.Close()
	var h ondisk.Handle
	h.Handle, err = root.At(path).Handle()
	must(t, err)
	h.UUID, err = root.FSUUID()
	must(t, err)
	copied := filepath.Join(index, h.IndexName())
	testkit.Build(t, index, "file "+h.IndexName()+" \"changed\"")
	value := ondisk.LinkCount{Diff: lowerNames - 1}.Encode()
	must(t, unix.Setxattr(copied, ondisk.Trusted.Name(ondisk.Nlink), value, 0))
	age(t, index)
	return cfg
}

// A name that only the lower has shows the copy in the index, so it has changed.
func TestNamesOfLowersAlone(t *testing.T) {
	const lower = "file a \"text\"\nfile d/sub/other\nfile d/x\nlink d/sub/b a\nlink c a\nfile z\nlink z2 z"
	const want3 = "M a|content\nM c|content\nM d/sub/b|content"
	for _, tt := range []struct {
		name, upper, want string
		paths             []string
	}{
		{"all names", "", want3, nil},
		{"but one that is gone", "white a", "D a\nM c|content\nM d/sub/b|content", nil},
		{"below a directory of the upper", "file d/new", "M a|content\nM c|content\nA d/new\nM d/sub/b|content", nil},
		{"selected", "", "M d/sub/b|content", []string{"d"}},
	} {
		cfg := withIndex(t, tt.upper, lower, "a", 3)
		want(t, tt.name, lines(t, cfg, tt.paths...), tt.want)
	}
}

// If the index has no such name, the walk reads no more than without an index.
func TestIndexWithoutNamesOfLowersAlone(t *testing.T) {
	cfg := withIndex(t, "", "file a \"text\"\nlink b a\nfile d/in", "a", 0)
	listed := 0
	c := open(t, cfg)
	for _, op := range systest.Calls(func() { must(t, c.Walk(nil, &Summary{})) }) {
		if op.Call == "getdents64" {
			listed++
		}
	}
	if listed > 4 { // the root of the upper and the index, each with a call that finds the end
		t.Errorf("%d parts of listings are read", listed)
	}
}
