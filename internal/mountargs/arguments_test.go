package mountargs

import (
	"reflect"
	"testing"
)

func TestSplit(t *testing.T) {
	for _, tt := range []struct {
		argv []string
		want Arguments
	}{
		{nil, Arguments{}},
		{[]string{""}, Arguments{}},
		{[]string{"fuse-overlay", "-fo", "ro", "m"}, Arguments{Foreground: true, OptionLists: []string{"ro"}, Positionals: []string{"m"}}},
		// The word mount, and names that are no commands.
		{[]string{"/bin/fuse-overlay", "mount", "-d", "m"}, Arguments{Debug: true, Positionals: []string{"m"}}},
		{[]string{"fuse-overlay", "mount", "mount", "m"}, Arguments{Positionals: []string{"mount", "m"}}},
		{[]string{"fuse-overlay", "-f", "mount"}, Arguments{Foreground: true, Positionals: []string{"mount"}}},
		{[]string{"fuse-overlay", "./mount"}, Arguments{Positionals: []string{"./mount"}}},
		{[]string{"fuse-overlayfs", "mount", "m"}, Arguments{Positionals: []string{"mount", "m"}}},
		{[]string{"mount.fuse-overlay", "mount", "m", "-f"},
			Arguments{helper: true, Fake: true, Positionals: []string{"mount", "m"}}},
		{[]string{"fuse-overlay", "-z", "--", "-m"}, Arguments{Unknown: []string{"-z"}, Positionals: []string{"-m"}}},
	} {
		got, err := Split(tt.argv)
		if err != nil || !reflect.DeepEqual(*got, tt.want) {
			t.Errorf("%q: %+v (%v), want %+v", tt.argv, *got, err, tt.want)
		}
	}
	if _, err := Split([]string{"fuse-overlay", "-o"}); err == nil {
		t.Error("-o without a value is no error")
	}
}

func TestCommand(t *testing.T) {
	for _, tt := range []struct {
		argv []string
		want string
	}{
		{[]string{"fuse-overlay", "list"}, "list"},
		{[]string{"/usr/bin/fuse-overlay", "list", "x"}, "list"},
		{[]string{"fuse-overlay"}, ""},
		{[]string{"fuse-overlayfs", "list"}, ""},
		{[]string{"mount.fuse-overlay", "list"}, ""},
		{nil, ""},
	} {
		if got := Command(tt.argv); got != tt.want {
			t.Errorf("%q: %q, want %q", tt.argv, got, tt.want)
		}
	}
}

func TestParseLayers(t *testing.T) {
	got := ParseLayers([]string{`lowerdir=/x,upperdir=/u\,v,workdir=/w`, `lowerdir=/a\:b:c::/d,ro`})
	want := Layers{Lowers: []string{"/a:b", "c"}, DataOnly: []string{"/d"}, Upper: "/u,v", Work: "/w"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	got = ParseLayers([]string{"lowerdir+=/a,lowerdir+=/b:c", "datadir+=/d"})
	want = Layers{Lowers: []string{"/a", "/b:c"}, DataOnly: []string{"/d"}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
