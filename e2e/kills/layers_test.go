package kills

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// buildLowers fills two lowers with objects of each process, and returns the merged tree of each.
func buildLowers(t *testing.T, r *rand.Rand, lowers []string, p *policy, indexed, handles bool) []*tree {
	t.Helper()
	for _, lower := range lowers {
		for _, dir := range sharedDirs {
			harness.Mkdir(t, filepath.Join(lower, dir))
		}
	}
	var trees []*tree
	for id := range processes {
		g := newGenerator(r.Uint64(), id, newTree(indexed, handles), p)
		g.fillLowers(t, lowers)
		trees = append(trees, g.tree)
	}
	return trees
}

// fillLowers makes the lower objects of a process: in each directory files, some of them large,
// symbolic links, linked files, and directories, which lie in both lowers.
func (g *generator) fillLowers(t *testing.T, lowers []string) {
	t.Helper()
	g.addLower(t, lowers, g.fresh(), unix.S_IFREG, 2<<20) // two large files
	g.addLower(t, lowers, g.fresh(), unix.S_IFREG, 1<<20)
	for range 8 {
		g.addLower(t, lowers, g.fresh(), unix.S_IFDIR, 0)
	}
	for range 30 {
		g.addLower(t, lowers, g.fresh(), pick(g, []uint32{unix.S_IFREG, unix.S_IFREG, unix.S_IFREG, unix.S_IFLNK}), 1+g.IntN(9000))
	}
	for range 3 {
		g.linkLower(t, lowers)
	}
	for _, p := range g.tree.paths() { // after all names have been made
		o := g.tree.at(p)
		for _, lower := range lowers {
			if path := filepath.Join(lower, p); harness.KindOf(path) != 0 {
				harness.Check(t, os.Lchown(path, o.UID, o.GID))
				harness.Check(t, harness.SetTimes(path, harness.OldTime))
			}
		}
	}
	for _, lower := range lowers {
		for _, p := range g.tree.paths() { // a whiteout in a lower, and what it hides
			if g.tree.at(p).isDir() && g.chance(10) && lower == lowers[1] {
				harness.Write(t, filepath.Join(lower, p, fmt.Sprintf("w%d-y", g.id)), "hidden")
				hide(t, filepath.Join(lowers[0], p, fmt.Sprintf("w%d-y", g.id)))
			}
		}
	}
}

// hide makes a whiteout.
func hide(t *testing.T, path string) {
	t.Helper()
	harness.Mkdir(t, filepath.Dir(path))
	harness.Check(t, unix.Mknod(path, unix.S_IFCHR, 0))
}

func (g *generator) addLower(t *testing.T, lowers []string, p string, kind uint32, size int) {
	t.Helper()
	if p == "" {
		return
	}
	o := g.p.newObject(kind, pick(g, []uint32{0o644, 0o600, 0o755}))
	o.Mtime = harness.OldTime.Unix()
	if len(g.p.Owners) > 0 {
		o.UID, o.GID = pick(g, g.p.Owners), pick(g, g.p.Owners)
	}
	in := slices.Clone(lowers)
	switch kind {
	case unix.S_IFDIR:
		o.Mode, o.InLower = pick(g, []uint32{0o755, 0o750, 0o777}), true
	default:
		in = []string{pick(g, lowers)}
	}
	if kind == unix.S_IFLNK {
		o.Target = strings.Repeat("l", 1+g.IntN(50))
	}
	if kind == unix.S_IFREG {
		o.Data = nonzero(g.Rand, size)
	}
	for _, lower := range in {
		path := filepath.Join(lower, p)
		switch kind {
		case unix.S_IFDIR:
			harness.Check(t, os.Mkdir(path, 0o700))
		case unix.S_IFLNK:
			harness.Check(t, os.Symlink(o.Target, path))
			continue
		default:
			harness.Check(t, os.WriteFile(path, o.Data, 0o600))
		}
		harness.Check(t, unix.Chmod(path, o.Mode))
		if g.chance(20) && kind == unix.S_IFREG {
			o.Xattrs = map[string]string{"user.a": "of the lower"}
			harness.Check(t, unix.Setxattr(path, "user.a", []byte("of the lower"), 0))
		}
	}
	g.tree.add(p, o)
}

// linkLower gives a file of a lower further names in the same lower.
func (g *generator) linkLower(t *testing.T, lowers []string) {
	t.Helper()
	from := g.some(func(o *object) bool { return o.isFile() && !o.InLower })
	if from == "" {
		return
	}
	lower := lowers[0]
	if harness.KindOf(filepath.Join(lower, from)) == 0 {
		lower = lowers[1]
	}
	for range 2 {
		if to := g.fresh(); to != "" {
			harness.Check(t, os.Link(filepath.Join(lower, from), filepath.Join(lower, to)))
			g.tree.Names[to] = g.tree.Names[from]
			g.tree.at(from).InLower = true
		}
	}
}
