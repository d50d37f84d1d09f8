package format

import (
	"regexp"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// Each cell of the format table names a test that exists, for each feature and in both directions.
func TestFormatIsDocumented(t *testing.T) {
	cells := map[string]bool{}
	for _, f := range formats {
		for _, d := range directions[1:] { // the first is the kernel with itself
			cells["TestFormat/"+f.name+"/"+d.name] = true
		}
	}
	for _, m := range regexp.MustCompile("`(TestFormat/[^`]*)`").FindAllStringSubmatch(harness.ReadText(t,
		"../../docs/SEMANTICS.md"), -1) {
		if !cells[m[1]] {
			t.Errorf("the documentation names %s, which does not exist, or names it twice", m[1])
		}
		delete(cells, m[1])
	}
	for name := range cells {
		t.Errorf("the documentation does not name %s", name)
	}
}
