package main

import (
	"strings"
	"testing"
)

// A command line is refused in one short line, or it is a request that has what a mount needs.
func FuzzCommandLine(f *testing.F) {
	for _, line := range []string{
		`fuse-overlay -o lowerdir=a:b\:c::d,upperdir=u,workdir=w,uidmapping=0:1000:1,timeout=1e9 M`,
		`fuse-overlayfs -f -o lowerdir=a,,context="a,b",xattr_permissions=2 M`,
		`mount.fuse-overlay overlay M -sfnv -o rw,remount,noexec -t fuse-overlay.sub`,
		`fuse-overlay --debug -o lowerdir+=a,datadir+=b,disable=spin,io=passthrough -- -M`,
	} {
		f.Add(strings.ReplaceAll(line, " ", "\x00"))
	}
	f.Fuzz(func(t *testing.T, line string) {
		argv := strings.Split(line, "\x00")
		for _, called := range []string{"fuse-overlay", "fuse-overlayfs", "mount.fuse-overlay"} {
			argv[0] = called
			r, err := parsedArguments(argv)
			if err != nil {
				if text := userMessage(err); strings.ContainsAny(text, "\n\x00") || len(text) > 64<<10 {
					t.Errorf("%q: the message %q", argv, text)
				}
				continue
			}
			if r.help || r.version {
				continue
			}
			if r.mount.Point == "" || !r.remount && len(r.overlay.Lowers) == 0 {
				t.Errorf("%q: a mount without a place or lowers", argv)
			}
		}
	})
}
