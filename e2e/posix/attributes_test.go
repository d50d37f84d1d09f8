package posix

import "testing"

// chmodRows: the owner and root may change the mode. The call follows symbolic links. It takes away
// sgid if the caller is neither root nor in the group of the file.
var chmodRows = []row{
	{tree: "file f 0644", do: "chmod f 0600", want: "ok", after: "f=0600", times: "f:c"},
	{tree: "file f 0644", do: "chmod f 0000", want: "ok", after: "f=0000", times: "f:c"},
	{tree: "file f 0644", do: "chmod f 0644", want: "ok", after: "f=0644", times: "f:c"},
	{tree: "file f 0644", do: "chmod f 07755", want: "ok", after: "f=07755", times: "f:c"},
	{tree: "dir d 0755", do: "chmod d 03700", want: "ok", after: "d=03700", times: "d:c"},
	{tree: "fifo p 0644", do: "chmod p 0600", want: "ok", after: "p=0600", times: "p:c"},
	{tree: "sock s 0644", do: "chmod s 0600", want: "ok", after: "s=0600", times: "s:c"},
	{root: "char c 1/3", by: root, do: "chmod c 0600", want: "ok", after: "c=0600", times: "c:c"},
	{tree: "file f 0644\nsymlink l f", do: "chmod l 0600", want: "ok", after: "f=0600", times: "f:c"},
	{tree: "file f 0644\nlink g f", do: "chmod g 0600", want: "ok", after: "f=0600#2 g=0600#2", times: "f:c g:c", only: inUpper},
	{tree: "file f 0644", by: member, do: "chmod f 0600", want: "EPERM"},
	{tree: "file f 0666", by: other, do: "chmod f 0666", want: "EPERM"},
	{tree: "dir d 0777", by: other, do: "chmod d 0777", want: "EPERM"},
	{tree: "fifo p 0666", by: other, do: "chmod p 0666", want: "EPERM"},
	{tree: "file f 0644\nsymlink l f", by: other, do: "chmod l 0600", want: "EPERM"},
	{tree: "file f 0644", by: root, do: "chmod f 06755", want: "ok", after: "f=06755", times: "f:c"},
	{tree: "file f 0644", root: "own f 1000 4000", do: "chmod f 02755", want: "ok", after: "f=0755", times: "f:c"},
	{tree: "file f 0644", root: "own f 1000 4000", do: "chmod f 04755", want: "ok", after: "f=04755", times: "f:c"},
	{tree: "dir d 0755", root: "own d 1000 4000", do: "chmod d 02755", want: "ok", after: "d=0755", times: "d:c"},
}

func TestChmod(t *testing.T) { runRows(t, chmodRows) }

