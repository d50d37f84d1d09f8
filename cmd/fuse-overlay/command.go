package main

import (
	"errors"
	"fmt"

	"github.com/fuse-overlay/fuse-overlay/internal/mountargs"
)

// mountPoint returns what the positionals name: [SOURCE] MOUNTPOINT, as mount(8) calls its helpers.
func mountPoint(a *mountargs.Arguments) (source, point string, err error) {
	switch n := len(a.Positionals); {
	case n == 0:
		return "", "", errors.New("no mount point given (see --help)")
	case n > 2:
		return "", "", fmt.Errorf("more than a source and a mount point given: %s%s", quotedAll(a.Positionals), bareOption(a.Positionals))
	case a.Positionals[n-1] == "":
		return "", "", errors.New("the mount point is an empty string")
	case n == 2:
		return a.Positionals[0], a.Positionals[1], nil
	default:
		return "", a.Positionals[0], nil
	}
}
