package command

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// If a mount fails, the exit code is 1, and one line names the directory and the reason. Nothing is
// mounted.
func TestErrorMessages(t *testing.T) {
	harness.NeedDaemon(t)
	const workDir = "WORKDIR" // stands for the work directory of the overlay
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		for name, c := range map[string]struct {
			change func(o *harness.Overlay)
			want   []string // all must be in the message
		}{
			"missing lower": {func(o *harness.Overlay) { o.Lowers = append(o.Lowers, e.Dir+"/nolower") },
				[]string{e.Dir + "/nolower", "no such file or directory"}},
			"lower is a file": {func(o *harness.Overlay) { o.Lowers = []string{o.Lowers[0] + "/f"} },
				[]string{"/f", "not a directory"}},
			"missing upper": {func(o *harness.Overlay) { o.Upper = e.Dir + "/noupper" },
				[]string{e.Dir + "/noupper", "no such file or directory"}},
			"missing mount point": {func(o *harness.Overlay) { o.Point = e.Dir + "/nomnt" },
				[]string{e.Dir + "/nomnt", "no such file or directory"}},
			"mount point is a file": {func(o *harness.Overlay) { o.Point = o.Lowers[0] + "/f" }, []string{"not a directory"}},
			"work on another fs":    {func(o *harness.Overlay) { o.Work = "/dev/shm" }, []string{"/dev/shm", "upperdir"}},
			"foreign things in work": {func(o *harness.Overlay) { harness.Write(t, o.Work+"/mine.txt", "precious") },
				[]string{workDir}},
			"lower inside upper": {func(o *harness.Overlay) {
				harness.Mkdir(t,
					o.Upper+"/in")
				o.Lowers = []string{o.Upper + "/in"}
			}, []string{"/upper"}},
			"lower inside work": {func(o *harness.Overlay) {
				harness.Mkdir(t, o.Work+"/in")
				o.Lowers = []string{o.Work +
					"/in"}
			}, []string{"/work"}},
			"work inside upper": {func(o *harness.Overlay) { o.Work = o.Upper + "/work" }, []string{"/upper"}},
			"upper inside work": {func(o *harness.Overlay) { o.Upper = o.Work + "/upper"; harness.Mkdir(t, o.Upper) },
				[]string{"/work"}},
			"upper is the work": {func(o *harness.Overlay) { o.Work = o.Upper }, []string{"/upper"}},
			"no lowerdir":       {func(o *harness.Overlay) { o.Lowers = nil }, []string{"lowerdir"}},
			"unknown option": {func(o *harness.Overlay) { o.Opts = []string{"uperdir=x"} },
				[]string{"uperdir", "upperdir"}},
			"bad number": {func(o *harness.Overlay) { o.Opts = []string{"timeout=soon"} },
				[]string{"timeout", "soon"}},
			"an option without value":  {func(o *harness.Overlay) { o.Opts = []string{"upperdir"} }, []string{"upperdir"}},
			"a value where none is":    {func(o *harness.Overlay) { o.Opts = []string{"volatile=yes,"} }, []string{"volatile"}},
			"a second mount point":     {func(o *harness.Overlay) { o.Args = []string{"a", "b"} }, []string{"mount point"}},
			"a flag that is not known": {func(o *harness.Overlay) { o.Args = []string{"--foregrund"} }, []string{"foreground"}},
		} {
			t.Run(name, func(t *testing.T) {
				o := harness.NewEnv(t, e.Mode).Overlay(t, "file f \"x\"")
				o.T = t
				before := len(harness.ProcessesOf(harness.Program))
				c.change(o)
				out, err := o.TryMount()
				if harness.ExitCode(err) != 1 {
					t.Errorf("exit %d (%v), want 1", harness.ExitCode(err), err)
				}
				if strings.Count(strings.TrimSpace(out), "\n") != 0 || strings.TrimSpace(out) == "" {
					t.Errorf("wrote %q, want one line", out)
				}
				for _, want := range c.want {
					want = strings.ReplaceAll(want, workDir, o.Work)
					if !strings.Contains(out, want) {
						t.Errorf("wrote %q, which lacks %q", out, want)
					}
				}
				if o.IsMounted() {
					t.Error("something is mounted")
				}
				if now := len(harness.ProcessesOf(harness.Program)); now > before {
					t.Errorf("%d processes are left", now-before)
				}
				if name == "foreign things in work" {
					harness.WantText(t, o.Work+"/mine.txt", "precious")
				}
			})
		}
	})
}

func TestVersionAndHelp(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		peer := filepath.Join(e.Dir, "fuse-overlayfs")
		harness.Check(t, os.Symlink(harness.Program, peer))
		for _, flag := range []string{"--version", "-V"} {
			out, err := harness.Run(harness.Program, flag)
			harness.Check(t, err)
			if !regexp.MustCompile(`^fuse-overlay version \S+`).MatchString(out) {
				t.Errorf("%s wrote %q", flag, out)
			}
			out, err = harness.Run(peer, flag)
			harness.Check(t, err)
			m := regexp.MustCompile(`^fuse-overlayfs:.*?(\d+\.\d+(\.\d+)?)`).FindStringSubmatch(out)
			if m == nil || !isAtLeast110(m[1]) {
				t.Errorf("as fuse-overlayfs, %s wrote %q; callers want at least 1.10", flag, out)
			}
		}
		for _, flag := range []string{"--help", "-h"} {
			out, err := harness.Run(harness.Program, flag)
			harness.Check(t, err)
			for _, word := range []string{"lowerdir", "upperdir", "workdir", "MOUNTPOINT"} {
				if !strings.Contains(strings.ToLower(out), strings.ToLower(word)) {
					t.Errorf("%s does not name %s", flag, word)
				}
			}
		}
		out, err := harness.Run(harness.Program)
		if harness.ExitCode(err) != 1 || out == "" {
			t.Errorf("without arguments: exit %d, %q", harness.ExitCode(err), out)
		}
	})
}

// isAtLeast110 reports whether a version is 1.10 or later.
func isAtLeast110(version string) bool {
	var major, minor int
	_, err := fmt.Sscanf(version, "%d.%d", &major, &minor)
	return err == nil && (major > 1 || major == 1 && minor >= 10)
}

// Paths may contain characters that are special in option lists, escaped as callers do.
func TestEscapedPaths(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t)
		escape := strings.NewReplacer(`\`, `\\`, ":", `\:`, ",", `\,`)
		dir := filepath.Join(e.Dir, `odd:name,with\all "of" them`)
		harness.Mkdir(t, dir+"/l1", dir+"/l2", dir+"/u", dir+"/w", dir+"/m")
		harness.Write(t, dir+"/l1/a", "a")
		harness.Write(t, dir+"/l2/b", "b")
		o.Lowers = []string{escape.Replace(dir + "/l1"), escape.Replace(dir + "/l2")}
		o.Upper, o.Work, o.Point = escape.Replace(dir+"/u"), escape.Replace(dir+"/w"), dir+"/m"
		o.Mount()
		harness.Write(t, o.Path("c"), "c")
		harness.WantTree(t, "merged", o.Point, "file a \"a\"\nfile b \"b\"\nfile c \"c\"")
		o.Unmount()
		harness.WantText(t, dir+"/u/c", "c")
	})
}
