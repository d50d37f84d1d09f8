package packages

import (
	"debug/buildinfo"
	"encoding/json"
	"os"
	"slices"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// bom is what the test reads of an SBOM (CycloneDX).
type bom struct {
	Format     string `json:"bomFormat"`
	Components []struct {
		Name, Version string
		Evidence      struct{ Licenses []any }
	}
}

// The SBOM of a program has each module that the program links, and no other.
func TestSBOM(t *testing.T) {
	dir := harness.NewEnv(t, harness.ModeRoot).Dir
	script(t, dir, "tar -xzf "+built(t, ".tar.gz")+" --strip-components=1")
	for program, path := range map[string]string{
		"fuse-overlay": "bin/fuse-overlay", "fuse-overlay-commands": "libexec/fuse-overlay/fuse-overlay-commands",
	} {
		info, err := buildinfo.ReadFile(dir + "/" + path)
		harness.Check(t, err)
		want := []string{"std " + info.GoVersion}
		for _, m := range info.Deps {
			want = append(want, m.Path+" "+m.Version)
		}
		file := built(t, "."+program+".cdx.json")
		text, err := os.ReadFile(file)
		harness.Check(t, err)
		var b bom
		harness.Check(t, json.Unmarshal(text, &b))
		var got []string
		licenses := 0
		for _, c := range b.Components {
			got = append(got, c.Name+" "+c.Version)
			licenses += len(c.Evidence.Licenses)
		}
		slices.Sort(want)
		slices.Sort(got)
		if b.Format != "CycloneDX" || !slices.Equal(got, want) || len(want) < 5 {
			t.Errorf("%s: a file of %s with %q, want %q", file, b.Format, got, want)
		}
		if licenses < len(got)*3/4 {
			t.Errorf("%s: %d licenses of %d modules", file, licenses, len(got))
		}
	}
}