// chownRows: root may give a file away. The owner may change its group to one of the owner's
// groups. A change by the owner takes suid and sgid from a program. The call is lchown(2).
var chownRows = []row{
	{tree: "file f", by: root, do: "chown f 3000 3001", want: "ok", after: "f@3000:3001", times: "f:c"},
	{tree: "file f", by: root, do: "chown f 3000 -1", want: "ok", after: "f@3000:1000", times: "f:c"},
	{tree: "file f", by: root, do: "chown f -1 3001", want: "ok", after: "f@1000:3001", times: "f:c"},
	{tree: "dir d", by: root, do: "chown d 3000 3001", want: "ok", after: "d@3000:3001", times: "d:c"},
	{tree: "fifo p", by: root, do: "chown p 3000 3001", want: "ok", after: "p@3000:3001", times: "p:c"},
	{tree: "sock s", by: root, do: "chown s 3000 3001", want: "ok", after: "s@3000:3001", times: "s:c"},
	{root: "char c 1/3", by: root, do: "chown c 3000 3001", want: "ok", after: "c@3000:3001", times: "c:c"},
	{tree: "file f\nsymlink l f", by: root, do: "chown l 3000 3001", want: "ok", after: "l@3000:3001", times: "l:c"},
	{tree: "symlink l nowhere", by: root, do: "chown l 3000 3001", want: "ok", after: "l@3000:3001", times: "l:c"},
	{tree: "file f", root: "own f 1000 4000", do: "chown f -1 1000", want: "ok", after: "f@1000:1000", times: "f:c"},
	{tree: "file f", root: "own f 1000 4000", do: "chown f 1000 1000", want: "ok", after: "f@1000:1000", times: "f:c"},
	{tree: "file f", root: "own f 1000 4000", do: "chown f 1000 4000", want: "ok", times: "f:c"},
	{tree: "file f", root: "own f 1000 1000", do: "chown f -1 4000", want: "EPERM"},
	{tree: "file f", root: "own f 1000 1000", do: "chown f 1001 -1", want: "EPERM"},
	{tree: "file f 0666", by: member, do: "chown f 1001 -1", want: "EPERM"},
	{tree: "file f 0666", by: member, do: "chown f -1 1000", want: "EPERM"},
	{tree: "dir d 0777", by: other, do: "chown d 1002 1002", want: "EPERM"},
	{tree: "symlink l f", by: other, do: "chown l 1002 1002", want: "EPERM"},
	{tree: "file f 6755", do: "chown f -1 1000", root: "file beside", want: "ok", after: "f=0755", times: "f:c"},
	{tree: "file f 6755", by: root, do: "chown f 3000 3001", want: "ok", after: "f=0755@3000:3001", times: "f:c"},
	{tree: "dir d 6755", do: "chown d -1 1000", root: "file beside", want: "ok", after: "d=06755", times: "d:c"},
	{tree: "file f", do: "chown f -1 -1", want: "ok", times: "f:C"},
}

func TestChown(t *testing.T) { runRows(t, chownRows) }

// utimesRows: only the owner and root may set given times. A caller that may write the file may set
// the present time. The call is utimensat(2), which does not follow a symbolic link here.
var utimesRows = []row{
	{tree: "file f", do: "utimes f 123456789 987654321", want: "ok", times: "f:mc"},
	{tree: "file f", do: "utimes f 0 now", want: "ok", times: "f:mc"},
	{tree: "file f", do: "utimes f 0 omit", want: "ok"},
	{tree: "file f", do: "utimes f 1 1000000000", want: "EINVAL"},
	{tree: "file f", do: "utimes f 1 -1", want: "EINVAL"},
	{tree: "file f", do: "utimes f 4294967296 0", want: "ok", times: "f:mc"},
	{tree: "file f 0000", do: "utimes f 5 6", want: "ok", times: "f:mc"},
	{tree: "file f 0000", do: "utimes f 0 now", want: "ok", times: "f:mc"},
	{tree: "dir d", do: "utimes d 5 6", want: "ok", times: "d:mc"},
	{tree: "fifo p", do: "utimes p 5 6", want: "ok", times: "p:mc"},
	{tree: "sock s", do: "utimes s 5 6", want: "ok", times: "s:mc"},
	{tree: "file f\nsymlink l f", do: "utimes l 5 6", want: "ok", times: "l:mc"},
	{tree: "symlink l nowhere", do: "utimes l 5 6", want: "ok", times: "l:mc"},
	{tree: "file f", by: root, do: "utimes f 5 6", want: "ok", times: "f:mc"},
	{tree: "file f 0666", by: other, do: "utimes f 5 6", want: "EPERM"},
	{tree: "file f 0666", by: other, do: "utimes f 0 now", want: "ok", times: "f:mc"},
	{tree: "file f 0666", by: other, do: "utimes f 0 omit", want: "ok"},
	{tree: "file f 0664", by: member, do: "utimes f 0 now", want: "ok", times: "f:mc"},
	{tree: "file f 0664", by: member, do: "utimes f 5 6", want: "EPERM"},
	{tree: "file f 0644", by: other, do: "utimes f 0 now", want: "EACCES"},
	{tree: "file f 0644", by: other, do: "utimes f 5 6", want: "EPERM"},
	{tree: "dir d 0777", by: other, do: "utimes d 0 now", want: "ok", times: "d:mc"},
	{tree: "dir d 0755", by: other, do: "utimes d 0 now", want: "EACCES"},
}

func TestUtimensat(t *testing.T) { runRows(t, utimesRows) }
