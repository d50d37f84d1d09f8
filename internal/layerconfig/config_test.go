package layerconfig

import (
	"reflect"
	"strings"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/fs"
	"github.com/fuse-overlay/fuse-overlay/internal/mountargs"
	"github.com/fuse-overlay/fuse-overlay/internal/owner"
)

var layers = mountargs.Layers{Lowers: []string{"a", "b"}, DataOnly: []string{"d"}, Upper: "u", Work: "w"}

func TestSet(t *testing.T) {
	for list, want := range map[string]func(c *fs.Config){
		"": func(*fs.Config) {},
		"userxattr": func(c *fs.Config) {
			c.Features.Names.UserOnly, c.Features.MetaCopy, c.Redirects = true, false, fs.RedirectsNoFollow
		},
		"xattr_permissions=2,noacl":  func(c *fs.Config) { c.Permissions, c.NoACL = owner.Permissions(2), true },
		"noxattrs":                   func(c *fs.Config) { c.NoXattrs = true },
		"noxattrs=0,verity=require":  func(c *fs.Config) { c.Features.Verity = fs.VerityRequire },
		"redirect_dir=on":            func(*fs.Config) {},
		"redirect_dir=nofollow":      func(c *fs.Config) { c.Redirects = fs.RedirectsNoFollow },
		"index=on,uuid=off,uuid=off": func(c *fs.Config) { c.Features.Index, c.Features.UUID = true, fs.UUIDOff },
	} {
		got, expected := New(&layers), New(&layers)
		want(&expected)
		if err := Set(&got, list); err != nil || !reflect.DeepEqual(got, expected) {
			t.Errorf("%s: %+v (%v), want %+v", list, got, err, expected)
		}
		known := New(&layers)
		if err := SetKnown(&known, []string{"lowerdir=a:b,ro", list, "volatile,writeback=1"}); err != nil || !reflect.DeepEqual(known, expected) {
			t.Errorf("of a mount, %s: %+v (%v), want %+v", list, known, err, expected)
		}
	}
}

func TestRefused(t *testing.T) {
	for list, want := range map[string]string{
		"volatile":            `option "volatile" does not decide what layers mean: those that do are userxattr, xattr_permissions,`,
		"xattr_permissions=3": `option xattr_permissions: "3" is none of 0, 1, 2`,
		"userxattr=1":         `option userxattr: "1" is none of `,
	} {
		c := New(&layers)
		if err := Set(&c, list); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v, want %s", list, err, want)
		}
	}
}
