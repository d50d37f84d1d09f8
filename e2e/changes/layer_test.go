package changes

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// seeds is how many random workloads each form of an upper gets.
var seeds = harness.EnvNumber("FUSE_OVERLAY_SEQS", 4)

// form is a form in which an upper keeps changes.
type form struct {
	name  string
	modes []harness.Mode
	mount []string // options of the mount
	diff  []string // arguments of diff
	env   string   // a variable of the mount's environment
	table string   // of the lower, besides lowerTable
}

var forms = []form{
	{name: "default", modes: harness.AllModes},
	{name: "metacopy", modes: harness.RootModes, mount: []string{"metacopy=on"}},
	{name: "redirect_dir", modes: harness.AllModes, mount: []string{"redirect_dir=on"}},
	{name: "userxattr", modes: harness.RootModes, mount: []string{"userxattr"}, diff: []string{"-o", "userxattr"}},
	{name: "xattr_permissions", modes: harness.AllModes, mount: []string{"xattr_permissions=2"}, diff: []string{"-o", "xattr_permissions=2"}},
	{name: "markers", modes: harness.AllModes, env: "FUSE_OVERLAYFS_DISABLE_OVL_WHITEOUT=y"},
	{name: "xattr_whiteouts", modes: harness.RootModes, mount: []string{"xattr_whiteouts"}},
	{name: "index", modes: harness.RootModes, mount: []string{"index=on"}},
	{name: "everything", modes: harness.RootModes, mount: []string{"metacopy=on", "redirect_dir=on", "index=on"}},
}

// site is an overlay in one form, and a copy of the tree of its lowers.
type site struct {
	*harness.Overlay
	t    *testing.T
	form form
	copy string
}

func newSite(t *testing.T, e *harness.Env, f form, lowers ...string) *site {
	t.Helper()
	s := &site{Overlay: e.Overlay(t, lowers...), t: t, form: f, copy: e.Dir + "/copy"}
	s.Opts = append(s.Opts, f.mount...)
	if variable, value, ok := strings.Cut(f.env, "="); ok {
		t.Setenv(variable, value)
	}
	return s
}

// copyLowers copies the tree of the lowers, as a mount of them alone shows it.
func (s *site) copyLowers() {
	s.t.Helper()
	upper, opts := s.Upper, s.Opts
	s.Upper, s.Opts = "", nil
	for _, o := range opts {
		if o != "index=on" && o != "xattr_whiteouts" {
			s.Opts = append(s.Opts, o)
		}
	}
	s.Mount()
	harness.Shell(s.t, s.Env.Dir, "cp -a mnt copy")
	s.Unmount()
	s.Upper, s.Opts = upper, opts
}

// diff runs fuse-overlay diff on the layers.
func (s *site) diff(args ...string) string {
	s.t.Helper()
	args = append(append([]string{"diff"}, s.form.diff...), args...)
	if slices.Contains(s.Opts, "index=on") {
		args = append(args, "-o", "index=on", "--workdir", s.Work)
	}
	for _, data := range s.Data {
		args = append(args, "--datadir", data)
	}
	out, err := exec.Command(harness.Program, append(append(args, s.Upper), s.Lowers...)...).Output()
	if err != nil {
		var text []byte
		if exit, ok := err.(*exec.ExitError); ok {
			text = exit.Stderr
		}
		s.t.Fatalf("diff %q: %v\n%s", args, err, text)
	}
	return string(out)
}

// exact is everything of a tree but numbers of links, which a broken link changes.
func exact() harness.View {
	return harness.View{
		Mode: true, Owner: true, Xattrs: true,
		Also: func(_ string, st *unix.Stat_t) string {
			return fmt.Sprintf(" mtime %d.%09d", st.Mtim.Sec, st.Mtim.Nsec)
		},
	}
}

// wantApplied applies the layer to the copy of the lowers, and compares the result with the mount,
// which is made anew.
func (s *site) wantApplied(what string) {
	s.t.Helper()
	if lines := s.diff(); strings.Count(lines, "\n") < 5 {
		s.t.Errorf("%s: the workload has changed little:\n%s", what, lines)
	}
	archive := s.Env.Dir + "/layer.tar"
	harness.Write(s.t, archive, s.diff("--tar"))
	apply(s.t, archive, s.copy)
	s.Mount()
	defer s.Unmount()
	want, err := harness.Snapshot(s.Point, exact())
	harness.Check(s.t, err)
	got, err := harness.Snapshot(s.copy, exact())
	harness.Check(s.t, err)
	if d := harness.DiffLines(want, got); d != "" {
		s.t.Errorf("%s: the tree of the applied layer differs from the mount:\n%s\nchanges:\n%s", what, d, s.diff())
	}
	harness.Check(s.t, os.Remove(archive))
}

