package e2e

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A script is a list of changes, one a line; words may be quoted as in Go. A line may end in "= ERRNO": how it fails. The
// lines are operations of the differential test with their arguments as words, and
//
//	exchange PATH PATH
//	chattr   PATH FLAGS
//	rmtree   PATH
//	lower    makes the upper the topmost lower, with a new upper
//	data     makes the lowers data-only layers, and the upper the topmost lower
//
// The last two stand in the first line, before the mount.

// scriptWords are the operations, with where the words after each go.
var scriptWords = map[string]string{
	"create": "path mode text", "overwrite": "path mode text", "append": "path text", "pwrite": "path number text",
	"truncate": "path number", "mkdir": "path mode", "rmdir": "path", "unlink": "path", "rename": "path path2",
	"link": "path path2", "symlink": "path text", "mknod": "path mode type", "chmod": "path mode", "chown": "path number other",
	"utimes": "path number other", "setxattr": "path key text", "removexattr": "path key", "read": "path",
	"exchange": "path path2", "rmtree": "path", "chattr": "path text",
}

// parseOp reads a line without its "= ERRNO".
func parseOp(words []string) (op, error) {
	places := strings.Fields(scriptWords[words[0]])
	if len(places) != len(words)-1 {
		return op{}, fmt.Errorf("%s wants %q", words[0], places)
	}
	o := op{name: words[0]}
	for i, word := range words[1:] {
		var err error
		switch places[i] {
		case "path":
			o.path = word
		case "path2":
			o.path2 = word
		case "text":
			o.text = word
		case "key":
			o.key = word
		case "mode":
			o.n, err = strconv.ParseInt(word, 8, 64)
		case "type": // mknod's
			types := map[string]int64{"fifo": unix.S_IFIFO, "sock": unix.S_IFSOCK, "white": unix.S_IFCHR}
			o.n |= types[word]
		case "number":
			o.n, err = strconv.ParseInt(word, 10, 64)
		case "other":
			o.m, err = strconv.ParseInt(word, 10, 64)
		}
		if err != nil {
			return op{}, err
		}
	}
	if o.name == "exchange" {
		o.name, o.n = "rename", unix.RENAME_EXCHANGE
	}
	return o, nil
}

// runScript makes the changes in a mount, and tells the first line that does not end as it should.
func runScript(o *overlay, script string) string {
	s := newSide(o)
	for line := range strings.SplitSeq(script, "\n") {
		text, want, _ := strings.Cut(line, " = ")
		words, err := splitWords(text)
		if err == nil && len(words) == 0 || words[0] == "lower" || words[0] == "data" || words[0] == "#" {
			continue
		}
		var change op
		if err == nil {
			change, err = parseOp(words)
		}
		if err != nil {
			return fmt.Sprintf("%q: %v", line, err)
		}
		result := ""
		switch change.name {
		case "rmtree":
			result = res(os.RemoveAll(o.path(change.path)))
		case "chattr":
			result = res(chattr(o.path(change.path), change.text))
		default:
			result = s.run(change)
		}
		if failed := failure.MatchString(result); failed != (want != "") || failed && !strings.HasSuffix(result, strings.TrimSpace(want)) {
			return fmt.Sprintf("%q: %s", strings.TrimSpace(line), result)
		}
	}
	return ""
}
