package main

import (
	"slices"
	"strings"
	"testing"
)

func TestSplitFields(t *testing.T) {
	for _, tt := range []struct{ list, want string }{ // fields of want are apart by blanks
		{``, ``},
		{`,`, ``},
		{`a`, `a`},
		{`a,b=c`, `a b=c`},
		{`a,,b,`, `a b`},
		{`,,a`, `a`},
		{`a=x\,y,b`, `a=x\,y b`},
		{`a=x\\,b`, `a=x\\ b`},
		{`a=x\`, `a=x\`},
		{`context="a,b"`, `context=a,b`},
		{`context="a,b",ro`, `context=a,b ro`},
		{`ro,context="a,b",,rw`, `ro context=a,b rw`},
		{`context="a\",b",ro`, `context=a\",b ro`},
		{`context=""`, `context=`},
		// Not quoted as a whole: names of directories.
		{`lowerdir=/a"b,c`, `lowerdir=/a"b c`},
		{`lowerdir=/a"b,upperdir=/c"d`, `lowerdir=/a"b upperdir=/c"d`},
		{`lowerdir="a,ro`, `lowerdir="a ro`},
		{`lowerdir=/a="b",ro`, `lowerdir=/a="b" ro`},
		{`x"=",ro`, `x"=" ro`},
	} {
		if got := strings.Join(splitFields(tt.list), " "); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.list, got, tt.want)
		}
	}
}

func TestSplitLowers(t *testing.T) {
	for _, tt := range []struct {
		value string
		want  []string // nil: an error
	}{
		{`/a`, []string{`/a`}},
		{`/a:/b:c`, []string{`/a`, `/b`, `c`}},
		{`/a\:b:/c`, []string{`/a:b`, `/c`}},
		{`/a\,b:/c\ d`, []string{`/a,b`, `/c d`}},
		{`/a\\:/b`, []string{`/a\`, `/b`}},
		{`/a\`, []string{`/a\`}},
		{`\:`, []string{`:`}},
		{`/a\::/b`, []string{`/a:`, `/b`}},
		{`a=b"c"`, []string{`a=b"c"`}},
		{``, nil},
		{`:`, nil},
		{`:/a`, nil},
		{`/a:`, nil},
		{`/a::/b`, nil},
	} {
		got, err := splitLowers(tt.value)
		if (err == nil) != (tt.want != nil) || !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %q (%v), want %q", tt.value, got, err, tt.want)
		}
	}
}

func FuzzSplitFields(f *testing.F) {
	f.Add(`lowerdir=/a\:b:/c,context="a,b",,volatile`)
	f.Fuzz(func(t *testing.T, list string) {
		for _, field := range splitFields(list) {
			if field == "" {
				t.Error("an empty field")
			}
			lowers, err := splitLowers(field)
			if err == nil && slices.Contains(lowers, "") {
				t.Errorf("an empty layer in %q", lowers)
			}
		}
	})
}
