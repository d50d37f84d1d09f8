package archtest

import (
	"slices"
	"strings"
	"testing"
)

// TestChecker breaks each rule in a small fixture: a checker that cannot fail proves nothing.
func TestChecker(t *testing.T) {
	functions := map[string][]string{
		"golang.org/x/sys/unix": {"Open", "Umask", "Major"},
		"syscall":               {"Open"},
		"os":                    {"Open", "Getenv", "Stat"},
	}
	const (
		useUnix  = "package x\nimport \"golang.org/x/sys/unix\"\n"
		useOS    = "package x\nimport \"os\"\n"
		useAlias = "package x\nimport u \"golang.org/x/sys/unix\"\n"
	)
	for _, c := range []struct {
		name    string
		room    string
		imports []string
		tests   []string
		source  string
		want    string // a part of the one violation; empty is none
	}{
		{name: "go-fuse in fs", room: "fs", imports: []string{"github.com/hanwen/go-fuse/v2/fuse"}},
		{name: "go-fuse in the command", room: "cmd/fuse-overlay", imports: []string{"github.com/hanwen/go-fuse/v2/fuse"}},
		{name: "go-fuse in a test of e2e", room: "e2e", tests: []string{"github.com/hanwen/go-fuse/v2/posixtest"}},
		{name: "go-fuse below fs", room: "fs/stack", imports: []string{"github.com/hanwen/go-fuse/v2/fuse"},
			want: "only fs and fs/conn talk to the kernel"},
		{name: "go-fuse in a test of copyup", room: "copyup", tests: []string{"github.com/hanwen/go-fuse/v2/fuse"},
			want: "only fs and fs/conn talk to the kernel"},
		{name: "zap in stack", room: "fs/stack", imports: []string{"go.uber.org/zap"}, want: "worth a line in the log"},
		{name: "zapcore in copyup", room: "copyup", imports: []string{"go.uber.org/zap/zapcore"},
			want: "worth a line in the log"},
		{name: "xattr in whiteout", room: "whiteout", imports: []string{"github.com/pkg/xattr"}, want: "fault seam"},
		{name: "os in copyup", room: "copyup", imports: []string{"os"}, want: "bypasses the fault seam"},
		{name: "os in a test of copyup", room: "copyup", tests: []string{"os"}},
		{name: "copyup knows whiteout", room: "copyup", imports: []string{module + "/whiteout"},
			want: "does not depend on whiteouts"},
		{name: "whiteout knows copyup", room: "whiteout", imports: []string{module + "/copyup"},
			want: "does not depend on copy-up"},
		{name: "stack uses its parts", room: "fs/stack",
			imports: []string{module + "/copyup", module + "/whiteout", module + "/internal/sys"}},
		{name: "stack points up", room: "fs/stack", imports: []string{module + "/fs"}, want: "on the client"},
		{name: "stack knows nodes", room: "fs/stack", imports: []string{module + "/inodecache"}, want: "on the client"},
		{name: "sys knows the host", room: "internal/sys", imports: []string{module + "/internal/host"}},
		{name: "host knows layers", room: "internal/host", imports: []string{module + "/internal/sys"},
			want: "does not depend on layers"},
		{name: "sys points up", room: "internal/sys", imports: []string{module + "/whiteout"}, want: "decides nothing"},
		{name: "fs points up", room: "fs", imports: []string{module + "/cmd/fuse-overlay"}, want: "not the command line"},
		{name: "the command knows layers", room: "cmd/fuse-overlay", imports: []string{module + "/fs/stack"},
			want: "not layers"},
		{name: "the bench knows the program", room: "bench", imports: []string{module + "/fs"},
			want: "the bench measures the built program"},
		{name: "inodecache leaves the standard library", room: "inodecache", imports: []string{"golang.org/x/sys/unix"},
			want: "pure data structures"},
		{name: "inodecache within it", room: "inodecache", imports: []string{"sync", "container/list"}},

		{name: "a call in stack", room: "fs/stack", source: useUnix + "func f() { unix.Open(\"\", 0, 0) }",
			want: "fs/stack/x.go:3: unix.Open: system calls are made by internal/sys and internal/host alone"},
		{name: "a call under another name", room: "fs", source: useAlias + "func f() { u.Open(\"\", 0, 0) }",
			want: "u.Open"},
		{name: "a function taken as a value", room: "copyup", source: useUnix + "var open = unix.Open", want: "unix.Open"},
		{name: "a call in sys", room: "internal/sys", source: useUnix + "func f() { unix.Open(\"\", 0, 0) }"},
		{name: "a type, a constant, arithmetic", room: "fs/stack",
			source: useUnix + "var a, b = unix.Errno(unix.EIO), unix.Major(1)"},
		{name: "process control in the command", room: "cmd/fuse-overlay", source: useUnix + "func f() { unix.Umask(0) }"},
		{name: "another call in the command", room: "cmd/fuse-overlay",
			source: useUnix + "func f() { unix.Open(\"\", 0, 0) }", want: "unix.Open"},
		{name: "a path in fs", room: "fs", source: useOS + "func f() { os.Stat(\"/etc\") }", want: "takes paths"},
		{name: "the environment in fs", room: "fs", source: useOS + "var home = os.Getenv(\"HOME\")"},
		{name: "a trusted path in stack", room: "fs/stack", source: useOS + "func f() { os.Stat(\"/etc\") }"},
		{name: "an errno as a flag", room: "fs", source: useUnix + "const errNotYet = unix.EAGAIN",
			want: "fs/x.go:3: errNotYet = EAGAIN: an errno is"},
		{name: "an errno of no call", room: "fs", source: useUnix + "func f() error { return unix.ERESTART }", want: "unix.ERESTART"},
		{name: "an errno that is returned", room: "fs", source: useUnix + "func f() error { return unix.EAGAIN }"},
		{name: "os.Stderr is swapped", room: "cmd/fuse-overlay", source: useOS + "func f() { os.Stderr = nil }",
			want: "cmd/fuse-overlay/x.go:3: os.Stderr"},
		{name: "the name of an xattr", room: "whiteout", source: "package x\nvar name = \"trusted.overlay.opaque\"",
			want: "spelt once"},
		{name: "the name of an xattr in its room", room: "internal/ondisk", source: "package x\nvar name = \"user.overlay.\""},
		{name: "a long function", room: "fs", source: "package x\nfunc f() {\n" + strings.Repeat("f()\n", maxFunctionLines+1) + "}",
			want: "fs/x.go: f has 61 lines"},
		{name: "a long comment in a function", room: "fs",
			source: "package x\nfunc f() {\n" + strings.Repeat("// f\n", maxFunctionLines+1) + "}"},
		{name: "a long file", room: "fs", source: "package x\n" + strings.Repeat("\n", maxFileLines), want: "fs/x.go has 401 lines"},
		{name: "a long table", room: "fs", source: "package x\nvar t = []int{\n" + strings.Repeat("1,\n", maxFileLines) + "}"},

		{name: "process control elsewhere", room: "fs", source: useUnix + "func f() { unix.Umask(0) }", want: "unix.Umask"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := &pkg{ImportPath: module + "/" + c.room, Imports: c.imports, TestImports: c.tests}
			if c.source != "" {
				p.GoFiles, p.sources = []string{"x.go"}, map[string]string{"x.go": c.source}
			}
			got := slices.Concat(checkImports(p), checkCalls(p, functions), checkText(p))
			switch {
			case c.want == "" && len(got) > 0:
				t.Errorf("unexpected: %q", got)
			case c.want != "" && (len(got) != 1 || !strings.Contains(got[0], c.want)):
				t.Errorf("got %q, want one with %q", got, c.want)
			}
		})
	}
}

// TestEveryRoomHasRules fails when a room is added without a word on what it may import.
func TestEveryRoomHasRules(t *testing.T) {
	for _, p := range goList(t, "./...") {
		room := p.room()
		known := room == "internal/archtest"
		for pattern := range allowed {
			known = known || match(pattern, room)
			if reasons[pattern] == "" {
				t.Errorf("%s has no reason", pattern)
			}
		}
		if !known {
			t.Errorf("%s has no rules: add it to allowed and reasons, and to ARCHITECTURE.md", room)
		}
	}
}
