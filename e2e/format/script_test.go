package format

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
	"github.com/fuse-overlay/fuse-overlay/e2e/operation"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
)

// A script is a list of changes, one a line. Words may be quoted as in Go. A line may end in "=
// ERRNO" if the change fails so. The lines are operations of package operation with their arguments
// as words, and
//
//	exchange PATH PATH
//	chattr   PATH FLAGS
//	rmtree   PATH
//	lower    makes the upper the topmost lower, with a new upper
//	data     makes the lowers data-only layers, and the upper the topmost lower
//
// The last two stand in the first line, before the mount.

// scriptWords are the operations, with the fields for their arguments.
var scriptWords = map[string]string{
	"create": "path mode text", "overwrite": "path mode text", "append": "path text", "pwrite": "path number text",
	"truncate": "path number", "mkdir": "path mode", "rmdir": "path", "unlink": "path", "rename": "path path2",
	"link": "path path2", "symlink": "path text", "mknod": "path mode type", "chmod": "path mode",
	"chown":  "path number other",
	"utimes": "path number other", "setxattr": "path key text", "removexattr": "path key", "read": "path",
	"exchange": "path path2", "rmtree": "path", "chattr": "path text",
}

// parseOp reads a line without its "= ERRNO".
func parseOp(words []string) (operation.Op, error) {
	places := strings.Fields(scriptWords[words[0]])
	if len(places) != len(words)-1 {
		return operation.Op{}, fmt.Errorf("%s wants %q", words[0], places)
	}
	o := operation.Op{Name: words[0]}
	for i, word := range words[1:] {
		var err error
		switch places[i] {
		case "path":
			o.Path = word
		case "path2":
			o.Path2 = word
		case "text":
			o.Text = word
		case "key":
			o.Key = word
		case "mode":
			o.N, err = strconv.ParseInt(word, 8, 64)
		case "type": // mknod's
			types := map[string]int64{"fifo": unix.S_IFIFO, "sock": unix.S_IFSOCK, "white": unix.S_IFCHR}
			o.N |= types[word]
		case "number":
			o.N, err = strconv.ParseInt(word, 10, 64)
		case "other":
			o.M, err = strconv.ParseInt(word, 10, 64)
		}
		if err != nil {
			return operation.Op{}, err
		}
	}
	if o.Name == "exchange" {
		o.Name, o.N = "rename", unix.RENAME_EXCHANGE
	}
	return o, nil
}

// runScript makes the changes in a mount, and returns the first line that ends otherwise than it
// should.
func runScript(o *harness.Overlay, script string) string {
	s := operation.NewSide(o)
	for line := range strings.SplitSeq(script, "\n") {
		text, want, _ := strings.Cut(line, " = ")
		words, err := testkit.Words(text)
		if err == nil && len(words) == 0 || words[0] == "lower" || words[0] == "data" || words[0] == "#" {
			continue
		}
		var change operation.Op
		if err == nil {
			change, err = parseOp(words)
		}
		if err != nil {
			return fmt.Sprintf("%q: %v", line, err)
		}
		result := ""
		switch change.Name {
		case "rmtree":
			result = operation.Result(os.RemoveAll(o.Path(change.Path)))
		case "chattr":
			result = operation.Result(harness.Chattr(o.Path(change.Path), change.Text))
		default:
			result = s.Run(change)
		}
		if failed := operation.Failure.MatchString(result); failed != (want != "") || failed &&
			!strings.HasSuffix(result, strings.TrimSpace(want)) {
			return fmt.Sprintf("%q: %s", strings.TrimSpace(line), result)
		}
	}
	return ""
}
