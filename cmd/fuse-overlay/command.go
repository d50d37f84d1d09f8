package main

import (
	"errors"
	"fmt"
	"strings"
)

// commandLine holds the arguments, sorted but not interpreted.
type commandLine struct {
	// helper: the caller is mount(8), which has flags of its own (mount.TYPE SOURCE DIR [-sfnv] [-o
	// LIST] [-t TYPE]).
	helper bool

	help, version, foreground, debug bool
	// fake and sloppy are flags of a mount helper: do everything but mount, and ignore unknown
	// options.
	fake, sloppy bool

	// optionLists are the arguments of each -o, in order.
	optionLists []string
	positionals []string
	// unknown are all other flags.
	unknown []string
}

// longFlags maps the long form of a flag to its letter.
var longFlags = map[string]byte{"foreground": 'f', "debug": 'd', "help": 'h', "version": 'V'}

// split sorts arguments into flags, option lists and positionals, which may come in any order.
// Libraries for flags stop at the first unknown flag, or guess whether it takes the next argument.
// Callers of compatName need unknown flags to be ignored.
func (c *commandLine) split(args []string) error {
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		switch {
		case arg == "--":
			c.positionals = append(c.positionals, args...)
			return nil
		case strings.HasPrefix(arg, "--"):
			if !c.setLongFlag(arg[2:]) {
				c.unknown = append(c.unknown, arg)
			}
		case len(arg) > 1 && arg[0] == '-':
			rest, err := c.letters(arg, args)
			if err != nil {
				return err
			}
			args = rest
		default:
			c.positionals = append(c.positionals, arg)
		}
	}
	return nil
}

// letters parses one argument of single-letter flags (-f, -fd, -oLIST, -fo LIST) and returns the
// arguments after it.
func (c *commandLine) letters(arg string, after []string) (rest []string, err error) {
	for i := 1; i < len(arg); i++ {
		switch letter := arg[i]; {
		case !c.takesValue(letter):
			if !c.setFlag(letter) {
				c.unknown = append(c.unknown, arg)
				return after, nil
			}
		case i+1 < len(arg):
			c.setValue(letter, arg[i+1:])
			return after, nil
		case len(after) == 0:
			return nil, fmt.Errorf("-%c needs a value after it", letter)
		default:
			c.setValue(letter, after[0])
			return after[1:], nil
		}
	}
	return after, nil
}

func (c *commandLine) takesValue(letter byte) bool {
	return letter == 'o' || letter == 't' && c.helper
}

func (c *commandLine) setValue(letter byte, value string) {
	if letter == 'o' {
		c.optionLists = append(c.optionLists, value)
	} // the value of -t is the type by which mount(8) has found this program
}

func (c *commandLine) setFlag(letter byte) (known bool) {
	switch {
	case letter == 'h':
		c.help = true
	case letter == 'V':
		c.version = true
	case c.helper:
		return c.setHelperFlag(letter)
	case letter == 'f':
		c.foreground = true
	case letter == 'd':
		c.debug = true
	default:
		return false
	}
	return true
}

func (c *commandLine) setLongFlag(name string) (known bool) {
	letter, ok := longFlags[name]
	if letter == 'f' && c.helper { // -f of mount(8) is another flag
		return false
	}
	return ok && c.setFlag(letter)
}

func (c *commandLine) setHelperFlag(letter byte) (known bool) {
	switch letter {
	case 'f':
		c.fake = true
	case 's':
		c.sloppy = true
	case 'n', 'v': // no mtab to leave alone, and no messages
	default:
		return false
	}
	return true
}

// mountPoint returns what the positionals name: [SOURCE] MOUNTPOINT, as mount(8) calls its helpers.
func (c *commandLine) mountPoint() (source, point string, err error) {
	switch n := len(c.positionals); {
	case n == 0:
		return "", "", errors.New("no mount point given (see --help)")
	case n > 2:
		return "", "", fmt.Errorf("more than a source and a mount point given: %s%s", quotedAll(c.positionals), bareOption(c.positionals))
	case c.positionals[n-1] == "":
		return "", "", errors.New("the mount point is an empty string")
	case n == 2:
		return c.positionals[0], c.positionals[1], nil
	default:
		return "", c.positionals[0], nil
	}
}
