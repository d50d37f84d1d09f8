package differential

import (
	"os"
	"regexp"
	"slices"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// The deviations of the table are those of docs/SEMANTICS.md.
func TestDeviationsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/SEMANTICS.md")
	harness.Check(t, err)
	var documented []string
	for _, m := range regexp.MustCompile(`(?m)^\| (D\d+) \|`).FindAllSubmatch(text, -1) {
		documented = append(documented, string(m[1]))
	}
	var known []string
	for _, d := range deviations {
		known = append(known, d.id)
		if d.what == "" || d.why == "" {
			t.Errorf("%s: without a text or a reason", d.id)
		}
	}
	slices.Sort(documented)
	slices.Sort(known)
	if !slices.Equal(known, documented) {
		t.Errorf("the tests know %v, the documentation %v", known, documented)
	}
}
