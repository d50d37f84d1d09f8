package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"unicode"
)

// hints are remedies for an errno whose text does not contain one.
var hints = map[syscall.Errno]string{
	syscall.EMFILE: "raise the limit of open files: ulimit -n",
	syscall.ENFILE: "raise the machine's limit of open files: sysctl fs.file-max",
	syscall.EROFS:  "for a read-only mount leave out upperdir and workdir",
}

// message is an error as the user reads it: one line, with a hint if there is one for its errno.
func message(err error) string {
	text := err.Error()
	var errno syscall.Errno
	if errors.As(err, &errno) && hints[errno] != "" {
		text += " (" + hints[errno] + ")"
	}
	return printable(oneLine(text))
}

// oneLine joins the lines of a text.
func oneLine(text string) string {
	return strings.ReplaceAll(strings.TrimSpace(text), "\n", "; ")
}

// A message keeps its beginning and its end, if it is longer than both.
const (
	lineBegin = 1000
	lineEnd   = 200
)

// printable leaves out the middle of a long text, and makes control characters harmless to a terminal.
func printable(text string) string {
	if len(text) > lineBegin+lineEnd {
		text = strings.ToValidUTF8(text[:lineBegin], "") + " ... " + strings.ToValidUTF8(text[len(text)-lineEnd:], "")
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return '?'
		}
		return r
	}, text)
}

// explainColons adds to the error of a layer that is not there that its name may have been taken apart at a colon.
func (r *request) explainColons(err error) error {
	if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	lowers := r.overlay.Lowers
	for i := range lowers {
		for end := i + 2; end <= min(i+mostColons+1, len(lowers)); end++ {
			name := strings.Join(lowers[i:end], ":")
			if info, serr := os.Stat(name); serr == nil && info.IsDir() {
				return &colonError{err, name}
			}
		}
	}
	return err
}

// mostColons is how many colons are looked for in the name of one directory.
const mostColons = 4

// colonError is an error about a part of a directory's name.
type colonError struct {
	error
	dir string
}

func (e *colonError) Error() string {
	escaped := strings.ReplaceAll(e.dir, ":", `\:`)
	return fmt.Sprintf("%v (a colon separates layers; for the directory %q write %s)", e.error, e.dir, escaped)
}

func (e *colonError) Unwrap() error { return e.error }
