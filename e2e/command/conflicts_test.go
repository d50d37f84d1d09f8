package command

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// The program and the kernel accept the same combinations of options, for all values.

// optionValues are the options of the cross product. "" leaves the option out.
var optionValues = [][]string{
	{"", "upper"},
	{"", "metacopy=on", "metacopy=off"},
	{"", "redirect_dir=on", "redirect_dir=off", "redirect_dir=follow", "redirect_dir=nofollow"},
	{"", "index=on", "index=off"},
	{"", "userxattr"},
	{"", "volatile"},
	{"", "nfs_export=on", "nfs_export=off"},
	{"", "verity=on"},
}

// optionDifference is a combination that only one of the two accepts, and the reason.
type optionDifference struct {
	why     string
	mode    harness.Mode // empty: any
	option  string
	refused bool // by this program
}

var optionDifferences = []optionDifference{
	{"what is exported by FUSE is found by numbers that end with the mount", "", "nfs_export=on", true},
	{"redirects are kept in user.overlay.* by themselves where trusted.* is not allowed", harness.ModeUserns,
		"redirect_dir=on", false},
	{"off is follow, in this program as in the kernel; here those of user.overlay.* are followed", harness.ModeUserns,
		"redirect_dir=off", false},
	{"the same", harness.ModeUserns, "redirect_dir=follow", false},
	{"the attributes are kept in user.overlay.* by themselves where trusted.* is not allowed", harness.ModeUserns,
		"metacopy=on", false},
	{"the same", harness.ModeUserns, "verity=on", false},
}

// combinations calls f for each combination of values, without the options that are left out.
func combinations(values [][]string, f func(options []string)) {
	if len(values) == 0 {
		f(nil)
		return
	}
	for _, v := range values[0] {
		combinations(values[1:], func(rest []string) {
			if v != "" {
				rest = append([]string{v}, rest...)
			}
			f(rest)
		})
	}
}

// kernelTakes reports whether the kernel accepts an overlay with these options. It mounts nothing.
func kernelTakes(options []string) (err error) {
	fd, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	for _, o := range options {
		if key, value, ok := strings.Cut(o, "="); ok {
			err = unix.FsconfigSetString(fd, key, value)
		} else {
			err = unix.FsconfigSetFlag(fd, key)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", o, err)
		}
	}
	return unix.FsconfigCreate(fd)
}

func TestOptionsThatConflict(t *testing.T) {
	harness.NeedDaemon(t)
	if !harness.KernelAtLeast(t, 6, 16) {
		t.Skip("not applicable on this kernel: the rules are those of Linux 6.16 and later")
	}
	harness.EachMode(t, harness.RootModes, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "dir d", "dir d")
		helper := filepath.Join(e.Dir, "mount.fuse-overlay") // by this name, -f checks the options and mounts nothing
		harness.Check(t, os.Symlink(harness.Program, helper))
		used := make([]bool, len(optionDifferences))
		n := 0
		combinations(optionValues, func(options []string) {
			n++
			layers := []string{"lowerdir=" + strings.Join(o.Lowers, ":")}
			rest := options
			if len(options) > 0 && options[0] == "upper" {
				dir := fmt.Sprintf("%s/%d", e.Dir, n) // the kernel remembers in it what it was mounted with
				harness.Mkdir(t, dir, dir+"/upper", dir+"/work")
				layers, rest = append(layers, "upperdir="+dir+"/upper", "workdir="+dir+"/work"), options[1:]
			}
			all := append(layers, rest...)
			kernel := kernelTakes(all)
			out, err := harness.Run(helper, "-f", "overlay", o.Point, "-o", strings.Join(all, ","))
			refused := err != nil
			if refused == (kernel != nil) {
				return
			}
			i := slices.IndexFunc(optionDifferences, func(d optionDifference) bool {
				return (d.mode == "" || d.mode == e.Mode) && d.refused == refused && slices.Contains(options, d.option)
			})
			if i < 0 {
				t.Errorf("%v: the kernel: %v; this program: %v %s", options, kernel, err, out)
				return
			}
			used[i] = true
		})
		for i, d := range optionDifferences {
			if !used[i] && (d.mode == "" || d.mode == e.Mode) {
				t.Errorf("no difference any more: %s", d.option)
			}
		}
		t.Logf("%d combinations", n)
	})
}

// A refused command line does not change the layers. Its message is one line with the reason.
func TestRefusedOptionsChangeNothing(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "file f \"x\"")
		for _, refused := range []string{
			"metacopy=on,redirect_dir=off", "userxattr,redirect_dir=on", "userxattr,metacopy=on", "nfs_export=on",
			"noxattrs,userxattr",
			"lowerdir+=" + e.Dir, "datadir+=" + e.Dir, "lowerdir=a::b:c", "lowerdir=:a", "lowerdir=a:",
		} {
			o.Opts = []string{refused}
			out, err := o.TryMount()
			if harness.ExitCode(err) != 1 || strings.Count(out, "\n") != 1 {
				t.Errorf("%s: exit %d, %q", refused, harness.ExitCode(err), out)
			}
			harness.WantNames(t, o.Upper)
			harness.WantNames(t, o.Work)
			harness.WantTree(t, "the lower", o.Lowers[0], "file f \"x\"")
		}
	})
}
