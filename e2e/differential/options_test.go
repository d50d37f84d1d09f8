package differential

import (
	"slices"
	"strings"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// optionChoices are the options of the format from which a sequence draws. An empty value leaves
// the option out.
var optionChoices = []struct {
	name   string
	values []string
}{
	{"redirect_dir", []string{"on", "on", "on", "off", "follow", "nofollow"}},
	{"metacopy", []string{"on", "off"}},
	{"index", []string{"on", "off"}},
	{"xino", []string{"on", "off", "auto", ""}},
	{"uuid", []string{"", "off", "null", "auto", "on"}},
}

// drawOptions picks options of the format, the same for both sides.
func drawOptions(g *generator) []string {
	if g.chance(15) {
		return []string{"userxattr", "index=off", "metacopy=off"}
	}
	var opts []string
	for _, c := range optionChoices {
		value := pick(g, c.values)
		switch {
		case value == "":
			continue
		case c.name == "metacopy" && value == "on" && !slices.Contains(opts, harness.Redirects):
			continue // the kernel refuses it
		}
		opts = append(opts, c.name+"="+value)
	}
	return opts
}

// TestDifferentialOptionSets is TestDifferential with random options of the format, which change
// what lies in the upper.
func TestDifferentialOptionSets(t *testing.T) {
	harness.Raced(t)
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		differentialOf(t, e, sequence{drawn: true}, 150)
	})
}

// kernelOptionsOf are the options of the kernel's overlayfs for drawn options.
func kernelOptionsOf(opts []string) string {
	all := append([]string{}, opts...)
	for _, c := range optionChoices { // what was not drawn is off, whatever the kernel's default
		if !slices.ContainsFunc(opts, func(opt string) bool { return strings.HasPrefix(opt, c.name+"=") }) &&
			c.name != "uuid" && c.name != "redirect_dir" {
			all = append(all, c.name+"=off")
		}
	}
	return strings.Join(all, ",")
}
