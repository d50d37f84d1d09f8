package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
	"github.com/spf13/pflag"

	"github.com/fuse-overlay/fuse-overlay/internal/version"
)

// newMan is for make man. It is hidden, since its pages are installed.
func newMan() *cobra.Command {
	return &cobra.Command{
		Use:    "man DIR",
		Short:  "write the manual pages of the commands to a folder",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE:   work(func(c *cobra.Command, args []string) error { return writePages(c.Root(), args[0]) }),
	}
}

// writePages writes a page for each command. That of the program is written by hand.
func writePages(root *cobra.Command, dir string) error {
	date := buildDate()
	for _, c := range root.Commands() {
		if !c.IsAvailableCommand() {
			continue
		}
		c.Long += "\n\n# EXIT STATUS\n" + exitCodes
		c.Flags().VisitAll(describeDefault)
		var page bytes.Buffer
		if err := doc.GenMan(c, &doc.GenManHeader{Source: ownName, Date: &date}, &page); err != nil {
			return err
		}
		path := filepath.Join(dir, fmt.Sprintf("%s-%s.1", ownName, c.Name()))
		if err := os.WriteFile(path, []byte(tidyPage(page.String(), date)+history), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// history is the end of each page.
const history = `.SH HISTORY
The command and all its flags are in version ` + version.First + `, the first one, unless a description names a
later version.
`

// describeDefault adds the default of a flag to its help. The page of cobra has the default where
// that of mount has the kind of value, so the kind takes its place.
func describeDefault(f *pflag.Flag) {
	if f.Name == "help" {
		return
	}
	def := f.DefValue
	switch def {
	case "false", "0s":
		def = "off"
	case "", "[]":
		def = "none"
	}
	kind, usage := pflag.UnquoteUsage(f)
	if f.Value.Type() != "bool" {
		f.DefValue = strings.ToUpper(strings.TrimSuffix(kind, "Array"))
		if f.NoOptDefVal != "" {
			def += "; without a value: " + f.NoOptDefVal
		}
	}
	f.Usage = fmt.Sprintf("%s (default: %s)", usage, def)
}

// buildDate is the date of the pages: that of SOURCE_DATE_EPOCH, by which two builds are the same,
// or today (https://reproducible-builds.org/specs/source-date-epoch).
func buildDate() time.Time {
	seconds, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64)
	if err != nil {
		return time.Now()
	}
	return time.Unix(seconds, 0).UTC()
}

var (
	titleDate = regexp.MustCompile(`(?m)^(\.TH "[^"]*" "1") "[^"]*"`)
	flagEntry = regexp.MustCompile(`(?m)(?:^\.PP\n)?^(\\fB-.*)\n\t(.*)$`)
	noValue   = regexp.MustCompile(`(?m)^(\\fB-.*)\[=false\]$`)
	textValue = regexp.MustCompile(`(?m)^(\\fB-.*)="([A-Z]+)"$`)
)

// tidyPage corrects what mandoc reports in a page of cobra: the form of the date, tabs in filled
// text, blank lines beside macros. A flag without a value loses the text false, and the kind of a
// value its quotes.
func tidyPage(page string, date time.Time) string {
	page = titleDate.ReplaceAllString(page, "$1 \""+date.Format(time.DateOnly)+"\"")
	page = flagEntry.ReplaceAllString(page, ".TP\n$1\n$2")
	page = noValue.ReplaceAllString(page, "$1")
	page = textValue.ReplaceAllString(page, "$1=$2")
	var b strings.Builder
	literal := false
	for line := range strings.Lines(page) {
		switch strings.TrimSpace(line) {
		case ".EX":
			literal = true
		case ".EE":
			literal = false
		case "":
			if !literal {
				continue
			}
		}
		b.WriteString(line)
	}
	return b.String()
}
