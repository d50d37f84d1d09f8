package quote

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

func TestWord(t *testing.T) {
	for path, want := range map[string]string{
		"/a:b,c": "/a:b,c", "/a b": `"/a b"`, "a\nb\t\x01": `"a\nb\t\001"`, `a"\`: `"a\"\\"`, "ä": `"\303\244"`, "\xff": `"\377"`,
		"a\x7f": `"a\177"`, "": `""`,
	} {
		if got := Word(path); got != want {
			t.Errorf("%q: got %s, want %s", path, got, want)
		}
	}
	if got := Path("a b"); got != "a b" {
		t.Errorf("a blank of a path: %s", got)
	}
}

// git itself prints the same.
func TestQuotedAsByGit(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed")
	}
	for _, name := range []string{"plain", "a b", "a\nb", "tab\there", `q"\`, "ä", "\xff\xfe", "\x01\x7f", "c:d,e", "\a\b\v\f\r"} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		run := func(args ...string) string {
			cmd := exec.Command("git", append([]string{"-C", dir, "-c", "core.quotePath=true"}, args...)...)
			cmd.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null")
			out, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			return string(out)
		}
		run("init", "-q")
		if got, want := "?? "+Word(name)+"\n", run("status", "--short"); got != want {
			t.Errorf("%q: got %q, git has %q", name, got, want)
		}
		if got, want := Path(name)+"\n", run("ls-files", "--others"); got != want {
			t.Errorf("%q: got %q, git has %q", name, got, want)
		}
	}
}
