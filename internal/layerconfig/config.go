package layerconfig

import (
	"fmt"
	"strings"

	"github.com/fuse-overlay/fuse-overlay/fs"
	"github.com/fuse-overlay/fuse-overlay/internal/mountargs"
	"github.com/fuse-overlay/fuse-overlay/internal/owner"
)

// New returns the configuration of layers that are mounted without options. Metacopies and
// redirects are followed, as nothing else can be shown of them. The caller sets Log.
func New(l *mountargs.Layers) fs.Config {
	return fs.Config{
		Lowers: l.Lowers, DataOnly: l.DataOnly, Upper: l.Upper, Work: l.Work, ReadOnly: true,
		Redirects: fs.RedirectsFollow, Features: fs.Features{MetaCopy: true},
	}
}

// option is an option of a mount that decides what its layers mean.
type option struct {
	name   string
	values []string // the last one is assumed if none is given
	set    func(c *fs.Config, value string)
}

var options = []option{
	{"userxattr", []string{""}, func(c *fs.Config, _ string) {
		c.Features.Names.UserOnly, c.Features.MetaCopy, c.Redirects = true, false, fs.RedirectsNoFollow
	}},
	{"xattr_permissions", []string{"0", "1", "2"}, func(c *fs.Config, value string) {
		c.Permissions = owner.Permissions(int(value[0] - '0'))
	}},
	{"noacl", []string{""}, func(c *fs.Config, _ string) { c.NoACL = true }},
	{"noxattrs", []string{"0", "1"}, func(c *fs.Config, value string) { c.NoXattrs = value == "1" }},
	{"redirect_dir", []string{"on", "off", "follow", "nofollow"}, func(c *fs.Config, value string) {
		if value == "nofollow" {
			c.Redirects = fs.RedirectsNoFollow
		}
	}},
	{"index", []string{"off", "on"}, func(c *fs.Config, value string) { c.Features.Index = value == "on" }},
	{"uuid", []string{"on", "off", "null", "auto"}, func(c *fs.Config, value string) {
		if value == "off" {
			c.Features.UUID = fs.UUIDOff
		}
	}},
	{"verity", []string{"off", "on", "require"}, func(c *fs.Config, value string) {
		c.Features.Verity = map[string]fs.Verity{"off": fs.VerityOff, "on": fs.VerityOn, "require": fs.VerityRequire}[value]
	}},
}

// Names are the names of the options that [Set] knows.
func Names() (names []string) {
	for _, o := range options {
		names = append(names, o.name)
	}
	return names
}

// Set applies the argument of one -o to a configuration. An option that it does not know is an
// error.
func Set(c *fs.Config, list string) error {
	for _, field := range mountargs.Fields(list) {
		known, err := set(c, field)
		if err == nil && !known {
			name, _, _ := strings.Cut(field, "=")
			err = fmt.Errorf("option %q does not decide what layers mean: those that do are %s", name, strings.Join(Names(), ", "))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// SetKnown applies the options of a mount that has been made. It passes over those that do not
// decide what the layers mean.
func SetKnown(c *fs.Config, lists []string) error {
	for _, list := range lists {
		for _, field := range mountargs.Fields(list) {
			if _, err := set(c, field); err != nil {
				return err
			}
		}
	}
	return nil
}

func set(c *fs.Config, field string) (known bool, err error) {
	name, value, given := strings.Cut(field, "=")
	for _, o := range options {
		if o.name != name {
			continue
		}
		if !given {
			value = o.values[len(o.values)-1]
		}
		for _, v := range o.values {
			if v == value {
				o.set(c, value)
				return true, nil
			}
		}
		return true, fmt.Errorf("option %s: %q is none of %s", name, value, strings.Join(o.values, ", "))
	}
	return false, nil
}
