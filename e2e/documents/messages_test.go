package documents

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// The headings of docs/TROUBLESHOOTING.md that are messages are in the source of the programs.
func TestMessages(t *testing.T) {
	var texts []string
	for _, folder := range []string{"cmd", "copyup", "fs", "internal", "whiteout"} {
		texts = append(texts, literals(t, filepath.Join(root, folder))...)
	}
	quoted := regexp.MustCompile("(?m)^### `(.*)`$").FindAllStringSubmatch(
		harness.ReadText(t, root+"/docs/TROUBLESHOOTING.md"), -1)
	if len(quoted) < 20 {
		t.Errorf("only %d messages are quoted", len(quoted))
	}
	for _, m := range quoted {
		message := strings.TrimSpace(strings.Trim(m[1], "."))
		if !slices.ContainsFunc(texts, func(text string) bool { return strings.Contains(text, message) }) {
			t.Errorf("no program has the message %q", m[1])
		}
	}
}

// literals are the constant texts of the Go files below a folder, without those of tests. "..."
// stands for a value that a text is formatted with.
func literals(t *testing.T, folder string) (texts []string) {
	t.Helper()
	harness.Check(t, filepath.WalkDir(folder, func(path string, _ os.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			expr, ok := n.(ast.Expr)
			if !ok {
				return true
			}
			text, ok := constant(expr)
			if ok {
				texts = append(texts, verbs.ReplaceAllString(text, "..."))
			}
			return !ok // the parts of a sum are in the sum
		})
		return nil
	}))
	return texts
}

var verbs = regexp.MustCompile(`(%[-+# 0-9.]*[a-zA-Z])+`)

// constant is the text of a literal, or of a sum of literals.
func constant(expr ast.Expr) (string, bool) {
	switch e := expr.(type) {
	case *ast.BasicLit:
		if e.Kind == token.STRING {
			text, err := strconv.Unquote(e.Value)
			return text, err == nil
		}
	case *ast.BinaryExpr:
		if e.Op == token.ADD {
			left, ok := constant(e.X)
			right, also := constant(e.Y)
			return left + right, ok && also
		}
	}
	return "", false
}

func TestLiterals(t *testing.T) {
	dir := t.TempDir()
	harness.Write(t, dir+"/a.go", "package a\nvar x = f(\"a %s%q b\" +\n\t`c`, \"d\"+y)\n")
	harness.Write(t, dir+"/a_test.go", "package a\nvar z = \"e\"\n")
	if got, want := literals(t, dir), []string{"a ... bc", "d"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
