package format

import (
	"fmt"
	"os/exec"
	"strings"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// check returns what fuse-overlay check finds in the layers, which are not mounted. Nothing may be
// damaged, for each program that has written the layers and for each format.
func (c *cell) check(o *harness.Overlay) (fault string) {
	c.t.Helper()
	if harness.Oracle {
		return ""
	}
	args := []string{"check", "--workdir", o.Work}
	for _, option := range c.opts {
		name, _, _ := strings.Cut(option, "=")
		if name == "userxattr" || name == "xattr_permissions" {
			args = append(args, "-o", option)
		}
	}
	for _, layer := range o.Data {
		args = append(args, "--datadir", layer)
	}
	args = append(append(args, o.Upper), o.Lowers...)
	out, err := exec.Command(harness.Program, args...).CombinedOutput()
	if err == nil && len(out) == 0 {
		return ""
	}
	if c.mark != "" && strings.Count(string(out), "\n") == 1 && strings.HasPrefix(string(out), "volatile mark\twork:") {
		return ""
	}
	return fmt.Sprintf("fuse-overlay %s: %v\n%s", strings.Join(args, " "), err, out)
}
