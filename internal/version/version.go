// Package version answers which version of fuse-overlay this program is.
package version

import (
	"runtime"
	"runtime/debug"
)

// linked is set by the linker: -ldflags "-X PATH/internal/version.linked=1.2.3", where PATH is that
// of the module.
var linked = ""

// unknown stands for what the build has not recorded.
const unknown = "(unknown)"

// String returns the version of the linker, or that of the module that `go install` has recorded.
func String() string {
	if linked != "" {
		return linked
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return unknown
}

// Build describes how the program was built.
type Build struct {
	Version string `json:"version"`
	// Commit is the hash of the commit of the build. Empty: the build has not recorded it.
	Commit string `json:"commit,omitempty"`
	// Modified: the tree had changes that are not in the commit.
	Modified bool   `json:"modified,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// Current returns the build of this program.
func Current() Build {
	b := Build{Version: String(), Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Commit = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}
	return b
}