// The layer of any upper, applied to the tree of its lowers, gives the tree of the mount. After the
// layer is applied, there is nothing left that differs.
func TestLayerGivesTheTreeOfTheMount(t *testing.T) {
	harness.NeedDaemon(t)
	for _, f := range forms {
		t.Run(f.name, func(t *testing.T) {
			harness.EachMode(t, f.modes, func(t *testing.T, e *harness.Env) {
				for seed := range seeds {
					s := newSite(t, harness.NewEnv(t, e.Mode), f, lowerTable+f.table, "file old/x \"below\"\nfile d/z \"below\"\ndir d/a/more")
					s.copyLowers()
					for round := range 2 {
						s.Mount()
						newWorker(t, s.Point, seed*10+uint64(round), e.Mode != harness.ModeFusermount).work(60)
						s.Unmount()
					}
					s.wantApplied(fmt.Sprintf("seed %d", seed))
				}
			})
		})
	}
}

// Files whose data lies in a data-only layer, and that were copied up or not, are written with
// their data.
func TestDataOnlyLayers(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		lower := ""
		for i, name := range []string{"a", "b", "dir/c", "dir/d"} {
			lower += fmt.Sprintf("file %s\nsize %[1]s 4\nxattr %[1]s trusted.overlay.metacopy \"\"\n"+
				"xattr %[1]s trusted.overlay.redirect /pool/%d\n", name, i+1)
		}
		s := newSite(t, e, form{mount: []string{"metacopy=on", "redirect_dir=on"}}, lower)
		data := e.Dir + "/data"
		harness.Mkdir(t, data)
		harness.Build(t, e, data, "file pool/1 \"one.\"\nfile pool/2 \"two.\"\nfile pool/3 \"tri.\"\nfile pool/4 \"four\"")
		s.Data = []string{data}
		s.copyLowers()
		s.Mount()
		harness.Shell(t, s.Point, "chmod 600 a; echo more >>b; mv dir moved; mv moved/c moved/e; touch -d @5000 moved/d")
		s.Unmount()
		if got, want := s.diff("--name-only"), ".\na\nb\ndir\nmoved\nmoved/c\nmoved/d\nmoved/e\n"; got != want {
			t.Errorf("changed:\n%swant:\n%s", got, want)
		}
		s.wantApplied("data-only")
	})
}

// The layer and the lines are the same while the upper is mounted, and by the name of the mount
// point, as long as nothing is written.
func TestMountedUpper(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		s := newSite(t, e, form{}, lowerTable)
		s.Mount()
		newWorker(t, s.Point, 3, false).work(40)
		harness.Write(t, s.Path("cached"), strings.Repeat("x", 100000))
		byPoint, err := harness.Run(harness.Program, "diff", s.Point)
		harness.Check(t, err)
		if !strings.Contains(byPoint, "A cached\n") || byPoint != s.diff() {
			t.Errorf("by the mount point:\n%s\nby the layers:\n%s", byPoint, s.diff())
		}
		size, err := harness.Run(harness.Program, "diff", "--json", s.Point, "--", "cached")
		if want := `{"kind":"A","path":"cached","type":"file","size":100000}` + "\n"; err != nil || size != want {
			t.Errorf("%s (%v), want %s", size, err, want)
		}
		s.Unmount()
		if after := s.diff(); after != byPoint {
			t.Errorf("after the unmount:\n%s\nbefore:\n%s", after, byPoint)
		}
	})
}

// Nothing in a layer changes, not even a time.
func TestDiffChangesNothing(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		s := newSite(t, e, form{}, lowerTable)
		s.Mount()
		newWorker(t, s.Point, 5, false).work(40)
		s.Unmount()
		times := func() string {
			var b strings.Builder
			for _, dir := range []string{s.Upper, s.Work, s.Lowers[0]} {
				lines, err := harness.Snapshot(dir, harness.View{Mode: true, Owner: true, Nlink: true, Xattrs: true,
					Also: func(_ string, st *unix.Stat_t) string { return fmt.Sprint(" ", st.Mtim, st.Ctim) }})
				harness.Check(t, err)
				fmt.Fprintln(&b, filepath.Base(dir), lines)
			}
			return b.String()
		}
		before := times()
		for _, flag := range []string{"--name-only", "--tar", "--stat", "--json"} {
			s.diff(flag)
		}
		if after := times(); after != before {
			t.Errorf("before:\n%s\nafter:\n%s", before, after)
		}
	})
}
