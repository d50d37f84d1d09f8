package posix

import (
	"strings"
	"testing"
)

// pathCalls are the calls of the tables, with PATH in place of a path, and whether the call follows
// a symbolic link that is the last component.
var pathCalls = []struct {
	do      string
	follows bool
}{
	{"chmod PATH 0600", true},
	{"chown PATH -1 -1", false},
	{"utimes PATH 5 0", false},
	{"truncate PATH 0", true},
	{"open PATH O_RDONLY", true},
	{"open PATH O_CREAT|O_WRONLY 0644", true},
	{"link PATH new", false},
	{"rename PATH new", false},
	{"unlink PATH", false},
	{"rmdir PATH", false},
}

// makingCalls make PATH.
var makingCalls = []string{
	"mkdir PATH 0755", "mknod PATH fifo 0644", "mknod PATH sock 0644", "mknod PATH file 0644", "symlink PATH target",
	"link f PATH", "rename f PATH", "open PATH O_CREAT|O_EXCL|O_WRONLY 0644",
}

// brokenPaths are paths that no call accepts.
var brokenPaths = []struct{ tree, path, want string }{
	{"", "missing/x", "ENOENT"},
	{"file file", "file/x", "ENOTDIR"},
	{"fifo fifo", "fifo/x", "ENOTDIR"},
	{"symlink dangling nowhere", "dangling/x", "ENOENT"},
	{"symlink tofile f", "tofile/x", "ENOTDIR"},
	{"symlink a b\nsymlink b a", "a/x", "ELOOP"},
	{"", "{256}", "ENAMETOOLONG"},
	{"dir d", "d/{256}", "ENAMETOOLONG"},
	{"", "{256}/x", "ENAMETOOLONG"},
	{"", "{4096}f", "ENAMETOOLONG"},
}

func TestBrokenPaths(t *testing.T) {
	var rows []row
	add := func(call string) {
		for _, b := range brokenPaths {
			rows = append(rows, row{tree: "file f\n" + b.tree, do: strings.ReplaceAll(call, "PATH", b.path), want: b.want})
		}
		rows = append(rows, row{
			tree: "file f\ndir closed 0700\nfile closed/x", by: other, do: strings.ReplaceAll(call, "PATH", "closed/x"), want: "EACCES",
		})
	}
	for _, c := range pathCalls {
		add(c.do)
		if c.follows {
			rows = append(rows, row{tree: "symlink a b\nsymlink b a", do: strings.ReplaceAll(c.do, "PATH", "a"), want: "ELOOP"})
		}
		if !strings.Contains(c.do, "O_CREAT") {
			rows = append(rows, row{do: strings.ReplaceAll(c.do, "PATH", "missing"), want: "ENOENT"})
		}
	}
	for _, call := range makingCalls {
		add(call)
	}
	runRows(t, rows)
}

// existing are objects that are in the way of a call that makes one.
var existing = []string{
	"file x", "dir x", "fifo x", "sock x", "symlink x f", "symlink x nowhere", "symlink x x",
}

// TestNameInUse makes objects where there is one, and where the caller may not write.
func TestNameInUse(t *testing.T) {
	var rows []row
	for _, call := range makingCalls {
		do := strings.ReplaceAll(call, "PATH", "x")
		if !strings.HasPrefix(call, "rename") {
			for _, tree := range existing {
				rows = append(rows, row{tree: "file f\n" + tree, do: do, want: "EEXIST"})
			}
			rows = append(rows, row{tree: "file f", root: "char x 1/3", do: do, want: "EEXIST"})
		}
		for _, by := range []caller{member, other} {
			rows = append(rows, row{tree: "file f 0666", by: by, do: do, want: "EACCES"})
		}
		made := row{tree: "file f\ndir x 0777", by: root, do: strings.ReplaceAll(call, "PATH", "x/new"), want: "ok",
			after: "x/new", times: "x:mc"}
		switch {
		case strings.HasPrefix(call, "rename"):
			made.after, made.times = "x/new -f", "x:mc .:mc"
		case strings.HasPrefix(call, "link"):
			made.after, made.times = "x/new#2 f#2", "x:mc f:c"
		case strings.HasPrefix(call, "mkdir"):
			made.after = "x/new=0755@0:0"
		}
		rows = append(rows, made)
	}
	runRows(t, rows)
}
