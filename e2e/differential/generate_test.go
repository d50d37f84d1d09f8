package differential

import (
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
	"github.com/fuse-overlay/fuse-overlay/e2e/operation"
)

// generator makes layers and operations from a seed. It lists the kernel's side, so that most of
// its paths exist.
type generator struct {
	*rand.Rand
	mode  harness.Mode
	live  []string // what exists, as of the last look
	dirs  []string
	files []string                // regular ones
	other []string                // neither directories nor regular files
	known []string                // what ever was named
	slots [operation.Slots]string // the path of the file that each slot has open, probably
	maps  [operation.Slots]bool   // that have a mapping, probably
}

func newGenerator(seed uint64, m harness.Mode) *generator {
	return &generator{Rand: rand.New(rand.NewPCG(seed, 42)), mode: m}
}

var (
	names      = []string{"a", "b", "c", "d", "f", "g", "h", "file with blank", "\xffbytes\n", strings.Repeat("n", 255)}
	diffModes  = []string{"0644", "0600", "0755", "0777", "0400", "4755", "2755", "6711"}
	dirModes   = []string{"0755", "0777", "1777", "2775", "0700", "2777"}
	owners     = []string{"0 0", "1000 1000", "1001 1000", "0 1000"}
	xattrKeys  = []string{"user.a", "user.long.name.of.an.attribute", "trusted.t", "security.s"}
	upperCount = 4 // layers: three lowers and the upper
)

func pick[T any](g *generator, list []T) T { return list[g.IntN(len(list))] }

func (g *generator) chance(percent int) bool { return g.IntN(100) < percent }

// layers makes the tables of all layers, the upper first.
func (g *generator) layers() []string {
	below := map[string]string{} // what some lower layer has: path → kind
	tables := make([]string, upperCount)
	for i := upperCount - 1; i >= 0; i-- {
		tables[i] = g.layer(below)
	}
	for p := range below {
		g.known = append(g.known, p)
	}
	slices.Sort(g.known)
	return tables
}

// layer makes the table of one layer and adds its objects to below.
func (g *generator) layer(below map[string]string) string {
	var lines []string
	own := map[string]string{}
	var files, whites []string
	for range 8 + g.IntN(14) {
		p := g.layerPath(own)
		if p == "" || own[p] != "" {
			continue
		}
		kind := g.layerKind(below[p])
		switch kind {
		case "file":
			lines = append(lines, fmt.Sprintf("file %s %s %q", harness.Word(p), pick(g, diffModes), g.content()))
			files = append(files, p)
		case "link":
			if len(files) == 0 {
				continue
			}
			lines = append(lines, fmt.Sprintf("link %s %s", harness.Word(p), harness.Word(pick(g, files))))
		case "symlink":
			lines = append(lines, fmt.Sprintf("symlink %s %s", harness.Word(p),
				pick(g, []string{"a", "b/f", "../a", "missing", "."})))
		case "dir", "opaque":
			lines = append(lines, fmt.Sprintf("%s %s %s", kind, harness.Word(p), pick(g, dirModes)))
		case "white":
			whites = append(whites, p)
		case "char":
			lines = append(lines, fmt.Sprintf("char %s 1/3 0666", harness.Word(p)))
		case "block":
			lines = append(lines, fmt.Sprintf("block %s 7/250 0660", harness.Word(p)))
		default: // fifo, sock
			lines = append(lines, fmt.Sprintf("%s %s", kind, harness.Word(p)))
		}
		own[p] = kind
		if kind == "white" {
			continue
		}
		lines = append(lines, g.attributes(p, kind)...)
	}
	for _, p := range whites {
		// In a directory that merges with nothing the kernel lists a whiteout as a name without an
		// object.
		if !slices.ContainsFunc(parents(p), func(q string) bool { return own[q] == "opaque" || !isDirKind(below[q]) }) {
			lines = append(lines, "white "+harness.Word(p))
		}
	}
	maps.DeleteFunc(below, func(p, _ string) bool { // what the layer hides
		return slices.ContainsFunc(append(parents(p), p), func(q string) bool { return own[q] != "" && own[q] != "dir" })
	})
	for p, kind := range own {
		if kind != "white" {
			below[p] = kind
		}
	}
	return strings.Join(lines, "\n")
}

func isDirKind(kind string) bool { return kind == "dir" || kind == "opaque" }

