package archtest

import (
	"slices"
	"strings"
	"testing"
)

// notLinked are libraries that the program that mounts does not contain, also not by way of another
// library.
var notLinked = []string{"github.com/spf13/cobra", "github.com/spf13/pflag"}

// TestMountProgramIsSmall lists all packages of cmd/fuse-overlay: a library that initialises itself
// delays each mount.
func TestMountProgramIsSmall(t *testing.T) {
	linked := linkedPackages(t, "./cmd/fuse-overlay")
	for _, path := range notLinked {
		if slices.Contains(linked, path) {
			t.Errorf("cmd/fuse-overlay contains %s", path)
		}
	}
	if !slices.Contains(linkedPackages(t, "./cmd/fuse-overlay-commands"), notLinked[0]) {
		t.Error("the list of packages is wrong: the second program has cobra")
	}
}

func linkedPackages(t *testing.T, program string) (paths []string) {
	t.Helper()
	for _, p := range goList(t, "-deps", program) {
		paths = append(paths, strings.TrimPrefix(p.ImportPath, "vendor/"))
	}
	return paths
}
