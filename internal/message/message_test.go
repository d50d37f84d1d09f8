package message

import (
	"strings"
	"testing"
)

func TestOneLine(t *testing.T) {
	for text, want := range map[string]string{"a": "a", "a\n": "a", "a\nb\n": "a; b"} {
		if got := OneLine(text); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

func TestPrintable(t *testing.T) {
	long := strings.Repeat("a", lineBegin) + strings.Repeat("b", 500) + strings.Repeat("c", lineEnd)
	for text, want := range map[string]string{
		"ä b":         "ä b",
		"\x1b[31m\ta": "?[31m?a",
		long:          long[:lineBegin] + " ... " + long[len(long)-lineEnd:],
	} {
		if got := Printable(text); got != want {
			t.Errorf("%.40q: got %.40q, want %.40q", text, got, want)
		}
	}
}
