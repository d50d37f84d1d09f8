package documents

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// The tests that documents name exist. Those of docs/SECURITY.md show its statements.
func TestNamedTestsExist(t *testing.T) {
	there := map[string]bool{}
	harness.Check(t, filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, "_test.go") {
			for _, m := range regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllStringSubmatch(harness.ReadText(t, path), -1) {
				there[m[1]] = true
			}
		}
		return err
	}))
	for _, page := range documents(t, root) {
		named := regexp.MustCompile("`(Test\\w+)[^`]*`").FindAllStringSubmatch(harness.ReadText(t, page), -1)
		if len(named) == 0 && page == root+"/docs/SECURITY.md" {
			t.Errorf("%s names no test", page)
		}
		for _, m := range named {
			if !there[m[1]] && filepath.Base(page) != "KERNELS.md" { // which has regular expressions
				t.Errorf("%s names %s, which does not exist", page, m[1])
			}
		}
	}
}

// The links between documents lead to files, or to headings. A link to a folder leads to its
// README. A document links to each page and to each example.
func TestLinks(t *testing.T) {
	linked := map[string]bool{}
	for _, page := range documents(t, root) {
		for _, m := range regexp.MustCompile(`\]\(([^)]+)\)`).FindAllStringSubmatch(harness.ReadText(t, page), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			path, fragment, _ := strings.Cut(m[1], "#")
			target := page
			if path != "" {
				target = filepath.Join(filepath.Dir(page), path)
			}
			info, err := os.Stat(target)
			if err == nil && info.IsDir() {
				target += "/README.md"
				_, err = os.Stat(target)
			}
			if err != nil {
				t.Errorf("%s: a link to %s: %v", page, m[1], err)
				continue
			}
			linked[target] = true
			if fragment != "" && !anchors(harness.ReadText(t, target))[fragment] {
				t.Errorf("%s: a link to %s: there is no such heading", page, m[1])
			}
		}
	}
	harness.Check(t, filepath.WalkDir(root+"/docs", func(path string, entry os.DirEntry, err error) error {
		of := strings.HasPrefix(path, root+"/docs/examples/") || strings.HasSuffix(path, ".md")
		if err == nil && !entry.IsDir() && of && !linked[path] {
			t.Errorf("%s: no document links to it", path)
		}
		return err
	}))
}

var (
	heading   = regexp.MustCompile(`(?m)^#+ (.*)$`)
	block     = regexp.MustCompile("(?ms)^```.*?^```$")
	notAnchor = regexp.MustCompile(`[^a-z0-9 _-]`)
)

// anchors are the names of the headings of a document, which the forge and the site give them. The
// site makes one hyphen of several, so a heading must not lead to several.
func anchors(text string) map[string]bool {
	names := map[string]bool{}
	for _, m := range heading.FindAllStringSubmatch(block.ReplaceAllString(text, ""), -1) {
		name := strings.ReplaceAll(notAnchor.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-")
		if !strings.Contains(name, "--") {
			names[name] = true
		}
	}
	return names
}

func TestAnchors(t *testing.T) {
	got := anchors("# A `b=c`, d\n\n## e - f\n\n```sh\n# g\n```\n")
	if len(got) != 1 || !got["a-bc-d"] {
		t.Errorf("got %v", got)
	}
}

// The flags of the bench that documents use exist.
func TestFlagsOfTheBench(t *testing.T) {
	usage, err := harness.RunIn(root, nil, 2*time.Minute, "go", "run", "./bench", "-h")
	harness.Check(t, err)
	used := 0
	for _, page := range documents(t, root) {
		for _, b := range harness.Blocks(t, page) {
			text := regexp.MustCompile(`"[^"]*"`).ReplaceAllString(b.Text, "") // expressions
			for _, m := range regexp.MustCompile(`BENCH=('[^']*'|\S+)`).FindAllStringSubmatch(text, -1) {
				for _, flag := range regexp.MustCompile(`(?:^|[ '])-([a-z]+)`).FindAllStringSubmatch(m[1], -1) {
					used++
					if !strings.Contains(usage, "\n  -"+flag[1]+" ") && !strings.Contains(usage, "\n  -"+flag[1]+"\n") {
						t.Errorf("%s:%d: the bench has no flag -%s", page, b.Line, flag[1])
					}
				}
			}
		}
	}
	if used < 20 {
		t.Errorf("only %d flags were found", used)
	}
}
