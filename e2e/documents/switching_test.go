package documents

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// peer is the program that docs/SWITCHING.md is about.
const peer = "fuse-overlayfs"

// Each row of the options in docs/SWITCHING.md is what a mount by each name shows.
func TestOptionsOfFuseOverlayfs(t *testing.T) {
	harness.NeedDaemon(t)
	row := regexp.MustCompile("(?m)^\\| `([^`]+)` \\| (same|no effect|warning) \\|")
	rows := row.FindAllStringSubmatch(harness.ReadText(t, root+"/docs/SWITCHING.md"), -1)
	if len(rows) < 25 {
		t.Fatalf("the table has %d options", len(rows))
	}
	harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		asPeer := filepath.Join(e.Dir, peer)
		harness.Check(t, os.Symlink(harness.Program, asPeer))
		harness.Mkdir(t, e.Dir+"/LOWER", e.Dir+"/LOWER2")
		const layers = "lowerdir=LOWER:LOWER2,upperdir=UPPER,workdir=WORK"
		for _, m := range rows {
			option := m[1]
			for _, program := range []string{harness.Program, asPeer} {
				harness.Mkdir(t, e.Dir+"/UPPER", e.Dir+"/WORK", e.Dir+"/m")
				list := layers
				if !strings.Contains(layers, option) {
					list += "," + option
				}
				out, err := harness.RunIn(e.Dir, nil, harness.CommandLimit, program, "-o", list, "m")
				want, mounts := "", true
				if m[2] == "warning" {
					want, mounts = "unknown argument ignored: "+option+"\n", program == asPeer
				}
				if mounts != (err == nil) || mounts && out != want {
					t.Errorf("%s -o %s: %v, %q", filepath.Base(program), list, err, out)
				}
				if err == nil {
					harness.Shell(t, e.Dir, harness.Program+" umount m")
				}
				harness.Shell(t, e.Dir, "rm -r UPPER WORK m")
			}
		}
	})
}
