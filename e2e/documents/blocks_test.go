package documents

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
	"github.com/fuse-overlay/fuse-overlay/internal/podman"
)

// The blocks of a document run in order, in one folder. A block is a script of its own: variables
// end with it, files stay. What it prints is in the block of kind "output" that follows. Without
// such a block it is in the comments of the lines with cat and tail.

// The notes of a block, in a comment before it. A block without a note runs in each mode.
const (
	asRoot    = "root"   // by root only
	asUser    = "user"   // by a plain user, and by root of a user namespace
	forPodman = "podman" // by podman of root and of a plain user, which has the image localhost/busybox
)

// runs are the modes in which a block with a note runs.
var runs = map[string][]harness.Mode{
	"": harness.AllModes, asRoot: harness.OnlyRoot, asUser: {harness.ModeUserns, harness.ModeFusermount},
}

// kinds are the languages of blocks. A block of commands is of kind sh, or it would not run.
var kinds = []string{"", "sh", "output", "text", "toml", "json", "ini"}

// ofMake is a block whose lines only call make: TestDocumentedTargets of package command.
var ofMake = regexp.MustCompile(`^((sudo )?make .*\n|    .*\n)+$`)

// step is a block with what it prints.
type step struct {
	harness.Block
	want string
}

// steps are the blocks of a document that run.
func steps(t *testing.T, path string) (list []step) {
	t.Helper()
	if strings.Contains(harness.ReadText(t, path), "\n ```") {
		t.Errorf("%s: an indented block does not run", path)
	}
	blocks := harness.Blocks(t, path)
	for i, b := range blocks {
		if !slices.Contains(kinds, b.Kind) {
			t.Errorf("%s:%d: a block of kind %q", path, b.Line, b.Kind)
		}
		_, known := runs[b.Note]
		if b.Kind != "sh" && b.Note != "" || !known && b.Note != forPodman {
			t.Errorf("%s:%d: run: %s", path, b.Line, b.Note)
		}
		if b.Kind != "sh" || ofMake.MatchString(b.Text) {
			continue
		}
		s := step{Block: b, want: comments(b.Text)}
		if i+1 < len(blocks) && blocks[i+1].Kind == "output" {
			s.want = blocks[i+1].Text
		}
		list = append(list, s)
	}
	return list
}

var (
	shows   = regexp.MustCompile(`\b(cat|tail) `)
	comment = regexp.MustCompile(`(?m)^(.*?) +# (.*)$`)
)

// comments is the output of the lines with cat and tail. A comma in a comment ends a line.
func comments(text string) string {
	var out strings.Builder
	for _, m := range comment.FindAllStringSubmatch(text, -1) {
		if shows.MatchString(m[1]) {
			out.WriteString(strings.ReplaceAll(m[2], ", ", "\n") + "\n")
		}
	}
	return out.String()
}

// matches reports whether an output is that of a document: there "..." stands for a part of a line,
// and on a line of its own for any number of lines. Blanks at the end of lines do not count.
func matches(want, got string) bool {
	var expr strings.Builder
	for line := range strings.Lines(want) {
		line = strings.TrimSuffix(line, "\n")
		if line == "..." {
			expr.WriteString(`(.*\n)*?`)
			continue
		}
		expr.WriteString(strings.ReplaceAll(regexp.QuoteMeta(line), `\.\.\.`, ".*") + ` *\n`)
	}
	return regexp.MustCompile(`^` + expr.String() + `$`).MatchString(got)
}

func TestMatches(t *testing.T) {
	for _, tt := range []struct {
		want, got string
		equal     bool
	}{
		{"", "", true}, {"", "x\n", false}, {"a b\n", "a b  \n", true}, {"a (b)\n", "a b\n", false},
		{"a ... c\n", "a b c\n", true}, {"a ... c\n", "a b\nc\n", false}, {"...\nb\n", "a\na\nb\n", true},
		{"...\nb\n", "b\n", true}, {"a\n...\n", "b\n", false},
	} {
		if matches(tt.want, tt.got) != tt.equal {
			t.Errorf("%q, %q: not %v", tt.want, tt.got, tt.equal)
		}
	}
}

// check compares the result of a block with the document.
func (s step) check(t *testing.T, page, out string, err error) {
	t.Helper()
	if err != nil || !matches(s.want, out) {
		t.Errorf("%s:%d: %v\n%s\nprinted:\n%s\nand should print:\n%s", page, s.Line, err, s.Text, out, s.want)
	}
}

