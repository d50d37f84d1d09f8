package documents

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// tools are the programs that the documents use, and the Debian package of each.
var tools = map[string]string{"conmon": "conmon", "crun": "crun", "fuse-overlayfs": "fuse-overlayfs", "podman": "podman"}

func TestMain(m *testing.M) { harness.Main(m, harness.Suite{Tools: tools, Prepare: copyDocuments}) }

// root is the tree, from the folder of this package.
const root = "../.."

// copies is a tree of copies of the documents, which every user can read.
func copies() string { return filepath.Join(harness.RunDir, "documents") }

func copyDocuments() error {
	paths, err := harness.Documents(root)
	if err != nil {
		return err
	}
	for _, path := range paths {
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		copied := filepath.Join(copies(), name)
		if err := os.MkdirAll(filepath.Dir(copied), 0o755); err != nil {
			return err
		}
		if err := harness.CopyFile(path, copied); err != nil {
			return err
		}
	}
	return nil
}

// documents are the paths of the documents in a tree.
func documents(t *testing.T, tree string) []string {
	t.Helper()
	paths, err := harness.Documents(tree)
	harness.Check(t, err)
	return paths
}
