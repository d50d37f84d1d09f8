package changes

import (
	"fmt"
	"os"
	"testing"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	overlay "github.com/fuse-overlay/fuse-overlay/fs"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit/systest"
)

const (
	worldDirs    = 500 // directories that both lowers have
	changedDirs  = 100 // of them
	changesOfDir = 10  // five files with other data, three new ones, two that are gone
)

// world makes two lowers, and an upper with 1,000 changes. A lower has names in each of worldDirs
// directories, and as many as in all of these in one large directory. All names of a lower are hard
// links of one file: a million files would need as many inodes.
func world(t *testing.T, names int) (cfg overlay.Config) {
	t.Helper()
	dir := testkit.Mount(t, "tmpfs", "tmpfs", "nr_inodes=0,mode=0755")
	cfg = overlay.Config{Log: zap.NewNop(), Redirects: overlay.RedirectsFollow, Upper: dir + "/upper"}
	inDir := func(i int) string { return fmt.Sprintf("/%03d", i) }
	for _, layer := range []string{"lower1", "lower2"} {
		root := dir + "/" + layer
		cfg.Lowers = append(cfg.Lowers, root)
		must(t, os.MkdirAll(root+"/large", 0o755))
		must(t, os.WriteFile(root+"/file", []byte("data"), 0o644))
		for i := range worldDirs {
			must(t, os.Mkdir(root+inDir(i), 0o755))
			for n := range names {
				must(t, unix.Link(root+"/file", fmt.Sprintf("%s%s/%s-%d", root, inDir(i), layer, n)))
				must(t, unix.Link(root+"/file", fmt.Sprintf("%s/large/%s-%d-%d", root, layer, i, n)))
			}
		}
	}
	must(t, os.MkdirAll(cfg.Upper+"/large", 0o755))
	for i := range changedDirs - 1 {
		must(t, os.Mkdir(cfg.Upper+inDir(i), 0o755))
		change(t, cfg.Upper+inDir(i), "lower1-%d", "lower2-%d")
	}
	change(t, cfg.Upper+"/large", "lower1-7-%d", "lower2-7-%d")
	return cfg
}

// change makes the changes of one directory. The arguments are the patterns of the names in each
// lower.
func change(t *testing.T, upper, name1, name2 string) {
	t.Helper()
	for n := range 5 {
		must(t, os.WriteFile(upper+"/"+fmt.Sprintf(name2, n), []byte("other data"), 0o644))
	}
	for n := range 3 {
		must(t, os.WriteFile(upper+fmt.Sprintf("/new-%d", n), nil, 0o644))
	}
	for n := range 2 {
		must(t, unix.Mknod(upper+"/"+fmt.Sprintf(name1, n), unix.S_IFCHR, 0))
	}
}

// 1,000 changes cost what they cost, over 10,000 names and over a million.
func TestCostOverAMillionNames(t *testing.T) {
	var calls [2]int
	for i, names := range []int{5, 500} {
		start := time.Now()
		c := open(t, world(t, names))
		built := time.Since(start)
		var s Summary
		start = time.Now()
		calls[i] = len(systest.Calls(func() { must(t, c.Walk(nil, &s)) }))
		t.Logf("%d names, made in %v: %d system calls in %v", 2*2*worldDirs*names, built, calls[i], time.Since(start))
		if s.counts[Added] != 3*changedDirs || s.counts[Deleted] != 2*changedDirs || s.counts[Modified] < 5*changedDirs {
			t.Errorf("counted %v", s.counts)
		}
		c.Close()
	}
	if calls[0] != calls[1] || calls[0] == 0 {
		t.Errorf("%d calls over few names, %d over many", calls[0], calls[1])
	}
}
