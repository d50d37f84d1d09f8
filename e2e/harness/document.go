package harness

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Documents are the paths of all documents of a tree, which is a folder.
func Documents(tree string) (paths []string, err error) {
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/design/*.md"} {
		found, err := filepath.Glob(filepath.Join(tree, pattern))
		if err != nil {
			return nil, err
		}
		paths = append(paths, found...)
	}
	return paths, nil
}

// Block is a fenced block of a document.
type Block struct {
	// Kind is the language of the fence, such as sh.
	Kind string
	Text string
	// Note is the comment <!-- run: NOTE --> before the fence, which readers do not see.
	Note string
	Line int
}

var fenced = regexp.MustCompile("(?ms)(?:^<!-- run: ([a-z]+) -->\n)?^```([a-z]*)\n(.*?)^```$")

// Blocks are the fenced blocks of a document, in order.
func Blocks(t *testing.T, path string) (list []Block) {
	t.Helper()
	text := ReadText(t, path)
	for _, m := range fenced.FindAllStringSubmatchIndex(text, -1) {
		part := func(n int) string {
			if m[2*n] < 0 {
				return ""
			}
			return text[m[2*n]:m[2*n+1]]
		}
		list = append(list, Block{Kind: part(2), Text: part(3), Note: part(1), Line: 1 + strings.Count(text[:m[6]], "\n")})
	}
	return list
}
