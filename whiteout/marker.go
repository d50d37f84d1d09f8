package whiteout

import (
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

const (
	// MarkerPrefix begins the names of markers: ".wh.NAME" hides NAME.
	MarkerPrefix = ".wh."
	// OpaqueMarker is the name of the marker that makes its directory opaque.
	OpaqueMarker = ".wh..wh..opq"
	// OlderOpaqueMarker is the name of a marker that fuse-overlayfs makes beside [OpaqueMarker].
	// Alone it does not make its directory opaque.
	OlderOpaqueMarker = ".wh..opq"
)

// IsMarker reports whether name is that of a marker. The mount does not show such a name, and it
// refuses to make an object under it.
func IsMarker(name string) bool { return strings.HasPrefix(name, MarkerPrefix) }

// Hidden returns the name that a marker hides. ok is false if the name is not a marker's, and for
// markers that hide no name: ".wh..wh.*" is about the directory itself, and ".wh." followed by
// nothing, "." or ".." is about no entry.
func Hidden(marker string) (name string, ok bool) {
	name, ok = strings.CutPrefix(marker, MarkerPrefix)
	if !ok || name == "" || name == "." || name == ".." || IsMarker(name) {
		return "", false
	}
	return name, true
}

// HasMarker reports whether a directory has the marker of a name.
func HasMarker(d *sys.Dir, name string) (bool, error) {
	var st sys.Stat
	switch err := d.At(Marker(name)).Stat(&st); err {
	case nil:
		return true, nil
	case unix.ENOENT, unix.ENAMETOOLONG:
		return false, nil
	default:
		return false, err
	}
}

// Marker returns the name of the marker that hides name. It may be longer than the file system
// allows.
func Marker(name string) string { return MarkerPrefix + name }
