package command

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// The tables of docs/SECURITY.md name tests that exist.
func TestSecurityIsTested(t *testing.T) {
	there := map[string]bool{}
	harness.Check(t, filepath.WalkDir("../..", func(path string, _ os.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, "_test.go") {
			for _, m := range regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllStringSubmatch(harness.ReadText(t, path), -1) {
				there[m[1]] = true
			}
		}
		return err
	}))
	named := regexp.MustCompile("`(Test\\w+)[^`]*`").FindAllStringSubmatch(harness.ReadText(t, "../../docs/SECURITY.md"),
		-1)
	if len(named) == 0 {
		t.Error("the documentation names no test")
	}
	for _, m := range named {
		if !there[m[1]] {
			t.Errorf("the documentation names %s, which does not exist", m[1])
		}
	}
}

// The links between documents lead to files, and a document links to each example.
func TestDocumentsLinkToWhatIsThere(t *testing.T) {
	var pages []string
	for _, pattern := range []string{"../../*.md", "../../docs/*.md"} {
		found, err := filepath.Glob(pattern)
		harness.Check(t, err)
		pages = append(pages, found...)
	}
	linked := map[string]bool{}
	for _, page := range pages {
		for _, m := range regexp.MustCompile(`\]\(([^)#]+)`).FindAllStringSubmatch(harness.ReadText(t, page), -1) {
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
	harness.Check(t, filepath.WalkDir(examples, func(path string, entry os.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && !linked[path] {
			t.Errorf("%s: no document links to it", path)
		}
		return err
	}))
}
