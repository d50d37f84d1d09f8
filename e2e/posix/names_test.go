package posix

import "testing"

// linkRows: a link is another name of any object but a directory.
var linkRows = []row{
	{tree: "file f", do: "link f g", want: "ok", after: "f#2 g#2", times: "f:c .:mc"},
	{tree: "fifo p", do: "link p g", want: "ok", after: "p#2 g#2", times: "p:c .:mc"},
	{tree: "sock s", do: "link s g", want: "ok", after: "s#2 g#2", times: "s:c .:mc"},
	{root: "char c 1/3", by: root, do: "link c g", want: "ok", after: "c#2 g#2", times: "c:c .:mc"},
	{tree: "symlink l nowhere", do: "link l g", want: "ok", after: "l#2 g#2", times: "l:c .:mc"},
	{tree: "file f\ndir d", do: "link f d/g", want: "ok", after: "f#2 d/g#2", times: "f:c d:mc"},
	{tree: "file f\nlink g f", do: "link f h", want: "ok", after: "f#3 g#3 h#3", times: "f:c g:c .:mc", only: inUpper},
	{tree: "file f", do: "link f {255}", want: "ok", after: "f#2 {255}#2", times: "f:c .:mc"},
	{tree: "dir d", do: "link d e", want: "EPERM"},
	{tree: "dir d", by: root, do: "link d e", want: "EPERM"},
	{tree: "file f", do: "link f f", want: "EEXIST"},
	{tree: "file f", do: "link f g/", want: "ENOENT"},
	{tree: "file f", do: "link f/ g", want: "ENOTDIR"},
	{tree: "file f\ndir d 0555", do: "link f d/g", want: "EACCES"},
	{tree: "file f 0000", do: "link f g", want: "ok", after: "f#2 g#2", times: "f:c .:mc"},
}

func TestLink(t *testing.T) { runRows(t, linkRows) }

// symlinkRows: a target may be any text that is not empty and shorter than PATH_MAX.
var symlinkRows = []row{
	{do: "symlink l f", want: "ok", after: "l=0777", times: ".:mc"},
	{do: "symlink l {4095}", want: "ok", after: "l", times: ".:mc"},
	{do: "symlink l {4095}t", want: "ENAMETOOLONG"},
	{do: `symlink l ""`, want: "ENOENT"},
	{do: "symlink {255} f", want: "ok", after: "{255}", times: ".:mc"},
	{do: "symlink l/ f", want: "ENOENT"},
	{tree: "dir d 0555", do: "symlink d/l f", want: "EACCES"},
}

func TestSymlink(t *testing.T) { runRows(t, symlinkRows) }

// unlinkRows: the rights of the directory count, not those of the object.
var unlinkRows = []row{
	{tree: "file f", do: "unlink f", want: "ok", after: "-f", times: ".:mc"},
	{tree: "file f 0000", do: "unlink f", want: "ok", after: "-f", times: ".:mc"},
	{tree: "fifo p", do: "unlink p", want: "ok", after: "-p", times: ".:mc"},
	{tree: "sock s", do: "unlink s", want: "ok", after: "-s", times: ".:mc"},
	{root: "char c 1/3", by: root, do: "unlink c", want: "ok", after: "-c", times: ".:mc"},
	{tree: "file f\nsymlink l f", do: "unlink l", want: "ok", after: "-l", times: ".:mc"},
	{tree: "file f\nlink g f", do: "unlink g", want: "ok", after: "-g f#1", times: "f:c .:mc", only: inUpper},
	{tree: "file {255}", do: "unlink {255}", want: "ok", after: "-{255}", times: ".:mc"},
	{tree: "file f", root: "own f 0 0", do: "unlink f", want: "ok", after: "-f", times: ".:mc"},
	{tree: "dir d", do: "unlink d", want: "EISDIR"},
	{tree: "dir d", by: root, do: "unlink d", want: "EISDIR"},
	{tree: "dir d", do: "unlink d/", want: "EISDIR"},
	{tree: "dir d\nsymlink l d", do: "unlink l/", want: "ENOTDIR"},
	{tree: "file f", do: "unlink f/", want: "ENOTDIR"},
	{tree: "dir d 0777\nfile d/f", by: other, do: "unlink d/f", want: "ok", after: "-d/f", times: "d:mc"},
	{tree: "dir d 0755\nfile d/f 0666", by: other, do: "unlink d/f", want: "EACCES"},
	{tree: "dir d 0775\nfile d/f", by: member, do: "unlink d/f", want: "ok", after: "-d/f", times: "d:mc"},
}

