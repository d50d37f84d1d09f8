// Package mountargs splits the command line of a mount: arguments into flags, options and
// positionals, options into fields, and the list of lower layers into directories. It does not know
// what an option means.
package mountargs

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/fuse-overlay/fuse-overlay/internal/commands"
)

// Names by which the program is called, and that change what it does. Callers of CompatName expect
// the behaviour of that older program.
const (
	OwnName    = "fuse-overlay"
	CompatName = "fuse-overlayfs"
	// helperPrefix begins the names of the programs that mount(8) calls for a type of file system.
	helperPrefix = "mount."
)

// CalledBy returns the NAME by which the program was called, or mount(8) has called it as
// mount.NAME. The mount is of type fuse.NAME, and errors begin with NAME.
func CalledBy(argv []string) string {
	if len(argv) == 0 || argv[0] == "" {
		return OwnName
	}
	return strings.TrimPrefix(filepath.Base(argv[0]), helperPrefix)
}

// asMountHelper reports whether mount(8) is the caller.
func asMountHelper(argv []string) bool {
	return len(argv) > 0 && strings.HasPrefix(filepath.Base(argv[0]), helperPrefix)
}

// Command returns the first argument of a program that is called by its own name. Only such a
// program has commands: callers of CompatName and of mount.NAME may have a mount point or a source
// of such a name. Empty: there is no such argument.
func Command(argv []string) string {
	if len(argv) < 2 || filepath.Base(argv[0]) != OwnName {
		return ""
	}
	return argv[1]
}

// Split splits the arguments of a mount. argv begins with the name of the program.
func Split(argv []string) (*Arguments, error) {
	a := &Arguments{helper: asMountHelper(argv)}
	args := argv[min(1, len(argv)):]
	if Command(argv) == commands.Mount {
		args = args[1:]
	}
	return a, a.split(args)
}

// Arguments are the arguments of a mount, sorted but not interpreted.
type Arguments struct {
	// helper: the caller is mount(8), which has flags of its own (mount.TYPE SOURCE DIR [-sfnv] [-o
	// LIST] [-t TYPE]).
	helper bool

	// Help, Version, Foreground and Debug are the flags of the program.
	Help, Version, Foreground, Debug bool
	// Fake and Sloppy are flags of a mount helper: do everything but mount, and ignore unknown
	// options.
	Fake, Sloppy bool

	// OptionLists are the arguments of each -o, in order.
	OptionLists []string
	// Positionals are the arguments that are no flags.
	Positionals []string
	// Unknown are all other flags.
	Unknown []string
}

// LongFlags maps the long form of a flag to its letter.
var LongFlags = map[string]byte{"foreground": 'f', "debug": 'd', "help": 'h', "version": 'V'}

// split sorts arguments into flags, option lists and positionals, which may come in any order.
// Libraries for flags stop at the first unknown flag, or guess whether it takes the next argument.
// Callers of compatName need unknown flags to be ignored.
func (a *Arguments) split(args []string) error {
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		switch {
		case arg == "--":
			a.Positionals = append(a.Positionals, args...)
			return nil
		case strings.HasPrefix(arg, "--"):
			if !a.setLongFlag(arg[2:]) {
				a.Unknown = append(a.Unknown, arg)
			}
		case len(arg) > 1 && arg[0] == '-':
			rest, err := a.letters(arg, args)
			if err != nil {
				return err
			}
			args = rest
		default:
			a.Positionals = append(a.Positionals, arg)
		}
	}
	return nil
}

// letters parses one argument of single-letter flags (-f, -fd, -oLIST, -fo LIST) and returns the
// arguments after it.
func (a *Arguments) letters(arg string, after []string) (rest []string, err error) {
	for i := 1; i < len(arg); i++ {
		switch letter := arg[i]; {
		case !a.takesValue(letter):
			if !a.setFlag(letter) {
				a.Unknown = append(a.Unknown, arg)
				return after, nil
			}
		case i+1 < len(arg):
			a.setValue(letter, arg[i+1:])
			return after, nil
		case len(after) == 0:
			return nil, fmt.Errorf("-%c needs a value after it", letter)
		default:
			a.setValue(letter, after[0])
			return after[1:], nil
		}
	}
	return after, nil
}

func (a *Arguments) takesValue(letter byte) bool {
	return letter == 'o' || letter == 't' && a.helper
}

func (a *Arguments) setValue(letter byte, value string) {
	if letter == 'o' {
		a.OptionLists = append(a.OptionLists, value)
	} // the value of -t is the type by which mount(8) has found this program
}

func (a *Arguments) setFlag(letter byte) (known bool) {
	switch {
	case letter == 'h':
		a.Help = true
	case letter == 'V':
		a.Version = true
	case a.helper:
		return a.setHelperFlag(letter)
	case letter == 'f':
		a.Foreground = true
	case letter == 'd':
		a.Debug = true
	default:
		return false
	}
	return true
}

func (a *Arguments) setLongFlag(name string) (known bool) {
	letter, ok := LongFlags[name]
	if letter == 'f' && a.helper { // -f of mount(8) is another flag
		return false
	}
	return ok && a.setFlag(letter)
}

func (a *Arguments) setHelperFlag(letter byte) (known bool) {
	switch letter {
	case 'f':
		a.Fake = true
	case 's':
		a.Sloppy = true
	case 'n', 'v': // no mtab to leave alone, and no messages
	default:
		return false
	}
	return true
}
