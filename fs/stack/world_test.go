package stack

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/copyup"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
)

// world is a stack that is changed at random, with the directories held as the caller of the stack
// holds them, and a plain list of what it should show.
type world struct {
	*site
	r     *rand.Rand
	held  map[string]*merged
	shown map[string]string // by path, the rest of its line
	made  int
}

func newWorld(t *testing.T, seed uint64, format func(*site)) *world {
	w := &world{r: rand.New(rand.NewPCG(seed, 0)), held: map[string]*merged{}, shown: map[string]string{}}
	w.site = newSite(t, w.randomLayer(), w.randomLayer(), w.randomLayer(), w.randomLayer())
	format(w.site)
	for line := range strings.SplitSeq(w.view(), "\n") {
		if words := strings.SplitN(line, " ", 3); len(words) == 3 {
			w.shown[words[1]] = words[0] + " " + words[2]
		}
	}
	return w
}

const alphabet = "abcd"

func (w *world) randomName() string { i := w.r.IntN(len(alphabet)); return alphabet[i : i+1] }

// randomLayer describes a layer with objects, whiteouts and opaque directories.
func (w *world) randomLayer() string {
	taken := map[string]bool{}
	var table strings.Builder
	var fillDir func(dir string, depth int)
	fillDir = func(dir string, depth int) {
		for range w.r.IntN(4) {
			p := path.Join(dir, w.randomName())
			if taken[p] {
				continue
			}
			taken[p] = true
			switch w.r.IntN(8) {
			case 0:
				table.WriteString(white(p, false))
			case 1:
				table.WriteString(white(p, true))
			case 2, 3:
				w.made++
				fmt.Fprintf(&table, "file %s \"%d\"\n", p, w.made)
			case 4:
				fmt.Fprintf(&table, "symlink %s t\n", p)
			case 5:
				fmt.Fprintf(&table, "opaque %s\n", p)
				fillDir(p, depth+1)
			default:
				fmt.Fprintf(&table, "dir %s\n", p)
				if depth < 3 {
					fillDir(p, depth+1)
				}
			}
		}
	}
	fillDir(".", 0)
	return table.String()
}

// at returns the held directory at a path.
func (w *world) at(dir string) *merged {
	if m := w.held[dir]; m != nil {
		return m
	}
	var m *merged
	if dir == "." {
		m = w.mergedDir(w.RootDir(), "")
	} else {
		parent := w.at(path.Dir(dir))
		f := parent.lookup(path.Base(dir))
		m = w.mergedDir(parent.newDir(f.Dirs), dir)
	}
	w.held[dir] = m
	return m
}

// copyUp copies an object up, its directories first.
func (w *world) copyUp(p string) {
	w.t.Helper()
	if p == "." {
		return
	}
	w.copyUp(path.Dir(p))
	parent, name := w.at(path.Dir(p)), path.Base(p)
	f := parent.lookup(name)
	if f.State != InLower {
		return
	}
	from, err := parent.Layer(f.Layer)
	must(w.t, err)
	staged, _, err := w.Stage(&Source{Layer: f.Layer, Ref: from.At(name)}, copyup.Whole(), &f.Stat)
	must(w.t, err)
	must(w.t, staged.Publish(parent.upper(), name))
	if file := staged.File(); file != nil {
		file.Close()
	}
	w.CopiedUp(&parent.Dir, name)
	if m := w.held[p]; m != nil {
		m.AddUpper()
		w.loaded(m)
	}
}

// pick returns a directory that shows, and a name in it.
func (w *world) pick() (p string, f Found) {
	dirs := []string{"."}
	for _, p := range slices.Sorted(maps.Keys(w.shown)) {
		if strings.HasPrefix(w.shown[p], "dir ") && strings.Count(p, "/") < 3 {
			dirs = append(dirs, p)
		}
	}
	dir, name := dirs[w.r.IntN(len(dirs))], w.randomName()
	return path.Join(dir, name), w.at(dir).lookup(name)
}

// drop forgets what is held at p and below.
func (w *world) drop(p string) {
	for at := range w.held {
		if at == p || strings.HasPrefix(at, p+"/") {
			delete(w.held, at)
		}
	}
}

// move renames what is held, and what shows, at from and below.
func (w *world) move(from, to string) (undo func()) {
	held, shown := map[string]*merged{}, map[string]string{}
	for at, m := range w.held {
		if at == from || strings.HasPrefix(at, from+"/") {
			held[to+at[len(from):]] = m
			delete(w.held, at)
		}
	}
	for at, line := range w.shown {
		if at == from || strings.HasPrefix(at, from+"/") {
			shown[to+at[len(from):]] = line
			delete(w.shown, at)
		}
	}
	return func() {
		for at, m := range held {
			m.path = at
			w.held[at] = m
		}
		maps.Copy(w.shown, shown)
	}
}

// step makes one random change, and returns its description.
func (w *world) step() string {
	for {
		if done := w.try(); done != "" {
			return done
		}
	}
}

func (w *world) try() string {
	p, f := w.pick()
	switch op := w.r.IntN(10); {
	case op < 3 && !f.Exists():
		return w.create(p)
	case op == 3 && f.State == InLower:
		w.copyUp(p)
		return "copy up " + p
	case op == 4 && f.Exists() && (!f.IsDir() || w.at(p).withNames().Empty()):
		return w.remove(p)
	case op == 5 && !f.Exists():
		return w.link(p)
	case op < 8 && f.Exists():
		return w.rename(p, f)
	case op == 8 && f.Exists():
		return w.exchange(p, f)
	case op == 9 && f.IsDir() && !w.at(p).IsListed():
		w.at(p).withNames()
		return "list " + p
	}
	return ""
}