func TestUnlink(t *testing.T) { runRows(t, unlinkRows) }

// renameRows: what replaces what, and which parents change. A directory that lies in a lower cannot
// be renamed without redirects: EXDEV.
var renameRows = []row{
	{tree: "file f", do: "rename f g", want: "ok", after: "-f g#1", times: ".:mc"},
	{tree: "fifo p", do: "rename p g", want: "ok", after: "-p g", times: ".:mc"},
	{tree: "sock s", do: "rename s g", want: "ok", after: "-s g", times: ".:mc"},
	{tree: "symlink l nowhere", do: "rename l g", want: "ok", after: "-l g", times: ".:mc"},
	{root: "char c 1/3", by: root, do: "rename c g", want: "ok", after: "-c g", times: ".:mc"},
	{tree: "dir d\nfile d/f", do: "rename d e", want: "ok", after: "-d -d/f e e/f", times: ".:mc", only: inUpper},
	{tree: "dir d\nfile d/f", do: "rename d e", want: "EXDEV", only: inLower},
	{tree: "file f\ndir d", do: "rename f d/g", want: "ok", after: "-f d/g", times: ".:mc d:mc"},
	{tree: "dir d\nfile d/f\ndir e", do: "rename d/f e/f", want: "ok", after: "-d/f e/f", times: "d:mc e:mc"},
	{tree: "file f 0600\nfile g 0644", do: "rename f g", want: "ok", after: "-f g=0600#1", times: ".:mc g:c"},
	{tree: "file f\nfifo p", do: "rename f p", want: "ok", after: "-f p", times: ".:mc p:c"},
	{tree: "file f\nsymlink l nowhere", do: "rename f l", want: "ok", after: "-f l", times: ".:mc l:c"},
	{tree: "file f\nlink g f", do: "rename f g", want: "ok", only: inUpper},
	{tree: "file f", do: "rename f f", want: "ok"},
	{tree: "file f 0000", do: "rename f g", want: "ok", after: "-f g=0000", times: ".:mc"},
	{tree: "file f", do: "rename f {255}", want: "ok", after: "-f {255}", times: ".:mc"},
	{tree: "dir d\ndir e", do: "rename d e", want: "ok", after: "-d e", times: ".:mc e:C", only: inUpper},
	{tree: "dir d\ndir e\nfile e/f", do: "rename d e", want: "ENOTEMPTY", only: inUpper},
	{tree: "dir d\nfile f", do: "rename d f", want: "ENOTDIR"},
	{tree: "dir d\nsymlink l d", do: "rename d l", want: "ENOTDIR"},
	{tree: "file f\ndir d", do: "rename f d", want: "EISDIR"},
	{tree: "fifo p\ndir d", do: "rename p d", want: "EISDIR"},
	{tree: "symlink l d\ndir d", do: "rename l d", want: "EISDIR"},
	{tree: "file f", do: "rename f g/", want: "ENOTDIR"},
	{tree: "file f", do: "rename f/ g", want: "ENOTDIR"},
	{tree: "dir d", do: "rename d e/", want: "ok", after: "-d e", times: ".:mc", only: inUpper},
	{tree: "dir d", do: "rename d d/e", want: "EINVAL"},
	{tree: "dir d\ndir d/e", do: "rename d/e d", want: "ENOTEMPTY"},
	{tree: "dir d", do: "rename d/. e", want: "EBUSY"},
	{tree: "dir d", do: "rename d/.. e", want: "EBUSY"},
	{tree: "file f\ndir d", do: "rename f d/.", want: "EBUSY"},
	{tree: "file f\ndir d 0555", do: "rename f d/g", want: "EACCES"},
	{tree: "dir d 0777\nfile d/f\ndir e 0755", by: other, do: "rename d/f e/f", want: "EACCES"},
	{tree: "dir d 0755\nfile d/f\ndir e 0777", by: other, do: "rename d/f e/f", want: "EACCES"},
	{tree: "dir d 0777\nfile d/f\ndir e 0777", by: other, do: "rename d/f e/f", want: "ok", after: "-d/f e/f", times: "d:mc e:mc"},
}

func TestRename(t *testing.T) { runRows(t, renameRows) }
