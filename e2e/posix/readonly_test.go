package posix

import (
	"testing"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
	"github.com/fuse-overlay/fuse-overlay/e2e/operation"
)

// readOnlyRows: a change of a read-only file system is EROFS, unless the call fails for a reason
// that the kernel checks before.
var readOnlyRows = []row{
	{tree: "file f", do: "chmod f 0600", want: "EROFS"},
	{tree: "dir d", do: "chmod d 0700", want: "EROFS"},
	{tree: "file f", do: "chown f -1 -1", want: "EROFS"},
	{tree: "symlink l f", do: "chown l -1 -1", want: "EROFS"},
	{tree: "file f", do: "utimes f 5 6", want: "EROFS"},
	{tree: "file f", do: "truncate f 0", want: "EROFS"},
	{tree: "file f", do: "unlink f", want: "EROFS"},
	{tree: "dir d", do: "rmdir d", want: "EROFS"},
	{tree: "file f", do: "rename f g", want: "EROFS"},
	{tree: "file f", do: "link f g", want: "EROFS"},
	{do: "mkdir d 0700", want: "EROFS"},
	{do: "mknod p fifo 0600", want: "EROFS"},
	{do: "symlink l target", want: "EROFS"},
	{tree: "file f", do: "open f O_WRONLY", want: "EROFS"},
	{tree: "file f", do: "open f O_RDONLY|O_TRUNC", want: "EROFS"},
	{do: "open f O_CREAT|O_WRONLY 0600", want: "EROFS"},
	{tree: "file f", do: "open f O_RDONLY|O_CREAT 0600", want: "ok"},
	{tree: "file f", do: "open f O_RDONLY", want: "ok"},
	{tree: "fifo p", do: "open p O_RDWR", want: "ok"},
	{tree: "fifo p", do: "open p O_WRONLY", want: "ENXIO"},
	{tree: "file f", do: "mkdir f 0700", want: "EEXIST"},
	{tree: "file f", do: "symlink f target", want: "EEXIST"},
	{do: "unlink missing", want: "EROFS"},
	{do: "rmdir missing", want: "EROFS"},
	{tree: "file f", do: "chmod f/x 0600", want: "ENOTDIR"},
}

func TestReadOnly(t *testing.T) {
	harness.EachPolicy(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "dir lower 0755", "dir lower 0755")
		o.Upper, o.Work = "", ""
		var cases []rowCase
		for _, c := range casesOf(readOnlyRows, e.Mode) {
			if c.layer == inLower {
				c.build(t, e, o.Lowers[1])
				cases = append(cases, c)
			}
		}
		o.Mount()
		side := operation.NewSide(o)
		for _, c := range cases {
			t.Run(c.name(), func(t *testing.T) { c.run(t, side) })
		}
	})
}
