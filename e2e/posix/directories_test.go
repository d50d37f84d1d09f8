package posix

import (
	"strconv"
	"testing"
)

// mkdirRows: a directory belongs to the caller, and has the mode without the bits of the umask,
// which is 022. In a directory with sgid it inherits the group and the bit.
var mkdirRows = []row{
	{do: "mkdir d 0777", want: "ok", after: "d=0755", times: ".:mc"},
	{root: "file beside", do: "mkdir d 0000", want: "ok", after: "d=0000", times: ".:mc"},
	{do: "mkdir d 1777", want: "ok", after: "d=01755", times: ".:mc"},
	{do: "mkdir d 6777", want: "ok", after: "d=0755", times: ".:mc"},
	{do: "mkdir d/ 0700", want: "ok", after: "d=0700", times: ".:mc"},
	{do: "mkdir {255} 0700", want: "ok", after: "{255}", times: ".:mc"},
	{do: "mkdir . 0700", want: "EEXIST"},
	{tree: "dir d", do: "mkdir d/.. 0700", want: "EEXIST"},
	{tree: "dir d 0555", do: "mkdir d/e 0700", want: "EACCES"},
	{tree: "dir d 0777", by: other, do: "mkdir d/e 0700", want: "ok", after: "d/e=0700@1002:1002", times: "d:mc"},
	{tree: "dir d 2777", by: other, do: "mkdir d/e 0700", want: "ok", after: "d/e=02700@1002:1000", times: "d:mc"},
}

func TestMkdir(t *testing.T) { runRows(t, mkdirRows) }

// rmdirRows: only an empty directory goes, and only by its own name.
var rmdirRows = []row{
	{tree: "dir d", do: "rmdir d", want: "ok", after: "-d", times: ".:mc"},
	{tree: "dir d 0000", root: "file beside", do: "rmdir d", want: "ok", after: "-d", times: ".:mc"},
	{tree: "dir d", do: "rmdir d/", want: "ok", after: "-d", times: ".:mc"},
	{tree: "dir d", root: "own d 0 0", do: "rmdir d", want: "ok", after: "-d", times: ".:mc"},
	{tree: "dir d\nfile d/f", do: "rmdir d", want: "ENOTEMPTY"},
	{tree: "dir d\ndir d/e", do: "rmdir d", want: "ENOTEMPTY"},
	{tree: "dir d\nsymlink d/l nowhere", do: "rmdir d", want: "ENOTEMPTY"},
	{tree: "file f", do: "rmdir f", want: "ENOTDIR"},
	{tree: "fifo p", do: "rmdir p", want: "ENOTDIR"},
	{tree: "sock s", do: "rmdir s", want: "ENOTDIR"},
	{tree: "dir d\nsymlink l d", do: "rmdir l", want: "ENOTDIR"},
	{tree: "dir d\nsymlink l d", do: "rmdir l/", want: "ENOTDIR"},
	{tree: "dir d", do: "rmdir d/.", want: "EINVAL"},
	{tree: "dir d", do: "rmdir d/..", want: "ENOTEMPTY"},
	{tree: "dir d 0777\ndir d/e", by: other, do: "rmdir d/e", want: "ok", after: "-d/e", times: "d:mc"},
	{tree: "dir d 0755\ndir d/e 0777", by: other, do: "rmdir d/e", want: "EACCES"},
}

func TestRmdir(t *testing.T) { runRows(t, rmdirRows) }

// mknodRows: any caller makes fifos, sockets and files, root makes devices, and none directories.
var mknodRows = []row{
	{do: "mknod p fifo 0666", want: "ok", after: "p=0644#1", times: ".:mc"},
	{do: "mknod p fifo 0000", want: "ok", after: "p=0000", times: ".:mc"},
	{do: "mknod s sock 0600", want: "ok", after: "s=0600#1", times: ".:mc"},
	{do: "mknod f file 0640", want: "ok", after: "f=0640#1", times: ".:mc"},
	{do: "mknod f untyped 0640", want: "ok", after: "f=0640", times: ".:mc"},
	{do: "mknod {255} fifo 0600", want: "ok", after: "{255}", times: ".:mc"},
	{do: "mknod c char 0600", want: "EPERM"},
	{do: "mknod b block 0600", want: "EPERM"},
	{do: "mknod d dir 0600", want: "EPERM"},
	{do: "mknod l link 0600", want: "EINVAL"},
	{do: "mknod p/ fifo 0600", want: "ENOENT"},
	{root: "char beside 1/3", by: root, do: "mknod c char 0600", want: "ok", after: "c=0600@0:0", times: ".:mc"},
	{root: "char beside 1/3", by: root, do: "mknod b block 0600", want: "ok", after: "b=0600@0:0", times: ".:mc"},
	{tree: "dir d 0555", do: "mknod d/p fifo 0600", want: "EACCES"},
	{tree: "dir d 0777", by: other, do: "mknod d/p fifo 0600", want: "ok", after: "d/p=0600@1002:1002", times: "d:mc"},
	{tree: "dir d 2777", by: other, do: "mknod d/p fifo 0600", want: "ok", after: "d/p=0600@1002:1000", times: "d:mc"},
}

func TestMknod(t *testing.T) { runRows(t, mknodRows) }

// stickyRows: in a sticky directory only the owners of directory and object, and root, may remove
// or rename the object, or replace it. In all others the right to write the directory is enough.
func stickyRows() (rows []row) {
	for _, mode := range []string{"0777", "1777"} {
		for _, dirOwner := range []string{"1000", "1002", "0"} {
			for _, fileOwner := range []string{"1000", "1002", "0"} {
				for _, by := range []caller{owner, other, root} {
					allowed := mode == "0777" || by == root || uid(by) == dirOwner || uid(by) == fileOwner
					want := "EPERM"
					if allowed {
						want = "ok"
					}
					rows = append(rows, stickyOf(mode, dirOwner, fileOwner, by, want)...)
				}
			}
		}
	}
	return rows
}

func uid(c caller) string { return strconv.Itoa(ids[c][0]) }

func stickyOf(mode, dirOwner, fileOwner string, by caller, want string) (rows []row) {
	own := "own d/x " + fileOwner + " 5\nown d/mine " + uid(by) + " 5\nown d " + dirOwner + " 5"
	for _, c := range []struct{ kind, do, after string }{
		{"file", "unlink d/x", "-d/x"},
		{"fifo", "unlink d/x", "-d/x"},
		{"dir", "rmdir d/x", "-d/x"},
		{"file", "rename d/x d/y", "-d/x d/y"},
		{"file", "rename d/mine d/x", "-d/mine d/x"},
	} {
		r := row{tree: "dir d " + mode + "\n" + c.kind + " d/x\nfile d/mine", root: own, by: by, do: c.do, want: want}
		if want == "ok" {
			r.after, r.times = c.after, "d:mc"
			if c.do == "rename d/mine d/x" {
				r.times += " d/x:C"
			}
		}
		rows = append(rows, r)
	}
	return rows
}

func TestSticky(t *testing.T) { runRows(t, stickyRows()) }
