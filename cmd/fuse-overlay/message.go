package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/fuse-overlay/fuse-overlay/internal/message"
)

// hints are remedies for an errno.
var hints = map[syscall.Errno]string{
	syscall.EMFILE: "increase the limit of open files: ulimit -n",
	syscall.ENFILE: "increase the machine's limit of open files: sysctl fs.file-max",
	syscall.EROFS:  "for a read-only mount leave out upperdir and workdir",
}

// userMessage returns an error for the user: one line, with the hint of its errno.
func userMessage(err error) string {
	text := err.Error()
	var errno syscall.Errno
	if errors.As(err, &errno) && hints[errno] != "" {
		text += " (" + hints[errno] + ")"
	}
	return message.Printable(message.OneLine(text))
}

// explainColons adds to the error of a missing layer that a colon may have split its name.
func (r *request) explainColons(err error) error {
	if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	lowers := r.overlay.Lowers
	for i := range lowers {
		for end := i + 2; end <= min(i+maxColons+1, len(lowers)); end++ {
			name := strings.Join(lowers[i:end], ":")
			if info, serr := os.Stat(name); serr == nil && info.IsDir() {
				return &colonError{err, name}
			}
		}
	}
	return err
}

// maxColons is how many colons explainColons expects in the name of one directory.
const maxColons = 4

// colonError is an error about a layer whose name a colon has split.
type colonError struct {
	error
	dir string
}

func (e *colonError) Error() string {
	escaped := strings.ReplaceAll(e.dir, ":", `\:`)
	return fmt.Sprintf("%v (a colon separates layers; for the directory %q write %s)", e.error, e.dir, escaped)
}

func (e *colonError) Unwrap() error { return e.error }
