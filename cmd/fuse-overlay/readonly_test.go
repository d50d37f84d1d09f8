package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/internal/mountargs"
)

// With ro the upper is only read and needs no workdir, and options about changes are dropped with a
// note. By the name of fuse-overlayfs a second mount may come up beside another one.
func TestUpperOfReadOnlyMount(t *testing.T) {
	for _, tt := range []struct {
		line              string
		readOnly, besides bool
		notes             []string
	}{
		{"fuse-overlay -o lowerdir=l,upperdir=u,workdir=w M", false, false, nil},
		{"fuse-overlay -o ro,lowerdir=l,upperdir=u,workdir=w M", true, false, nil},
		{"fuse-overlay -o lowerdir=l,upperdir=u,ro M", true, false, nil},
		{"fuse-overlay -o ro,rw,lowerdir=l,upperdir=u,workdir=w M", false, false, nil},
		{"fuse-overlay -o ro,lowerdir=l M", false, false, nil},
		{"fuse-overlayfs -o ro,lowerdir=l,upperdir=u,workdir=w M", true, true, nil},
		{"fuse-overlayfs -o lowerdir=l,upperdir=u,workdir=w M", false, true, nil},
		{"fuse-overlay -o ro,volatile,index=on,lowerdir=l,upperdir=u M", true, false, []string{
			"option volatile is of no use on a read-only mount, and is ignored",
			"option index=on is of no use on a read-only mount, and is ignored",
		}},
	} {
		argv := strings.Fields(tt.line)
		r, err := parseRequest(mountargs.CalledBy(argv), argv)
		if err != nil {
			t.Errorf("%s: %v", tt.line, err)
			continue
		}
		o := &r.overlay
		if o.ReadOnly != tt.readOnly || o.BesideOther != tt.besides || !slices.Equal(r.notes, tt.notes) {
			t.Errorf("%s: read-only %v, beside %v, notes %q", tt.line, o.ReadOnly, o.BesideOther, r.notes)
		}
		if o.Volatile && tt.readOnly {
			t.Errorf("%s: volatile", tt.line)
		}
	}
}
