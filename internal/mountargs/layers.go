package mountargs

import (
	"errors"
	"strings"
)

// Fields splits the argument of one -o at its commas. A comma behind a backslash, or in a
// value that is quoted as a whole (context="a,b"), does not count. The quotes are removed. The
// backslashes stay, for the setter of the option. Empty fields are dropped: callers leave a comma
// at the end, or double one.
func Fields(list string) []string {
	var fields []string
	for len(list) > 0 {
		var field string
		field, list = nextField(list)
		if field != "" {
			fields = append(fields, field)
		}
	}
	return fields
}

func nextField(list string) (field, rest string) {
	field, rest, _ = cutUnescaped(list, ',')
	name, _, hasValue := strings.Cut(field, "=")
	if !hasValue {
		return field, rest
	}
	if value, after, ok := cutQuoted(list[len(name)+1:]); ok {
		return name + "=" + value, after
	}
	return field, rest
}

// cutUnescaped cuts s as strings.Cut does, at the first separator without a backslash before it.
func cutUnescaped(s string, separator byte) (before, after string, found bool) {
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case separator:
			return s[:i], s[i+1:], true
		}
	}
	return s, "", false
}

// cutQuoted returns a value between two quotes, of which the second is before a comma or at the end
// of the list. Any other quote is an ordinary character, because the name of a directory may have
// one.
func cutQuoted(s string) (value, rest string, ok bool) {
	if !strings.HasPrefix(s, `"`) {
		return "", "", false
	}
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '\\':
			i++
		case s[i] != '"':
		case i+1 == len(s):
			return s[1:i], "", true
		case s[i+1] == ',':
			return s[1:i], s[i+2:], true
		}
	}
	return "", "", false
}

// Unescape replaces each backslash and the character behind it by that character.
func Unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// Errors of a list of lower layers, in the kernel's words.
var (
	errLeadingColon  = errors.New("begins with a colon (the kernel: cannot append lower layer)")
	errTrailingColon = errors.New("ends with a colon (the kernel: unescaped trailing colons in lowerdir mount option)")
	errThreeColons   = errors.New("only single ':' or double '::' sequences of unescaped colons in lowerdir allowed")
	// ErrLowerAfter is also the error of lowerdir+ after datadir+.
	ErrLowerAfter = errors.New("regular lower layers cannot follow data layers")
)

// Lowers splits the value of lowerdir=, the topmost layer first. A double colon begins a
// data-only layer, and no other layer follows one (ovl_parse_param_lowerdir).
func Lowers(value string) (lowers, dataOnly []string, err error) {
	if strings.HasPrefix(value, ":") {
		return nil, nil, errLeadingColon
	}
	data := false
	for rest, more := value, true; more; {
		var layer string
		layer, rest, more = cutUnescaped(rest, ':')
		switch {
		case layer == "":
			return nil, nil, errTrailingColon
		case data:
			dataOnly = append(dataOnly, Unescape(layer))
		case len(dataOnly) > 0:
			return nil, nil, ErrLowerAfter
		default:
			lowers = append(lowers, Unescape(layer))
		}
		rest, data = strings.CutPrefix(rest, ":")
		if data && strings.HasPrefix(rest, ":") {
			return nil, nil, errThreeColons
		}
	}
	return lowers, dataOnly, nil
}

// Layers are the directories that the options of a mount name.
type Layers struct {
	// Lowers are the lower layers, the topmost first, and DataOnly those below them.
	Lowers, DataOnly []string
	// Upper and Work are empty without the option.
	Upper, Work string
}

// ParseLayers collects the layers of all -o of a mount that has been made, so its options are
// valid. It leaves out what it cannot parse.
func ParseLayers(optionLists []string) (l Layers) {
	for _, list := range optionLists {
		for _, field := range Fields(list) {
			name, value, _ := strings.Cut(field, "=")
			switch name {
			case "lowerdir":
				l.Lowers, l.DataOnly, _ = Lowers(value)
			case "lowerdir+":
				l.Lowers = append(l.Lowers, Unescape(value))
			case "datadir+":
				l.DataOnly = append(l.DataOnly, Unescape(value))
			case "upperdir":
				l.Upper = Unescape(value)
			case "workdir":
				l.Work = Unescape(value)
			}
		}
	}
	return l
}
