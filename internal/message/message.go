// Package message makes texts fit for one line of a terminal.
package message

import (
	"strings"
	"unicode"
)

// OneLine joins the lines of a text.
func OneLine(text string) string {
	return strings.ReplaceAll(strings.TrimSpace(text), "\n", "; ")
}

// A longer message is cut to its first and last bytes.
const (
	lineBegin = 1000
	lineEnd   = 200
)

// Printable cuts the middle of a long text, and replaces control characters, which a terminal would
// obey.
func Printable(text string) string {
	if len(text) > lineBegin+lineEnd {
		text = strings.ToValidUTF8(text[:lineBegin], "") + " ... " + strings.ToValidUTF8(text[len(text)-lineEnd:], "")
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return '?'
		}
		return r
	}, text)
}