func (w *world) create(p string) string {
	w.copyUp(path.Dir(p))
	dir := w.at(path.Dir(p)).changing()
	f := dir.lookup(path.Base(p))
	o := Object{Mode: unix.S_IFREG | 0o644, UID: uint32(w.r.IntN(2))}
	line := "file 0644 \"\""
	if w.r.IntN(2) == 0 {
		o.Mode, line = unix.S_IFDIR|0o755, "dir 0755"
	}
	if o.UID != 0 {
		line += fmt.Sprintf(" own %d 0", o.UID)
	}
	file, err := w.Create(&dir.Dir, dir.upper(), path.Base(p), &f, &o)
	must(w.t, err)
	if file != nil {
		file.Close()
	}
	w.shown[p] = line
	return "create " + p
}

func (w *world) remove(p string) string {
	w.copyUp(path.Dir(p))
	must(w.t, w.at(path.Dir(p)).changing().remove(path.Base(p)))
	delete(w.shown, p)
	w.drop(p)
	return "remove " + p
}

func (w *world) link(p string) string {
	src, f := w.pick()
	if !f.Exists() || f.IsDir() {
		return ""
	}
	w.copyUp(src)
	w.copyUp(path.Dir(p))
	dir, name := w.at(path.Dir(p)).changing(), path.Base(p)
	found := dir.lookup(name)
	must(w.t, w.Link(&dir.Dir, dir.upper(), name, &found, w.at(path.Dir(src)).upper().At(path.Base(src)), f.Stat.Mode))
	w.shown[p] = w.shown[src]
	return "link " + src + " " + p
}

// movable copies up what is to be moved, unless it is a directory with a lower part.
func (w *world) movable(p string, f Found) bool {
	if f.IsDir() && w.at(p).HasLower() {
		return false
	}
	w.copyUp(p)
	return true
}

func (w *world) rename(from string, f Found) string {
	to, g := w.pick()
	if from == to || strings.HasPrefix(to+"/", from+"/") || strings.HasPrefix(from+"/", to+"/") || !w.movable(from, f) {
		return ""
	}
	if g.Exists() && (f.IsDir() != g.IsDir() || g.IsDir() && !w.at(to).withNames().Empty()) {
		return ""
	}
	w.copyUp(path.Dir(to))
	src, dst := w.at(path.Dir(from)).changing().end(path.Base(from)), w.at(path.Dir(to)).changing().end(path.Base(to))
	if same(&src.Found, &dst.Found) {
		return ""
	}
	refused := w.refuses(src, dst)
	switch err := w.Rename(src, dst); {
	case refused && err == unix.EXDEV:
		return "refused: rename " + from + " " + to
	case err != nil:
		w.t.Fatal(err)
	}
	delete(w.shown, to)
	w.drop(to)
	w.move(from, to)()
	return "rename " + from + " " + to
}

// same reports two names of one object, which the caller of the stack does not rename.
func same(a, b *Found) bool { return b.Exists() && a.Stat.Ino == b.Stat.Ino }

func (w *world) exchange(a string, f Found) string {
	b, g := w.pick()
	if !g.Exists() || strings.HasPrefix(a+"/", b+"/") || strings.HasPrefix(b+"/", a+"/") || !w.movable(a, f) || !w.movable(b, g) {
		return ""
	}
	one, two := w.at(path.Dir(a)).changing().end(path.Base(a)), w.at(path.Dir(b)).changing().end(path.Base(b))
	if same(&one.Found, &two.Found) {
		return ""
	}
	if err := w.Exchange(one, two); w.noFlags && err == unix.EINVAL {
		return "refused: exchange " + a + " " + b
	} else if err != nil {
		w.t.Fatal(err)
	}
	back := w.move(b, a)
	w.move(a, b)()
	back()
	return "exchange " + a + " " + b
}

// wantShown fails the test if a fresh stack does not show the sum of the changes.
func (w *world) wantShown() {
	w.t.Helper()
	var lines []string
	for p, line := range w.shown {
		kind, rest, _ := strings.Cut(line, " ")
		lines = append(lines, kind+" "+p+" "+rest)
	}
	slices.Sort(lines)
	if d := testkit.Diff(strings.Join(lines, "\n"), w.view()); d != "" {
		w.t.Errorf("the view differs (- want, + have):\n%s", d)
	}
}

// After any changes, a directory in use equals one that is loaded afresh. The view is the sum of
// the changes, now and after a remount.
func TestIndexStaysExact(t *testing.T) {
	wantExactWorlds(t, 3, false)
}

// wantExactWorlds makes worlds, in which directories are loaded for lookups or not, and returns how
// many were left unlisted.
func wantExactWorlds(t *testing.T, worlds uint64, toLook bool) (unlisted int) {
	const steps = 60
	allFormats(t, func(t *testing.T, format func(*site)) {
		for seed := range worlds {
			w := newWorld(t, seed, format)
			w.toLook = toLook
			var done []string
			for range steps {
				done = append(done, w.step())
				for _, dir := range slices.Sorted(maps.Keys(w.held)) {
					w.held[dir].wantExact("")
				}
				if t.Failed() {
					break
				}
			}
			w.wantShown()
			w.wantEmptyWork()
			w.remount()
			w.wantShown()
			if t.Failed() {
				t.Fatalf("seed %d: %s", seed, strings.Join(done, "\n"))
			}
			w.shut()
			unlisted += w.unlisted
		}
	})
	return unlisted
}