// layerPath picks a path whose parents are directories of the layer, or do not exist in it.
func (g *generator) layerPath(own map[string]string) string {
	p := ""
	for range 1 + g.IntN(3) {
		p = filepath.Join(p, pick(g, names[:5+g.IntN(len(names)-4)]))
		for parent := filepath.Dir(p); parent != "."; parent = filepath.Dir(parent) {
			if k := own[parent]; k != "" && k != "dir" && k != "opaque" {
				return ""
			}
		}
	}
	for parent := filepath.Dir(p); parent != "."; parent = filepath.Dir(parent) {
		if own[parent] == "" {
			own[parent] = "dir" // made by the table builder
		}
	}
	return p
}

func (g *generator) layerKind(below string) string {
	if below != "" && g.chance(35) {
		if below == "dir" && g.chance(50) {
			return "opaque"
		}
		return "white"
	}
	kinds := []string{"file", "file", "file", "file", "dir", "dir", "dir", "link", "link", "symlink", "fifo", "sock"}
	if g.mode == harness.ModeRoot {
		kinds = append(kinds, "char", "block")
	}
	return pick(g, kinds)
}

func (g *generator) attributes(p, kind string) []string {
	var lines []string
	if kind != "link" {
		lines = append(lines, fmt.Sprintf("own %s %s", harness.Word(p), pick(g, owners)))
	}
	if (kind == "file" || kind == "dir") && g.chance(30) {
		lines = append(lines, fmt.Sprintf("xattr %s %s v%d", harness.Word(p), g.xattrKey(), g.IntN(100)))
	}
	return append(lines, fmt.Sprintf("time %s %d", harness.Word(p), harness.OldTime.Unix()+int64(g.IntN(1000))))
}

func (g *generator) xattrKey() string {
	if g.mode != harness.ModeRoot {
		return pick(g, xattrKeys[:2])
	}
	return pick(g, xattrKeys)
}

// content is mostly short, sometimes longer than a page, rarely longer than a request.
func (g *generator) content() string {
	n := g.IntN(12)
	switch {
	case g.chance(10):
		n = 3000 + g.IntN(9000)
	case g.chance(2):
		n = 150_000 + g.IntN(200_000)
	}
	return strings.Repeat(string(rune('a'+g.IntN(26))), n)
}

// look lists the objects and the slots of one side.
func (g *generator) look(s *operation.Side) {
	root := s.Overlay.Point
	for i, fd := range s.FDs {
		g.maps[i] = s.Mapped(i)
		if fd < 0 {
			g.slots[i] = ""
		}
	}
	g.live, g.dirs, g.files, g.other = nil, []string{"."}, nil, nil
	_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == root {
			return nil
		}
		rel, _ := filepath.Rel(root, path)
		g.live = append(g.live, rel)
		switch {
		case d.IsDir():
			g.dirs = append(g.dirs, rel)
		case d.Type().IsRegular():
			g.files = append(g.files, rel)
		default:
			g.other = append(g.other, rel)
		}
		return nil
	})
}

// path is a path that likely exists.
func (g *generator) path() string {
	switch {
	case len(g.live) > 0 && g.chance(80):
		return pick(g, g.live)
	case len(g.known) > 0 && g.chance(60):
		return pick(g, g.known)
	}
	return g.fresh()
}

// fresh is a new or removed name in a directory that likely exists.
func (g *generator) fresh() string {
	if len(g.known) > 0 && g.chance(40) {
		return pick(g, g.known)
	}
	dir := "."
	if len(g.dirs) > 0 {
		dir = pick(g, g.dirs)
	}
	if strings.Count(dir, "/") > 3 {
		dir = "."
	}
	p := filepath.Join(dir, pick(g, names))
	if g.chance(1) {
		p += strings.Repeat("x", 256)
	} else {
		g.known = append(g.known, p)
	}
	return p
}

func (g *generator) dir() string {
	if len(g.dirs) > 1 && g.chance(85) {
		return pick(g, g.dirs[1:])
	}
	return g.path()
}

// file is mostly the path of a regular file.
func (g *generator) file() string {
	if len(g.files) > 0 && g.chance(85) {
		return pick(g, g.files)
	}
	return g.path()
}

func (g *generator) object() string {
	if len(g.other) > 0 && g.chance(25) {
		return pick(g, g.other)
	}
	return g.file()
}

func (g *generator) offset() int64 {
	if g.chance(10) {
		return int64(g.IntN(300_000))
	}
	return int64(g.IntN(20))
}

// perm picks a mode from a list.
func (g *generator) perm(list []string) int64 {
	var n int64
	_, _ = fmt.Sscanf(pick(g, list), "%o", &n)
	return n
}
