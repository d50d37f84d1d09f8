package archtest

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// documents are the pages that describe the tree, relative to its root.
var documents = []string{"*.md", "docs/*.md", "docs/design/*.md"}

// codeSpan is a path in backquotes. C files are the kernel's.
var codeSpan = regexp.MustCompile("`([A-Za-z0-9_.-]+(?:/[A-Za-z0-9_-]+)*(?:/[A-Za-z0-9_-]+\\.(?:go|sh|md))?/?)`")

// TestDocumentsNameFilesThatExist checks paths that begin with a folder of the tree.
func TestDocumentsNameFilesThatExist(t *testing.T) {
	folders := map[string]bool{}
	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		folders[e.Name()] = e.IsDir() && e.Name() != "bin" // of what make builds
	}
	named := 0
	for _, pattern := range documents {
		pages, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, page := range pages {
			text, err := os.ReadFile(page)
			if err != nil {
				t.Fatal(err)
			}
			for _, path := range missingPaths(string(text), folders, &named) {
				t.Errorf("%s names %s, which does not exist", filepath.Base(page), path)
			}
		}
	}
	if named < 20 {
		t.Errorf("the documents name only %d paths: the pattern is wrong", named)
	}
}

// missingPaths returns the paths of a text that are not in the tree, and counts all of them.
func missingPaths(text string, folders map[string]bool, named *int) (missing []string) {
	for _, m := range codeSpan.FindAllStringSubmatch(text, -1) {
		first, _, nested := strings.Cut(m[1], "/")
		if !nested || !folders[first] || slices.Contains(missing, m[1]) {
			continue
		}
		*named++
		if _, err := os.Stat(filepath.Join(root, m[1])); err != nil {
			missing = append(missing, m[1])
		}
	}
	return missing
}

func TestMissingPathsAreFound(t *testing.T) {
	named := 0
	text := "`fs/none.go`, `fs/none.go`, `docs/none/`, `fs/doc.go`, `fs/fuse/file.c`, `none/x.go`, `internal/archtest`"
	got := missingPaths(text, map[string]bool{"fs": true, "docs": true, "internal": true}, &named)
	if want := []string{"fs/none.go", "docs/none/"}; !slices.Equal(got, want) || named != 4 {
		t.Errorf("%q of %d paths, want %q of 4", got, named, want)
	}
}
