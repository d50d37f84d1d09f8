package main

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/fuse-overlay/fuse-overlay/internal/mountargs"
)

// unknownArguments is the error that names every unknown argument.
type unknownArguments struct{ flags, options []string }

// Hints for arguments that resemble no option and no flag.
const (
	hintFlags   = "options are given by -o; --help lists all"
	hintOptions = `--help lists all; layers are separated by ":", and a comma in a name is "\,"`
)

func (u *unknownArguments) Error() string {
	flags := describeUnknown("flag", u.flags, hintFlags, nearFlag)
	options := describeUnknown("option", u.options, hintOptions, nearOption)
	return strings.Join(append(flags, options...), "; ")
}

// maxNamed is how many unknown arguments of a kind the error names.
const maxNamed = 8

// describeUnknown returns a sentence for each argument that resembles a known one, and one for all
// others.
func describeUnknown(kind string, arguments []string, hint string, near func(string) (name, hint string)) (sentences []string) {
	var others []string
	for i, a := range arguments {
		if i == maxNamed {
			sentences = append(sentences, fmt.Sprintf("and %d more", len(arguments)-maxNamed))
			break
		}
		name, said := near(a)
		if said != "" {
			sentences = append(sentences, fmt.Sprintf("unknown %s %s%s", kind, quoted(name), said))
		} else {
			others = append(others, quoted(name))
		}
	}
	if len(others) > 1 {
		kind += "s"
	}
	if len(others) > 0 {
		all := fmt.Sprintf("unknown %s %s: %s", kind, strings.Join(others, ", "), hint)
		sentences = append([]string{all}, sentences...)
	}
	return sentences
}

// nearOption returns the option that an unknown field of a list may be meant for.
func nearOption(field string) (name, said string) {
	name, _, given := strings.Cut(field, "=")
	if info, err := os.Stat(mountargs.Unescape(name)); err == nil && info.IsDir() && !given {
		return name, "" // a layer, most likely
	}
	if near := nearest(name, optionNames()); near != "" {
		said = fmt.Sprintf("; the nearest known one is %q", near)
	}
	return name, said
}

// nearFlag returns the flag that an unknown flag may be meant for, or the option without -o.
func nearFlag(flag string) (name, said string) {
	name, value, given := strings.Cut(strings.TrimLeft(flag, "-"), "=")
	near := nearest(name, slices.Sorted(maps.Keys(mountargs.LongFlags)))
	switch {
	case near == name && given:
		return flag, fmt.Sprintf(": --%s takes no value", near)
	case near != "" && !given:
		return flag, "; the nearest known one is --" + near
	}
	option := nearest(name, optionNames())
	if findOption(name) != nil {
		option = name
	}
	switch {
	case option == "":
		return flag, ""
	case given:
		return flag, fmt.Sprintf(": options are given by -o: -o %s=%s", option, shortened(value))
	case findOption(option).value.taken == always:
		return flag, fmt.Sprintf(": options are given by -o: -o %s=%s", option, findOption(option).value.name)
	}
	return flag, ": options are given by -o: -o " + option
}

// bareOption returns a hint if a positional argument looks like an option without -o.
func bareOption(positionals []string) string {
	for _, p := range positionals {
		name, _, given := strings.Cut(p, "=")
		if given && findOption(name) != nil {
			return fmt.Sprintf(" (%s is an option without -o before it)", quoted(p))
		}
	}
	return ""
}

// maxQuoted is how many bytes of an argument a message repeats.
const maxQuoted = 80

func quoted(s string) string { return fmt.Sprintf("%q", shortened(s)) }

// quotedAll quotes the arguments of a list, up to maxNamed of them.
func quotedAll(list []string) string {
	var words []string
	for _, s := range list[:min(len(list), maxNamed)] {
		words = append(words, quoted(s))
	}
	if more := len(list) - maxNamed; more > 0 {
		words = append(words, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(words, ", ")
}

// shortened keeps the beginning of a long argument.
func shortened(s string) string {
	if len(s) <= maxQuoted {
		return s
	}
	return strings.ToValidUTF8(s[:maxQuoted-len("...")], "") + "..."
}