// TestBlocks runs the blocks of all documents, each as the users that it is for.
func TestBlocks(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		ran := 0
		for _, path := range documents(t, copies()) {
			list := slices.DeleteFunc(steps(t, path), func(s step) bool { return !slices.Contains(runs[s.Note], e.Mode) })
			if len(list) > 0 {
				ran += len(list)
				name := strings.TrimPrefix(path, copies()+"/")
				t.Run(name, func(t *testing.T) { runPage(t, e.Mode, name, list) })
			}
		}
		if ran < 20 {
			t.Errorf("only %d blocks ran", ran)
		}
	})
}

// runPage runs blocks of a document.
func runPage(t *testing.T, mode harness.Mode, name string, list []step) {
	t.Helper()
	e := harness.NewEnv(t, mode)
	harness.Mkdir(t, e.Dir+"/rootfs/bin", e.Dir+"/tmp")
	harness.Check(t, harness.CopyFile(harness.Busybox(t), e.Dir+"/rootfs/bin/sh"))
	harness.Check(t, os.Mkdir(e.Dir+"/run", 0o700))
	path := filepath.Dir(harness.Program) + ":/usr/local/bin:/usr/bin:/bin"
	if e.Mode == harness.ModeRoot {
		path = "/usr/local/sbin:/usr/sbin:/sbin:" + path
	}
	environ := []string{"PATH=" + path, "HOME=" + e.Dir, "TMPDIR=" + e.Dir + "/tmp", "XDG_RUNTIME_DIR=" + e.Dir + "/run",
		"LC_ALL=C"}
	for _, s := range list {
		out, err := harness.RunIn(e.Dir, environ, harness.CommandLimit, "sh", "-ec", s.Text)
		s.check(t, name, out, err)
	}
	for _, m := range harness.MountTable() {
		if strings.HasPrefix(m.Point, e.Dir+"/") {
			t.Errorf("%s: %s is still mounted", name, m.Point)
		}
	}
	harness.WantNothingRuns(t, e.Dir)
}

// podmanLimit is the time limit of a block with podman: several containers, on a busy machine.
const podmanLimit = 2 * time.Minute

// TestBlocksOfPodman runs the blocks for podman, with the program as mount_program.
func TestBlocksOfPodman(t *testing.T) {
	harness.NeedDaemon(t)
	list := map[string][]step{}
	for _, path := range documents(t, root) {
		for _, s := range steps(t, path) {
			if s.Note == forPodman {
				list[path] = append(list[path], s)
			}
		}
	}
	if len(list) == 0 {
		t.Fatal("no document has a block with podman")
	}
	for kind, user := range map[string]*podman.User{"root": nil, "rootless": {Name: harness.PlainUser.Name,
		UID: harness.PlainUser.UID, GID: harness.PlainUser.GID}} {
		t.Run(kind, func(t *testing.T) {
			e := startPodman(t, user)
			for name, steps := range list {
				for _, s := range steps {
					// A PATH with the program, as make install leaves it.
					script := fmt.Sprintf("PATH=%s:$PATH; exec 2>&1; %s", filepath.Dir(harness.Program), s.Text)
					out, err := e.Run(podmanLimit, "sh", "-ec", script)
					s.check(t, name, out, err)
				}
			}
			for _, left := range []func() ([]string, error){e.Mounts, e.Processes} {
				var found []string
				quiet := harness.Eventually(10*time.Second, func() bool {
					var err error
					found, err = left()
					return err == nil && len(found) == 0
				})
				if !quiet {
					t.Errorf("left: %v", found)
				}
			}
		})
	}
}

// startPodman starts podman of a user, nil is root, with the image localhost/busybox.
func startPodman(t *testing.T, user *podman.User) *podman.Engine {
	t.Helper()
	dir, err := os.MkdirTemp(harness.RunDir, "podman-")
	harness.Check(t, err)
	harness.Check(t, os.Chmod(dir, 0o755))
	e, err := podman.Start(podman.Config{Dir: dir, Program: harness.Program, User: user})
	harness.Check(t, err)
	t.Cleanup(func() {
		_, err := e.Run(podmanLimit, "podman", "rmi", "--force", "--all")
		harness.Check(t, err)
		harness.Check(t, e.Close())
		harness.RemoveTree(dir)
	})
	harness.Mkdir(t, dir+"/image/bin", dir+"/image/proc", dir+"/image/tmp", dir+"/image/etc")
	harness.Check(t, harness.CopyFile(harness.Busybox(t), dir+"/image/bin/busybox"))
	harness.Shell(t, dir+"/image", "for name in $(bin/busybox --list | grep -vx busybox); do ln -s busybox bin/$name; done; "+
		"ln -s /proc/mounts etc/mtab; echo root:x:0:0::/root:/bin/sh >etc/passwd; tar -cf ../image.tar .")
	_, err = e.Run(podmanLimit, "podman", "import", "--quiet", dir+"/image.tar", "localhost/busybox")
	harness.Check(t, err)
	return e
}
