package posix

import "testing"

// openRows: the flags that need a right, and those that need or exclude a kind of object. An open
// for writing may copy a file up (D2), which changes st_ctime.
var openRows = []row{
	{tree: "file f 0400", do: "open f O_RDONLY", want: "ok"},
	{tree: "file f 0400", do: "open f O_WRONLY", want: "EACCES"},
	{tree: "file f 0200", do: "open f O_RDONLY", want: "EACCES"},
	{tree: "file f 0200", do: "open f O_WRONLY", want: "ok", times: "f:C"},
	{tree: "file f 0400", do: "open f O_RDWR", want: "EACCES"},
	{tree: "file f 0400", do: "open f O_RDONLY|O_TRUNC", want: "EACCES"},
	{tree: "file f 0000", do: "open f O_PATH", want: "ok"},
	{tree: "file f 0060", by: member, do: "open f O_RDWR", want: "ok", times: "f:C"},
	{tree: "file f 0606", by: member, do: "open f O_RDONLY", want: "EACCES"},
	{tree: "file f 0006", by: other, do: "open f O_RDWR", want: "ok", times: "f:C"},
	{tree: "file f 0660", by: other, do: "open f O_RDONLY", want: "EACCES"},
	{tree: "file f 0006", do: "open f O_RDONLY", root: "file beside", want: "EACCES"},
	{tree: "file f 0000", by: root, do: "open f O_RDWR", want: "ok", times: "f:C"},
	{tree: `file f 0644 "text"`, do: "open f O_WRONLY|O_TRUNC", want: "ok", after: "f=0644", times: "f:mc"},
	{tree: `file f 0644 "text"`, do: "open f O_CREAT|O_WRONLY 0600", want: "ok", times: "f:C"},
	{tree: `file f 0444 "text"`, do: "open f O_CREAT|O_WRONLY 0600", want: "EACCES"},
	{do: "open f O_CREAT|O_WRONLY 0666", want: "ok", after: "f=0644#1", times: ".:mc"},
	{do: "open f O_CREAT|O_RDONLY 0000", want: "ok", after: "f=0000", times: ".:mc"},
	{do: "open f O_CREAT|O_RDWR|O_EXCL 07777", want: "ok", after: "f=07755", times: ".:mc", only: inUpper},
	{do: "open {255} O_CREAT|O_WRONLY 0600", want: "ok", after: "{255}", times: ".:mc"},
	{tree: "symlink l new", do: "open l O_CREAT|O_WRONLY 0600", want: "ok", after: "new=0600", times: ".:mc"},
	{tree: "file f\nsymlink l f", do: "open l O_RDONLY|O_NOFOLLOW", want: "ELOOP"},
	{tree: "symlink l nowhere", do: "open l O_PATH|O_NOFOLLOW", want: "ok"},
	{tree: "file f", do: "open f O_RDONLY|O_DIRECTORY", want: "ENOTDIR"},
	{tree: "fifo p", do: "open p O_RDONLY|O_DIRECTORY", want: "ENOTDIR"},
	{tree: "dir d\nsymlink l d", do: "open l O_RDONLY|O_DIRECTORY", want: "ok"},
	{tree: "dir d\nsymlink l d", do: "open l O_RDONLY|O_DIRECTORY|O_NOFOLLOW", want: "ENOTDIR"},
	{tree: "file f", do: "open f/ O_RDONLY", want: "ENOTDIR"},
	{do: "open f/ O_CREAT|O_WRONLY 0600", want: "EISDIR"},
	{tree: "dir d", do: "open d O_WRONLY", want: "EISDIR"},
	{tree: "dir d", do: "open d O_RDWR", want: "EISDIR"},
	{tree: "dir d", do: "open d O_RDONLY|O_CREAT 0600", want: "EISDIR"},
	{tree: "dir d", do: "open d O_RDONLY|O_TRUNC", want: "EISDIR"},
	{tree: "dir d 0300", root: "file beside", do: "open d O_RDONLY", want: "EACCES"},
	{tree: "dir d 0555", do: "open d/f O_CREAT|O_WRONLY 0600", want: "EACCES"},
	{tree: "fifo p", do: "open p O_WRONLY", want: "ENXIO"},
	{tree: "fifo p", do: "open p O_RDONLY", want: "ok"},
	{tree: "fifo p 0444", do: "open p O_WRONLY", want: "EACCES"},
	{tree: "sock s", do: "open s O_RDONLY", want: "ENXIO"},
	{tree: "file f 0644", by: other, do: "open f O_RDONLY|O_NOATIME", want: "EPERM"},
	{tree: "file f 0644", do: "open f O_RDONLY|O_NOATIME", want: "ok"},
	{tree: "dir d 0777", by: other, do: "open d/f O_CREAT|O_WRONLY 0600", want: "ok", after: "d/f=0600@1002:1002", times: "d:mc"},
	{tree: "dir d 2777", by: other, do: "open d/f O_CREAT|O_WRONLY 0600", want: "ok", after: "d/f=0600@1002:1000", times: "d:mc"},
}

func TestOpen(t *testing.T) { runRows(t, openRows) }

// truncateRows: the call needs the right to write, and takes suid and sgid from a program.
var truncateRows = []row{
	{tree: `file f 0644 "text"`, do: "truncate f 0", want: "ok", after: "f=0644", times: "f:mc"},
	{tree: `file f 0644 "text"`, do: "truncate f 2", want: "ok", after: "f=0644", times: "f:mc"},
	{tree: `file f 0644 "text"`, do: "truncate f 10000", want: "ok", after: "f=0644", times: "f:mc"},
	{tree: `file f 0200 "text"`, root: "file beside", do: "truncate f 1", want: "ok", after: "f=0200", times: "f:mc"},
	{tree: "file f 0644 \"text\"\nsymlink l f", do: "truncate l 1", want: "ok", after: "f", times: "f:mc"},
	{tree: "file f 0644 \"text\"\nlink g f", do: "truncate g 1", want: "ok", after: "f g", times: "f:mc g:mc", only: inUpper},
	{tree: `file f 0644 "text"`, do: "truncate f -1", want: "EINVAL"},
	{tree: `file f 0444 "text"`, do: "truncate f 0", want: "EACCES"},
	{tree: `file f 0644 "text"`, by: other, do: "truncate f 0", want: "EACCES"},
	{tree: `file f 0444 "text"`, by: root, do: "truncate f 0", want: "ok", after: "f=0444", times: "f:mc"},
	{tree: `file f 0646 "text"`, by: other, do: "truncate f 0", want: "ok", after: "f", times: "f:mc"},
	{tree: `file f 6777 "text"`, by: other, do: "truncate f 0", want: "ok", after: "f=0777", times: "f:mc"},
	{tree: "dir d", do: "truncate d 0", want: "EISDIR"},
	{tree: "fifo p", do: "truncate p 0", want: "EINVAL"},
	{tree: "sock s", do: "truncate s 0", want: "EINVAL"},
	{tree: `file f 0644 "text"`, do: "truncate f 9223372036854775807", want: "EFBIG", times: "f:C .:C"},
	{tree: `file f 0644 "text"`, do: "truncate f/ 0", want: "ENOTDIR"},
}

func TestTruncate(t *testing.T) { runRows(t, truncateRows) }
