package ondisk

import (
	"strings"
	"testing"
)

func TestXattrNames(t *testing.T) {
	const refused = ""
	for _, c := range []struct{ onDisk, shown string }{ // as the mount shows what is on disk
		{"user.a", "user.a"}, {"trusted.a", "trusted.a"}, {"security.selinux", "security.selinux"},
		{"system.posix_acl_access", "system.posix_acl_access"}, {"user.containers.x", "user.containers.x"},
		{"trusted.overlayxxx", "trusted.overlayxxx"}, {"trusted.overlay", "trusted.overlay"}, // xfstests overlay/026
		{"user.overlay", "user.overlay"}, {"user.fuseoverlayfs", "user.fuseoverlayfs"},
		{"trusted.overlay.opaque", refused}, {"trusted.overlay.", refused}, {"trusted.overlay.overlay", refused},
		{"user.overlay.origin", refused}, {"user.fuseoverlayfs.opaque", refused}, {"user.fuseoverlayfs.overlay.x", refused},
		{"security.fuseoverlayfs.override_stat", refused},
		{"trusted.overlay.overlay.opaque", "trusted.overlay.opaque"}, {"user.overlay.overlay.x", "user.overlay.x"},
		{"trusted.overlay.overlay.", "trusted.overlay."},
		{"trusted.overlay.overlay.overlay.opaque", "trusted.overlay.overlay.opaque"}, // an overlay in an overlay in an overlay
	} {
		shown, ok := both.Visible(c.onDisk)
		if shown != c.shown || ok != (c.shown != refused) {
			t.Errorf("Visible(%q) = %q, %v; want %q", c.onDisk, shown, ok, c.shown)
		}
		if got := both.Private(c.onDisk); got == ok {
			t.Errorf("Private(%q) = %v", c.onDisk, got)
		}
		if !ok {
			continue
		}
		if got, ok := both.Stored(c.shown); got != c.onDisk || !ok {
			t.Errorf("Stored(%q) = %q, %v; want %q", c.shown, got, ok, c.onDisk)
		}
	}
	for _, shown := range []string{
		"user.fuseoverlayfs.opaque", "security.fuseoverlayfs.override_stat", "user.fuseoverlayfs.overlay.x",
		"trusted.overlay." + strings.Repeat("x", 255-len("trusted.overlay.overlay.")+1),
	} {
		if got, ok := both.Stored(shown); ok {
			t.Errorf("Stored(%q) = %q", shown, got)
		}
	}
	if _, ok := both.Stored("trusted.overlay." + strings.Repeat("x", 255-len("trusted.overlay.overlay."))); !ok {
		t.Error("the longest name that fits is refused")
	}
}

// With userxattr trusted.overlay.* is content: it is shown and stored under its own name.
func TestUserNamesOnly(t *testing.T) {
	user := Names{UserOnly: true}
	for _, name := range []string{"trusted.overlay.opaque", "trusted.overlay.overlay.opaque", "trusted.overlay.", "user.a"} {
		shown, ok := user.Visible(name)
		stored, ok2 := user.Stored(name)
		if !ok || !ok2 || shown != name || stored != name || user.Private(name) {
			t.Errorf("%s: shown as %q, stored as %q, private %v", name, shown, stored, user.Private(name))
		}
	}
	for _, name := range []string{"user.overlay.opaque", "user.fuseoverlayfs.opaque", "security.fuseoverlayfs.override_stat"} {
		if shown, ok := user.Visible(name); ok || !user.Private(name) {
			t.Errorf("%s: shown as %q, private %v", name, shown, user.Private(name))
		}
	}
	if stored, ok := user.Stored("user.overlay.opaque"); !ok || stored != "user.overlay.overlay.opaque" {
		t.Errorf("stored as %q, %v", stored, ok)
	}
}

// Names of the kernel's format that are not known, and no others, are unknown.
func TestUnknownNames(t *testing.T) {
	for name, want := range map[string]bool{
		"trusted.overlay.none": true, "user.overlay.": true, "trusted.overlay.opaque": false, "user.overlay.origin": false,
		"trusted.overlay.overlay.none": false, "user.overlay": false, "user.fuseoverlayfs.origin": false, "user.none": false,
	} {
		if got := both.Unknown(name); got != want {
			t.Errorf("Unknown(%q) = %v", name, got)
		}
	}
	user := Names{UserOnly: true}
	if user.Unknown("trusted.overlay.none") || !user.Unknown("user.overlay.none") {
		t.Error("with userxattr trusted.overlay.* is content")
	}
}
