package e2e

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func exitCode(err error) int {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	if err != nil {
		return -1
	}
	return 0
}

// Each thing that keeps a mount from being made: exit 1, one line that names the directory and the reason, no mount.
func TestErrorMessages(t *testing.T) {
	needDaemon(t)
	eachMode(t, allModes, func(t *testing.T, e *env) {
		for name, c := range map[string]struct {
			change func(o *overlay)
			want   []string // all must be in the message
		}{
			"missing lower":            {func(o *overlay) { o.lowers = append(o.lowers, e.dir+"/nolower") }, []string{e.dir + "/nolower", "no such file or directory"}},
			"lower is a file":          {func(o *overlay) { o.lowers = []string{o.lowers[0] + "/f"} }, []string{"/f", "not a directory"}},
			"missing upper":            {func(o *overlay) { o.upper = e.dir + "/noupper" }, []string{e.dir + "/noupper", "no such file or directory"}},
			"missing mount point":      {func(o *overlay) { o.mnt = e.dir + "/nomnt" }, []string{e.dir + "/nomnt", "no such file or directory"}},
			"mount point is a file":    {func(o *overlay) { o.mnt = o.lowers[0] + "/f" }, []string{"not a directory"}},
			"work on another fs":       {func(o *overlay) { o.work = "/dev/shm" }, []string{"/dev/shm", "upperdir"}},
			"foreign things in work":   {func(o *overlay) { write(t, o.work+"/mine.txt", "precious") }, []string{o0(e, "work")}},
			"lower inside upper":       {func(o *overlay) { mkdir(t, o.upper+"/in"); o.lowers = []string{o.upper + "/in"} }, []string{"/upper"}},
			"lower inside work":        {func(o *overlay) { mkdir(t, o.work+"/in"); o.lowers = []string{o.work + "/in"} }, []string{"/work"}},
			"work inside upper":        {func(o *overlay) { o.work = o.upper + "/work" }, []string{"/upper"}},
			"upper inside work":        {func(o *overlay) { o.upper = o.work + "/upper"; mkdir(t, o.upper) }, []string{"/work"}},
			"upper is the work":        {func(o *overlay) { o.work = o.upper }, []string{"/upper"}},
			"no lowerdir":              {func(o *overlay) { o.lowers = nil }, []string{"lowerdir"}},
			"unknown option":           {func(o *overlay) { o.opts = []string{"uperdir=x"} }, []string{"uperdir", "upperdir"}},
			"bad number":               {func(o *overlay) { o.opts = []string{"timeout=soon"} }, []string{"timeout", "soon"}},
			"an option without value":  {func(o *overlay) { o.opts = []string{"upperdir"} }, []string{"upperdir"}},
			"a value where none is":    {func(o *overlay) { o.opts = []string{"volatile=yes,"} }, []string{"volatile"}},
			"a second mount point":     {func(o *overlay) { o.args = []string{"a", "b"} }, []string{"mount point"}},
			"a flag that is not known": {func(o *overlay) { o.args = []string{"--foregrund"} }, []string{"foreground"}},
		} {
			t.Run(name, func(t *testing.T) {
				o := newEnv(t, e.mode).overlay(t, "file f \"x\"")
				o.t = t
				before := len(processesOf(binPath))
				c.change(o)
				out, err := o.tryMount()
				if exitCode(err) != 1 {
					t.Errorf("exit %d (%v), want 1", exitCode(err), err)
				}
				if strings.Count(strings.TrimSpace(out), "\n") != 0 || strings.TrimSpace(out) == "" {
					t.Errorf("wrote %q, want one line", out)
				}
				for _, want := range c.want {
					want = strings.ReplaceAll(want, e.dir+"/WORK", o.work)
					if !strings.Contains(out, want) {
						t.Errorf("wrote %q, which lacks %q", out, want)
					}
				}
				if o.isMounted() {
					t.Error("something is mounted")
				}
				if now := len(processesOf(binPath)); now > before {
					t.Errorf("%d processes are left", now-before)
				}
				if name == "foreign things in work" {
					wantText(t, o.work+"/mine.txt", "precious")
				}
			})
		}
	})
}

// o0 stands for the work directory of the test's own overlay.
func o0(e *env, _ string) string { return e.dir + "/WORK" }

func TestVersionAndHelp(t *testing.T) {
	needDaemon(t)
	eachMode(t, onlyRoot, func(t *testing.T, e *env) {
		peer := filepath.Join(e.dir, "fuse-overlayfs")
		check(t, os.Symlink(binPath, peer))
		for _, flag := range []string{"--version", "-V"} {
			out, err := runCommand(binPath, flag)
			check(t, err)
			if !regexp.MustCompile(`^fuse-overlay version \S+`).MatchString(out) {
				t.Errorf("%s wrote %q", flag, out)
			}
			out, err = runCommand(peer, flag)
			check(t, err)
			m := regexp.MustCompile(`^fuse-overlayfs:.*?(\d+\.\d+(\.\d+)?)`).FindStringSubmatch(out)
			if m == nil || !atLeast(m[1], 1, 10) {
				t.Errorf("as fuse-overlayfs, %s wrote %q; callers want at least 1.10", flag, out)
			}
		}
		for _, flag := range []string{"--help", "-h"} {
			out, err := runCommand(binPath, flag)
			check(t, err)
			for _, word := range []string{"lowerdir", "upperdir", "workdir", "MOUNTPOINT"} {
				if !strings.Contains(strings.ToLower(out), strings.ToLower(word)) {
					t.Errorf("%s does not tell of %s", flag, word)
				}
			}
		}
		out, err := runCommand(binPath)
		if exitCode(err) != 1 || out == "" {
			t.Errorf("without arguments: exit %d, %q", exitCode(err), out)
		}
	})
}

func atLeast(version string, major, minor int) bool {
	parts := strings.Split(version, ".")
	a, b := atoi(parts[0]), atoi(parts[1])
	return a > major || a == major && b >= minor
}

func atoi(s string) (n int) {
	for _, c := range s {
		n = n*10 + int(c-'0')
	}
	return n
}

// Characters that are special in option lists, escaped as callers do.
func TestEscapedPaths(t *testing.T) {
	needDaemon(t)
	eachMode(t, allModes, func(t *testing.T, e *env) {
		o := e.overlay(t)
		escape := strings.NewReplacer(`\`, `\\`, ":", `\:`, ",", `\,`)
		dir := filepath.Join(e.dir, `odd:name,with\all "of" them`)
		mkdir(t, dir+"/l1", dir+"/l2", dir+"/u", dir+"/w", dir+"/m")
		write(t, dir+"/l1/a", "a")
		write(t, dir+"/l2/b", "b")
		o.lowers = []string{escape.Replace(dir + "/l1"), escape.Replace(dir + "/l2")}
		o.upper, o.work, o.mnt = escape.Replace(dir+"/u"), escape.Replace(dir+"/w"), dir+"/m"
		o.mount()
		write(t, o.path("c"), "c")
		wantTree(t, "merged", o.mnt, "file a \"a\"\nfile b \"b\"\nfile c \"c\"")
		o.unmount()
		wantText(t, dir+"/u/c", "c")
	})
}
