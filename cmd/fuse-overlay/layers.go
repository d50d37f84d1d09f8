package main

import (
	"fmt"
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

// splitLowers takes the value of lowerdir= apart at its colons, the topmost layer first.
func splitLowers(value string) ([]string, error) {
	var lowers []string
	for rest, more := value, true; more; {
		var lower string
		lower, rest, more = cutUnescaped(rest, ':')
		switch {
		case lower != "":
			lowers = append(lowers, unescape(lower))
		case strings.Contains(value, "::"):
			return nil, fmt.Errorf("data-only layers (:: in lowerdir=%s) are %w", value, errUnsupported)
		default:
			return nil, fmt.Errorf("lowerdir=%s names an empty layer: there is a colon too many", value)
		}
	}
	return lowers, nil
}

// setLowers is lowerdir=. Given again it starts anew: so it is in the kernel, and so mount(8) lets a command line
// override a line of fstab.
func setLowers(r *request, value string) error {
	lowers, err := splitLowers(value)
	r.overlay.Lowers = lowers
	return err
}

// addLower is lowerdir+=: one layer below those given so far. Colons need no escape here, as in the kernel.
func addLower(r *request, value string) error {
	r.overlay.Lowers = append(r.overlay.Lowers, unescape(value))
	return nil
}
