// Package quote writes paths into lines of text, as git does.
package quote

import (
	"fmt"
	"strings"
)

// escapes are the bytes that have a letter after the backslash (quote_c_style of git's quote.c).
var escapes = map[byte]byte{'\a': 'a', '\b': 'b', '\t': 't', '\n': 'n', '\v': 'v', '\f': 'f', '\r': 'r', '"': '"', '\\': '\\'}

// Path returns a path as git diff --name-only prints it: in double quotes with escapes as in C if
// it has a quote, a backslash, a control character or a byte that is not ASCII. Other paths stay as
// they are.
func Path(path string) string {
	quoted := escaped(path)
	if quoted == path {
		return path
	}
	return `"` + quoted + `"`
}

// Word returns a path as git status --short prints it, where other words follow it: as Path, and
// also in quotes if it is empty or has a blank.
func Word(path string) string {
	if path == "" || strings.Contains(path, " ") {
		return `"` + escaped(path) + `"`
	}
	return Path(path)
}

func escaped(path string) string {
	var b strings.Builder
	for i := range len(path) {
		c := path[i]
		letter, named := escapes[c]
		switch {
		case named:
			b.Write([]byte{'\\', letter})
		case c < ' ' || c >= 0x7f:
			fmt.Fprintf(&b, `\%03o`, c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}
