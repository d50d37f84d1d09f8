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
		var page bytes.Buffer
		if err := doc.GenMan(c, &doc.GenManHeader{Source: ownName, Date: &date}, &page); err != nil {
			return err
		}
		path := filepath.Join(dir, fmt.Sprintf("%s-%s.1", ownName, c.Name()))
		if err := os.WriteFile(path, []byte(tidyPage(page.String(), date)), 0o644); err != nil {
			return err
		}
	}
	return nil
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
)

// tidyPage corrects what mandoc reports in a page of cobra: the form of the date, tabs in filled
// text, blank lines beside macros. A flag without a value loses its default.
func tidyPage(page string, date time.Time) string {
	page = titleDate.ReplaceAllString(page, "$1 \""+date.Format(time.DateOnly)+"\"")
	page = flagEntry.ReplaceAllString(page, ".TP\n$1\n$2")
	page = noValue.ReplaceAllString(page, "$1")
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
