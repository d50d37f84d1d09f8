package changes

import (
	"fmt"
	"strings"
)

// escapes are the characters that have an escape sequence of one letter in git's output.
var escapes = map[byte]byte{'\a': 'a', '\b': 'b', '\t': 't', '\n': 'n', '\v': 'v', '\f': 'f', '\r': 'r', '"': '"', '\\': '\\'}

// Quote returns a path as git prints it (core.quotePath, quote_c_style of git's quote.c): as it is,
// or in double quotes with escape sequences if it has control characters, quotes, backslashes or
// bytes beyond ASCII.
func Quote(path string) string {
	special := func(c byte) bool { return c < ' ' || c >= 0x7f || c == '"' || c == '\\' }
	var b strings.Builder
	quoted := false
	for i := range len(path) {
		c := path[i]
		if !special(c) {
			b.WriteByte(c)
			continue
		}
		quoted = true
		if letter, ok := escapes[c]; ok {
			b.WriteByte('\\')
			b.WriteByte(letter)
		} else {
			fmt.Fprintf(&b, `\%03o`, c)
		}
	}
	if !quoted {
		return path
	}
	return `"` + b.String() + `"`
}
