package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The deviations that the tests know are those that docs/SEMANTICS.md promises.
func TestDeviationsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../docs/SEMANTICS.md")
	check(t, err)
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

// The table of the format names a test in each cell: one that there is, for each feature and both ways.
func TestFormatIsDocumented(t *testing.T) {
	cells := map[string]bool{}
	for _, f := range formats {
		for _, d := range directions[1:] { // the first is the kernel with itself
			cells["TestFormat/"+f.name+"/"+d.name] = true
		}
	}
	for _, m := range regexp.MustCompile("`(TestFormat/[^`]*)`").FindAllStringSubmatch(readText(t, "../docs/SEMANTICS.md"), -1) {
		if !cells[m[1]] {
			t.Errorf("the documentation names %s, which there is not, or names it twice", m[1])
		}
		delete(cells, m[1])
	}
	for name := range cells {
		t.Errorf("the documentation does not name %s", name)
	}
}

// The tables of docs/SECURITY.md name tests that there are.
func TestSecurityIsTested(t *testing.T) {
	there := map[string]bool{}
	check(t, filepath.WalkDir("..", func(path string, _ os.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, "_test.go") {
			for _, m := range regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllStringSubmatch(readText(t, path), -1) {
				there[m[1]] = true
			}
		}
		return err
	}))
	named := regexp.MustCompile("`(Test\\w+)[^`]*`").FindAllStringSubmatch(readText(t, "../docs/SECURITY.md"), -1)
	if len(named) == 0 {
		t.Error("the documentation names no test")
	}
	for _, m := range named {
		if !there[m[1]] {
			t.Errorf("the documentation names %s, which there is not", m[1])
		}
	}
}

// Links between the documents lead somewhere, and each example is linked to.
func TestDocumentsLinkToWhatIsThere(t *testing.T) {
	var pages []string
	for _, pattern := range []string{"../*.md", "../docs/*.md"} {
		found, err := filepath.Glob(pattern)
		check(t, err)
		pages = append(pages, found...)
	}
	linked := map[string]bool{}
	for _, page := range pages {
		for _, m := range regexp.MustCompile(`\]\(([^)#]+)`).FindAllStringSubmatch(readText(t, page), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			target := filepath.Join(filepath.Dir(page), m[1])
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s: a link to %s: %v", page, m[1], err)
			}
			linked[target] = true
		}
	}
	check(t, filepath.WalkDir(examples, func(path string, entry os.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && !linked[path] {
			t.Errorf("%s: no document links to it", path)
		}
		return err
	}))
}
