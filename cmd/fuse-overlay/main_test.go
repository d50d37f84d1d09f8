package main

import (
	"bytes"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/internal/mountargs"
	"github.com/fuse-overlay/fuse-overlay/internal/version"
)

func TestVersion(t *testing.T) {
	for _, flag := range []string{"-V", "--version"} {
		var out, errs bytes.Buffer
		if code := run([]string{"/usr/bin/fuse-overlay", flag}, &out, &errs); code != exitOK || errs.Len() > 0 {
			t.Errorf("exit %d, stderr %q", code, &errs)
		}
		if !strings.HasPrefix(out.String(), "fuse-overlay version ") {
			t.Errorf("got %q", &out)
		}

		out.Reset()
		run([]string{"/usr/bin/fuse-overlayfs", flag}, &out, &errs)
		// The expression that callers look for.
		if m := regexp.MustCompile(`(?m)^fuse-overlayfs:.*?(\d+\.\d+(\.\d+)?)`).FindStringSubmatch(out.String()); m == nil || m[1] != compatVersion {
			t.Errorf("got %q", &out)
		}
		if !strings.Contains(out.String(), "\nfuse-overlay version ") {
			t.Errorf("our own version is missing in %q", &out)
		}
	}
}

func TestUsage(t *testing.T) {
	for _, flag := range []string{"-h", "--help"} {
		var out, errs bytes.Buffer
		if code := run([]string{"x", flag}, &out, &errs); code != exitOK || errs.Len() > 0 {
			t.Errorf("exit %d, stderr %q", code, &errs)
		}
		for _, name := range optionNames() {
			if !regexp.MustCompile(`(?m)(^| )` + regexp.QuoteMeta(name) + `($|[ =\[])`).Match(out.Bytes()) {
				t.Errorf("%s is not in the usage", name)
			}
		}
		for line := range strings.Lines(out.String()) {
			if len(strings.TrimSuffix(line, "\n")) > usageWidth {
				t.Errorf("a line of %d columns: %s", len(line)-1, line)
			}
		}
		if !strings.Contains(out.String(), "\n  x -o lowerdir=a:b,upperdir=up,workdir=work merged\n") {
			t.Error("the usage has no example")
		}
	}
}

func TestManualNamesEveryOption(t *testing.T) {
	manual, err := os.ReadFile("../../docs/fuse-overlay.1")
	if err != nil {
		t.Fatal(err)
	}
	for _, group := range optionTable {
		for _, o := range group.options {
			if !regexp.MustCompile(`(?m)^\.(Cm|It Cm) (.* )?` + regexp.QuoteMeta(o.name) + `( |$)`).Match(manual) {
				t.Errorf("%s is not in the manual", o.name)
			}
		}
	}
}

// The manual has the default of each option, and the version that all are in.
func TestManualHasDefaults(t *testing.T) {
	text, err := os.ReadFile("../../docs/fuse-overlay.1")
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(text), "\n.Sh OPTIONS\n")
	options, _, _ := strings.Cut(after, "\n.Ss Accepted, without effect\n")
	described := ""
	entries := regexp.MustCompile(`(?m)^\.It Cm (.*)\n((?:[^.].*\n|\.(?:[^IE]|I[^t]|E[^l]).*\n)*)`).FindAllStringSubmatch(options, -1)
	for _, m := range entries {
		described += m[1] + " "
		if m[2] == "" { // the next entry describes this one too
			continue
		}
		known := optionNamed(described)
		described = ""
		if known != "" && !regexp.MustCompile(`(?i)default`).MatchString(m[2]) {
			t.Errorf("%s has no default", known)
		}
	}
	if len(entries) < 40 {
		t.Errorf("only %d entries were found", len(entries))
	}
	if !strings.Contains(string(text), "\n.Sh HISTORY\nAll flags, options and commands are in version "+version.First+",") {
		t.Error("the history does not name the first version")
	}
}

// optionNamed returns an option that is a word of a text.
func optionNamed(text string) string {
	words := strings.Fields(text)
	for _, name := range optionNames() {
		if slices.Contains(words, name) {
			return name
		}
	}
	return ""
}

func TestErrorsAreOneLineAndNameTheProgram(t *testing.T) {
	for _, tt := range []struct {
		argv []string
		want string
	}{
		{[]string{"/bin/fuse-overlay", "M"}, "fuse-overlay: no lower layer given: -o lowerdir=DIR[:DIR]... is needed\n"},
		{[]string{"fuse-overlayfs"}, "fuse-overlayfs: no mount point given (see --help)\n"},
		{nil, "fuse-overlay: no mount point given (see --help)\n"},
		{[]string{""}, "fuse-overlay: no mount point given (see --help)\n"},
		{[]string{"fuse-overlay", "-f", "-o", "lowerdir=/", "/proc/none"}, "fuse-overlay: mount point \"/proc/none\": no such file or directory\n"},
	} {
		var out, errs bytes.Buffer
		if code := run(tt.argv, &out, &errs); code != exitFailed || out.Len() > 0 || errs.String() != tt.want {
			t.Errorf("%q\n got: %d %q %q\nwant: %q", tt.argv, code, &out, &errs, tt.want)
		}
	}
}

func TestCallersOfTheOlderProgramAreWarned(t *testing.T) {
	var out, errs bytes.Buffer
	run([]string{mountargs.CompatName, "-f", "-o", "lowerdir=/,foo=1", "-z", "/proc/none"}, &out, &errs)
	want := "unknown argument ignored: -z\nunknown argument ignored: foo=1\n"
	if !strings.HasPrefix(errs.String(), want) {
		t.Errorf("got %q", &errs)
	}
}
