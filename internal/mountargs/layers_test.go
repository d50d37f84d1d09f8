package mountargs

import (
	"slices"
	"strings"
	"testing"
)

func TestFields(t *testing.T) {
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
		if got := strings.Join(Fields(tt.list), " "); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.list, got, tt.want)
		}
	}
}

func TestLowers(t *testing.T) {
	for _, tt := range []struct {
		value      string
		want, data []string
		err        error
	}{
		{`/a`, []string{`/a`}, nil, nil},
		{`/a:/b:c`, []string{`/a`, `/b`, `c`}, nil, nil},
		{`/a\:b:/c`, []string{`/a:b`, `/c`}, nil, nil},
		{`/a\,b:/c\ d`, []string{`/a,b`, `/c d`}, nil, nil},
		{`/a\\:/b`, []string{`/a\`, `/b`}, nil, nil},
		{`/a\`, []string{`/a\`}, nil, nil},
		{`\:`, []string{`:`}, nil, nil},
		{`/a\::/b`, []string{`/a:`, `/b`}, nil, nil},
		{`a=b"c"`, []string{`a=b"c"`}, nil, nil},
		{`/a::/d`, []string{`/a`}, []string{`/d`}, nil},
		{`/a:/b::/d1::/d2`, []string{`/a`, `/b`}, []string{`/d1`, `/d2`}, nil},
		{`/a\:::/d\:`, []string{`/a:`}, []string{`/d:`}, nil},
		{``, nil, nil, errTrailingColon},
		{`:`, nil, nil, errLeadingColon},
		{`:/a`, nil, nil, errLeadingColon},
		{`::/a`, nil, nil, errLeadingColon},
		{`/a:`, nil, nil, errTrailingColon},
		{`/a::`, nil, nil, errTrailingColon},
		{`/a::/d:`, nil, nil, errTrailingColon},
		{`/a:::/b`, nil, nil, errThreeColons},
		{`/a::/d:/b`, nil, nil, ErrLowerAfter},
		{`/a::/d1::/d2:/b`, nil, nil, ErrLowerAfter},
	} {
		got, data, err := Lowers(tt.value)
		if err != tt.err || !slices.Equal(got, tt.want) || !slices.Equal(data, tt.data) {
			t.Errorf("%s: got %q, %q (%v), want %q, %q (%v)", tt.value, got, data, err, tt.want, tt.data, tt.err)
		}
	}
}

func FuzzFields(f *testing.F) {
	f.Add(`lowerdir=/a\:b:/c,context="a,b",,volatile`)
	f.Fuzz(func(t *testing.T, list string) {
		for _, field := range Fields(list) {
			if field == "" {
				t.Error("an empty field")
			}
			lowers, data, err := Lowers(field)
			if err == nil && (slices.Contains(lowers, "") || slices.Contains(data, "") || len(lowers) == 0) {
				t.Errorf("an empty layer, or none, in %q and %q", lowers, data)
			}
		}
	})
}
