package whiteout

import "strings"

const (
	// MarkerPrefix begins every name of the AUFS and OCI form: ".wh.NAME" hides NAME.
	MarkerPrefix = ".wh."
	// OpaqueMarker is the entry that makes its directory opaque in that form.
	OpaqueMarker = ".wh..wh..opq"
)

// IsMarker reports whether name belongs to the AUFS and OCI form. Such a name is never visible through the mount, and
// nothing may be made under it, whatever it says.
func IsMarker(name string) bool { return strings.HasPrefix(name, MarkerPrefix) }

// Hidden returns the name that marker hides. ok is false for what is no marker and for a marker that hides no name:
// ".wh..wh.*" speaks of the directory itself, and ".wh." followed by nothing, "." or ".." of no entry at all.
func Hidden(marker string) (name string, ok bool) {
	name, ok = strings.CutPrefix(marker, MarkerPrefix)
	if !ok || name == "" || name == "." || name == ".." || IsMarker(name) {
		return "", false
	}
	return name, true
}

// Marker returns the name that hides name. It may be longer than a file system takes.
func Marker(name string) string { return MarkerPrefix + name }
