package commands

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// version --features finds what this kernel has, without root too.
func TestFeatures(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		t.Setenv("TMPDIR", e.Dir)
		mounts := len(harness.MountTable())
		r := command(t, "version", "--features", "--json")
		r.want(t, 0, "")
		var found struct {
			Version string
			Kernel  struct {
				Protocol string `json:"fuse_protocol"`
				Features []struct {
					Name string
					Here *bool
				}
			}
		}
		if err := json.Unmarshal([]byte(r.out), &found); err != nil {
			t.Fatalf("%v: %s", err, r.out)
		}
		if found.Version == "" || !regexp.MustCompile(`^7\.\d+$`).MatchString(found.Kernel.Protocol) {
			t.Errorf("version %q, protocol %q", found.Version, found.Kernel.Protocol)
		}
		want := map[string]bool{
			"opening a file costs no request": true,
			"killpriv v2":                     harness.KernelHas(t, harness.KillprivV2),
			"an ACL can take sgid away":       harness.KernelHas(t, harness.SetxattrExt),
			"direct I/O for new files":        harness.DirectIO(t),
			"passthrough (for root)":          harness.KernelHas(t, harness.BackingFiles),
			"id-mapped mounts of the tree":    harness.KernelHas(t, harness.IDMappedMount),
			"clones of the lowers' mounts":    harness.KernelAtLeast(t, 5, 12),
			"whiteouts are devices":           true,
		}
		for _, f := range found.Kernel.Features {
			if f.Here == nil {
				t.Errorf("%s: not known", f.Name)
				continue
			}
			if here, named := want[f.Name]; named && *f.Here != here {
				t.Errorf("%s: %v, want %v", f.Name, *f.Here, here)
			}
			delete(want, f.Name)
		}
		if len(want) > 0 {
			t.Errorf("no word about %v", want)
		}
		harness.Equal(t, "mounts", len(harness.MountTable()), mounts)
		left, err := os.ReadDir(e.Dir)
		harness.Check(t, err)
		harness.Equal(t, "objects that are left", len(left), 0)

		text := command(t, "version", "--features")
		text.want(t, 0, "")
		if lines := strings.Count(text.out, "\n"); lines < len(found.Kernel.Features) || !strings.Contains(text.out, "\nkillpriv v2 ") {
			t.Errorf("as text:\n%s", text.out)
		}
	})
}
