package faults

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// A mount without an error is one line, with what was decided and the notes about options.
func TestMountIsOneLine(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		for _, c := range []struct {
			what  string
			opts  []string
			upper bool
			want  []string // in the line
			not   string
		}{
			{"default", nil, true,
				[]string{`"version":"`, `"layers":["upperdir `, `"copy-ups":"`, `"not in this kernel":[`, `"idle CPUs":"`}, `is of no use`},
			{"options", []string{"cpu_idle=sleep", "writeback=1"}, true,
				[]string{`"idle CPUs":"sleep: cpu_idle=sleep"`, `writeback=1`}, `is of no use`},
			{"an option without effect", []string{"volatile"}, false,
				[]string{`"notes":["option volatile is of no use without an upperdir, and is ignored"]`,
					`"whiteouts":"none are written"`, `"copy-ups":"none"`}, `upperdir /`},
		} {
			o := harness.NewEnv(t, e.Mode).Overlay(t, "file f \"x\"")
			o.Log = filepath.Join(filepath.Dir(o.Point), "log")
			o.Opts = append(o.Opts, c.opts...)
			if !c.upper {
				o.Upper, o.Work = "", ""
			}
			o.Mount()
			text := harness.ReadText(t, o.Log)
			harness.WantText(t, o.Path("f"), "x")
			o.Unmount()
			if n := strings.Count(text, "\n"); n != 1 || !strings.Contains(text, `"msg":"mounted"`) {
				t.Errorf("%s: %d lines at mount, want one:\n%s", c.what, n, text)
			}
			for _, part := range c.want {
				if !strings.Contains(text, part) {
					t.Errorf("%s: no %s in %s", c.what, part, text)
				}
			}
			if strings.Contains(text, c.not) {
				t.Errorf("%s: %s in %s", c.what, c.not, text)
			}
			harness.Check(t, os.Remove(o.Log))
		}
	})
}
