package main

import (
	"errors"
	"strings"
)

// splitFields takes the argument of one -o apart at its commas. Kept together are commas behind a backslash and those
// of a value that is quoted as a whole (context="a,b"); the quotes go, backslashes stay for whoever knows what the
// value is. Empty fields are dropped: callers leave them at the end or double a comma.
func splitFields(list string) []string {
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

// cutUnescaped is strings.Cut at the first separator without a backslash before it.
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

// cutQuoted reads a value that begins with a quote and ends with one right before a comma or the end of the list. A
// quote anywhere else is an ordinary character, as it may be in the name of a directory.
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

// unescape takes each backslash away and what follows it as it is.
func unescape(s string) string {
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

// Reasons why a list of lower layers is none, in the kernel's words.
var (
	errLeadingColon  = errors.New("begins with a colon (the kernel: cannot append lower layer)")
	errTrailingColon = errors.New("ends with a colon (the kernel: unescaped trailing colons in lowerdir mount option)")
	errThreeColons   = errors.New("only single ':' or double '::' sequences of unescaped colons in lowerdir allowed")
	errLowerAfter    = errors.New("regular lower layers cannot follow data layers")
	errMixed         = errors.New("lowerdir+ and datadir+ cannot follow lowerdir")
)

// splitLowers takes the value of lowerdir= apart, the topmost layer first. What follows a double colon is a data-only layer,
// and after one of these there are no others (ovl_parse_param_lowerdir).
func splitLowers(value string) (lowers, dataOnly []string, err error) {
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
			dataOnly = append(dataOnly, unescape(layer))
		case len(dataOnly) > 0:
			return nil, nil, errLowerAfter
		default:
			lowers = append(lowers, unescape(layer))
		}
		rest, data = strings.CutPrefix(rest, ":")
		if data && strings.HasPrefix(rest, ":") {
			return nil, nil, errThreeColons
		}
	}
	return lowers, dataOnly, nil
}

// setLowers is lowerdir=. Given again it starts anew: so it is in the kernel, and so mount(8) lets a command line
// override a line of fstab.
func setLowers(r *request, value string) (err error) {
	r.overlay.Lowers, r.overlay.DataOnly, err = splitLowers(value)
	return err
}

// addLower is lowerdir+=: one layer below those given so far. Colons need no escape here, as in the kernel.
func addLower(r *request, value string) error {
	switch {
	case r.given["lowerdir"]:
		return errMixed
	case len(r.overlay.DataOnly) > 0:
		return errLowerAfter
	}
	r.overlay.Lowers = append(r.overlay.Lowers, unescape(value))
	return nil
}

// addData is datadir+=: one data-only layer below all given so far.
func addData(r *request, value string) error {
	if r.given["lowerdir"] {
		return errMixed
	}
	r.overlay.DataOnly = append(r.overlay.DataOnly, unescape(value))
	return nil
}
