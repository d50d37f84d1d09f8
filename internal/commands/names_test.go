package commands

import (
	"slices"
	"testing"
)

func TestNames(t *testing.T) {
	all := Names()
	if !slices.IsSorted(all) || !slices.Contains(all, Mount) || !slices.Contains(all, "version") {
		t.Errorf("the names are %q", all)
	}
	if slices.Contains(all, "__complete") {
		t.Error("the names have a hidden command")
	}
	for name, want := range map[string]bool{"version": true, "__complete": true, Mount: false, "": false, "./list": false, "List": false} {
		if got := InSecondProgram(name); got != want {
			t.Errorf("%q: %v, want %v", name, got, want)
		}
	}
}

func TestPlaces(t *testing.T) {
	want := []string{"/usr/bin/fuse-overlay-commands", "/usr/libexec/fuse-overlay/fuse-overlay-commands"}
	if got := Places("/usr/bin/fuse-overlay"); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
