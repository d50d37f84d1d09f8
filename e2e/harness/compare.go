package harness

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
)

// DiffLines lists the differences of two snapshots, sorted by path. It is empty if there is none.
func DiffLines(want, got map[string]string) string {
	all := maps.Clone(want)
	maps.Copy(all, got)
	var b strings.Builder
	for _, p := range slices.Sorted(maps.Keys(all)) {
		w, inWant := want[p]
		g, inGot := got[p]
		if w == g {
			continue
		}
		if inWant {
			fmt.Fprintf(&b, "  want %s\n", w)
		}
		if inGot {
			fmt.Fprintf(&b, "  got  %s\n", g)
		}
	}
	return b.String()
}

// CompareTrees fails the test if the snapshots of two folders differ.
func CompareTrees(t *testing.T, what, wantDir, gotDir string, v View) {
	t.Helper()
	want, err := Snapshot(wantDir, v)
	Check(t, err)
	got, err := Snapshot(gotDir, v)
	Check(t, err)
	delete(want, ".")
	delete(got, ".")
	if d := DiffLines(want, got); d != "" {
		t.Errorf("%s differs:\n%s", what, d)
	}
}

// WantTree fails the test unless dir holds the objects of a table, by type, name and content. The
// table need not name parents.
func WantTree(t *testing.T, what, dir, table string) {
	t.Helper()
	want := map[string]string{}
	for line := range strings.SplitSeq(table, "\n") {
		words, err := testkit.Words(line)
		Check(t, err)
		if len(words) < 2 {
			continue
		}
		path := words[1]
		for i := range words[1:] {
			if words[0] == "file" && i == 1 {
				words[i+1] = ContentWord(words[i+1])
			} else {
				words[i+1] = Word(words[i+1])
			}
		}
		want[path] = strings.Join(words, " ")
		for p := filepath.Dir(path); p != "."; p = filepath.Dir(p) {
			if _, named := want[p]; !named {
				want[p] = "dir " + Word(p)
			}
		}
	}
	got, err := Snapshot(dir, PlainView)
	Check(t, err)
	for p, line := range got {
		if word, ok := strings.CutPrefix(line, "opaque"); ok && want[p] == "dir"+word {
			got[p] = want[p] // a new directory has the xattr even if it hides nothing
		}
	}
	if d := DiffLines(want, got); d != "" {
		t.Errorf("%s differs:\n%s", what, d)
	}
}
