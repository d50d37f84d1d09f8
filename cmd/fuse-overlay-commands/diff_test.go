package main

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// layersForDiff makes an upper and a lower.
func layersForDiff(t *testing.T) (upper, lower string) {
	t.Helper()
	dir := t.TempDir()
	upper, lower = filepath.Join(dir, "upper"), filepath.Join(dir, "lower")
	for path, text := range map[string]string{upper + "/d/new": "new", upper + "/changed": "12", lower + "/changed": "1"} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return upper, lower
}

// The forms of the output, the exit codes and the errors.
func TestDiff(t *testing.T) {
	upper, lower := layersForDiff(t)
	for _, tt := range []struct {
		args      []string
		code      int
		out, errs string
	}{
		{[]string{upper, lower, "--", "d"}, exitOK, "A d\nA d/new\n", ""},
		{[]string{"--exit-code", upper, lower, "--", "d/new"}, exitFailed, "A d/new\n", ""},
		{[]string{"--exit-code", upper, lower, "--", "none"}, exitOK, "", ""},
		{[]string{"--name-only", upper, "--", "./d/"}, exitOK, "d\nd/new\n", ""},
		{[]string{"--stat", upper, lower, "--", "d", "changed"}, exitOK, "added           2              3 bytes\n" +
			"modified        1              2 bytes\ndeleted         0\nrenamed         0\nlinked          0\n", ""},
		{[]string{"--json", upper, lower, "--", "d"}, exitOK, `{"kind":"A","path":"d","type":"directory"}` + "\n" +
			`{"kind":"A","path":"d/new","type":"file","size":3}` + "\n", ""},
		{nil, exitUsage, "", "fuse-overlay diff: no upper and no mount point given; see fuse-overlay diff --help\n"},
		{[]string{upper, "--", "../x"}, exitUsage, "",
			"fuse-overlay diff: the path \"../x\" does not lie in the tree: paths are relative to its root; see fuse-overlay diff --help\n"},
		{[]string{"--json", "--tar", upper}, exitUsage, "", "fuse-overlay diff: if any flags in the group [name-only stat json tar] " +
			"are set none of the others can be; [json tar] were all set; see fuse-overlay diff --help\n"},
		{[]string{"/none"}, exitFailed, "", "fuse-overlay diff: upperdir \"/none\": no such file or directory\n"},
		{[]string{upper, "/none"}, exitFailed, "", "fuse-overlay diff: lowerdir \"/none\": no such file or directory\n"},
		{[]string{"-o", "index=on", upper, lower}, exitFailed, "",
			"fuse-overlay diff: option index=on needs --workdir: the index is in the work directory\n"},
	} {
		out, errs, code := runCommand(append([]string{"diff"}, tt.args...)...)
		if code != tt.code || out != tt.out || errs != tt.errs {
			t.Errorf("%q\n got: %d %q %q\nwant: %d %q %q", tt.args, code, out, errs, tt.code, tt.out, tt.errs)
		}
	}
}

// A socket cannot be in an archive, and the user learns that.
func TestDiffWarnsOfSockets(t *testing.T) {
	upper, _ := layersForDiff(t)
	if err := unix.Mknod(upper+"/s", unix.S_IFSOCK|0o600, 0); err != nil {
		t.Fatal(err)
	}
	out, errs, code := runCommand("diff", "--tar", upper)
	if code != exitOK || len(out) == 0 || errs != "fuse-overlay diff: s is a socket, which an archive cannot hold: left out\n" {
		t.Errorf("exit %d, %d bytes, %q", code, len(out), errs)
	}
}
