package posix

import (
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/operation"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
)

// A row is one call in a folder of its own, and what it must do.
type row struct {
	// tree is a table of harness.Build. The owner makes it, and owns the folder, which has mode 0755.
	tree string
	// root is a table that root adds to the tree. A row that has one does not run as a plain user.
	// Some have one because a plain user may not list what they make.
	root string
	by   caller
	// do is the call: its name, a path, and arguments (parse).
	do string
	// want is "ok", or the name of the error. A call that fails changes nothing.
	want string
	// after lists the objects that the call makes, changes and removes:
	//
	//	NAME[=MODE][@UID:GID][#LINKS]   the object exists, with the mode, the ids, the link count
	//	-NAME                           the object does not exist any more
	//
	// All others keep mode, ids, link count and size.
	after string
	// times lists the objects whose times change, as NAME:TIMES. m is st_mtime, c is st_ctime, C is an
	// st_ctime that may change. All other times stay.
	times string
	// only names the layer of the objects, for a row that does not hold for both.
	only layer
}

// device reports whether root's table makes a device.
func (r row) device() bool { return strings.HasPrefix(r.root, "char") }

// A caller is the process that makes a call.
type caller int

// The callers. All but root have no capability.
const (
	owner  caller = iota // of the tree. As a plain user the test runs as the owner
	member               // of the group of the owner
	other
	root
)

// ids are the uid and gid of each caller in the modes of root.
var ids = map[caller][2]int{owner: {1000, 1000}, member: {1001, 1000}, other: {1002, 1002}, root: {0, 0}}

func (c caller) String() string { return [...]string{"owner", "member", "other", "root"}[c] }

// A layer is where the objects of a row lie before the call.
type layer string

const (
	inLower layer = "lower"
	inUpper layer = "upper"
)

var openFlags = map[string]int{
	"O_RDONLY": unix.O_RDONLY, "O_WRONLY": unix.O_WRONLY, "O_RDWR": unix.O_RDWR, "O_CREAT": unix.O_CREAT,
	"O_EXCL": unix.O_EXCL, "O_TRUNC": unix.O_TRUNC, "O_DIRECTORY": unix.O_DIRECTORY, "O_NOFOLLOW": unix.O_NOFOLLOW,
	"O_NOATIME": unix.O_NOATIME, "O_APPEND": unix.O_APPEND, "O_PATH": unix.O_PATH,
}

var nodeKinds = map[string]uint32{
	"file": unix.S_IFREG, "fifo": unix.S_IFIFO, "sock": unix.S_IFSOCK, "char": unix.S_IFCHR, "block": unix.S_IFBLK,
	"dir": unix.S_IFDIR, "link": unix.S_IFLNK, "untyped": 0,
}

// nanoseconds are those of utimensat(2) that have a meaning of their own.
var nanoseconds = map[string]int64{"now": unix.UTIME_NOW, "omit": unix.UTIME_OMIT}

// long replaces marks in a path: names of as many bytes, and a path of more than PATH_MAX.
var long = strings.NewReplacer("{255}", strings.Repeat("n", 255), "{256}", strings.Repeat("n", 256),
	"{4096}", strings.Repeat("./", 2048), "{4095}", strings.Repeat("t", 4095))

// parse makes an operation of the text of a row:
//
//	chmod PATH MODE        chown PATH UID GID       utimes PATH SECONDS NANOSECONDS|now|omit
//	mkdir PATH MODE        mknod PATH KIND MODE     symlink PATH TARGET
//	rmdir PATH             unlink PATH              rename PATH PATH, link PATH PATH
//	truncate PATH SIZE     open PATH FLAGS [MODE]
func parse(t *testing.T, dir, text string) operation.Op {
	t.Helper()
	words, err := testkit.Words(text)
	if err != nil || len(words) < 2 {
		t.Fatalf("%q: a call and a path expected, or %v", text, err)
	}
	args := append(words[2:], "", "")
	number := func(i, base int) int64 {
		n, err := strconv.ParseInt(args[i], base, 64)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		return n
	}
	op := operation.Op{Name: words[0], Path: dir + "/" + long.Replace(words[1])}
	switch op.Name {
	case "chmod", "mkdir":
		op.N = number(0, 8)
	case "chown":
		op.N, op.M = number(0, 10), number(1, 10)
	case "truncate":
		op.N = number(0, 10)
	case "rename", "link":
		op.Path2 = dir + "/" + long.Replace(args[0])
	case "symlink":
		op.Text = long.Replace(args[0])
	case "mknod":
		op.N = int64(nodeKinds[args[0]]) | number(1, 8)
		if kind := args[0]; kind == "char" || kind == "block" {
			op.M = int64(unix.Mkdev(1, 3))
		}
	case "utimes":
		op.N = number(0, 10)
		if n, ok := nanoseconds[args[1]]; ok {
			op.M = n
		} else {
			op.M = number(1, 10)
		}
	case "open":
		for flag := range strings.SplitSeq(args[0], "|") {
			value, ok := openFlags[flag]
			if !ok {
				t.Fatalf("%q: unknown flag %s", text, flag)
			}
			op.N |= int64(value)
		}
		if args[1] != "" {
			op.M = number(1, 8)
		}
	}
	return op
}
