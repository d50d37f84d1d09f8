package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/fuse-overlay/fuse-overlay/internal/mountargs"
	"github.com/fuse-overlay/fuse-overlay/internal/version"
)

// compatVersion is the version of CompatName's series that its callers see, in the first line of
// --version. Below 1.10 they refuse to work, or leave options out. What they use up to this version
// is implemented, or refused by name.
const compatVersion = "1.16"

func printVersion(w io.Writer, called string) {
	if called == mountargs.CompatName {
		fmt.Fprintf(w, "%s: version %s\n", mountargs.CompatName, compatVersion)
	}
	fmt.Fprintf(w, "%s version %s\n", mountargs.OwnName, version.String())
}

func printUsage(w io.Writer, called string) {
	fmt.Fprintf(w, `Usage: %[1]s [flags] [SOURCE] MOUNTPOINT -o OPTION[,OPTION]...

Shows the directories of lowerdir= and upperdir= as one. MOUNTPOINT is a
directory, or /dev/fd/N for an open and mounted /dev/fuse.

Example:
  %[1]s -o lowerdir=a:b,upperdir=up,workdir=work merged
  umount merged                # or, without root: fusermount3 -u merged
Shows a over b on merged, and keeps what is changed there in up. Without
upperdir= and workdir= the mount is read-only.

Commands: fuse-overlay help lists them (list, umount, version ...). The first
argument is a command if it has the name of one; for a directory of that name
write ./list

Flags:
  -o LIST           options, separated by commas; may be given several times
  -f, --foreground  stay in the foreground and log to stderr
  -d, --debug       the same, and log every request
  -h, --help        this text
  -V, --version     the version

Without -f the program returns as soon as the mount answers, and a daemon goes
on. That one logs to /dev/log (the journal or syslog), or nowhere if there is
none, unless log= names a file. HUP, INT and TERM unmount; USR1 logs how many
requests of each kind there were.
`, called)
	for _, group := range optionTable {
		fmt.Fprintf(w, "\nOptions, %s:\n", group.heading)
		printOptions(w, group.options)
	}
}

// printOptions prints options with their help, then those without in one paragraph.
func printOptions(w io.Writer, options []option) {
	var brief []string
	for _, o := range options {
		switch {
		case o.help == "":
			brief = append(brief, o.String())
		default:
			printOption(w, o)
		}
	}
	for _, line := range wrap(strings.Join(brief, " "), usageWidth-len(usageMargin)) {
		fmt.Fprintln(w, usageMargin+line)
	}
}

// The usage fits a terminal of 80 columns. The options are in one column, their help in another.
const (
	usageWidth   = 79
	usageMargin  = "  "
	optionColumn = 26
)

func printOption(w io.Writer, o option) {
	name := usageMargin + o.String()
	indent := len(usageMargin) + optionColumn
	lines := wrap(o.help, usageWidth-indent)
	if len(name) < indent {
		name += strings.Repeat(" ", indent-len(name)) + lines[0]
		lines = lines[1:]
	}
	fmt.Fprintln(w, name)
	for _, line := range lines {
		fmt.Fprintln(w, strings.Repeat(" ", indent)+line)
	}
}

// wrap breaks a text at blanks into lines of at most width bytes.
func wrap(text string, width int) (lines []string) {
	for _, word := range strings.Fields(text) {
		last := len(lines) - 1
		if last >= 0 && len(lines[last])+1+len(word) <= width {
			lines[last] += " " + word
		} else {
			lines = append(lines, word)
		}
	}
	return lines
}

// String returns the option as the usage writes it.
func (o option) String() string {
	switch o.value.taken {
	case always:
		return o.name + "=" + o.value.name
	case maybe:
		return o.name + "[=" + o.value.name + "]"
	default:
		return o.name
	}
}
