package main

import (
	"strings"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/fs/conn"
)

// A keeper takes three requests. None names a path, and none ends it.
func TestKeeperReplies(t *testing.T) {
	mount := conn.Unmounting{Point: "/none", Direct: true}
	for request, want := range map[string]string{
		"":                                "error: unknown request",
		"unmount /":                       "error: mount point \"/none\"", // its own mount, whatever follows
		"exec /bin/sh":                    "error: unknown request",
		keeperInSight:                     keeperNo,
		keeperProtect:                     keeperNo,
		keeperProtect + " -1":             keeperNo,
		keeperProtect + " ../1":           keeperNo,
		keeperProtect + " 99999999999999": keeperNo,
	} {
		reply := keeperReply(mount, request)
		if !strings.HasPrefix(reply, want) || strings.Contains(reply, "\n") {
			t.Errorf("%q: %q, want %q", request, reply, want)
		}
	}
}
