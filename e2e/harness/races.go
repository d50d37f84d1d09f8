package harness

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// raceReports is where daemons with the race detector write what it has found: by itself it goes to stderr, which a daemon has let go of.
func raceReports() string { return filepath.Join(RunDir, "races") }

// listenForRaces has all daemons report there, and end without the second that the detector otherwise waits.
func listenForRaces() error {
	if err := os.Mkdir(raceReports(), 0o777); err != nil {
		return err
	}
	if err := os.Chmod(raceReports(), 0o777); err != nil {
		return err
	}
	return os.Setenv("GORACE", "atexit_sleep_ms=0 log_path="+filepath.Join(raceReports(), "of")+" "+os.Getenv("GORACE"))
}

// races returns what has been reported.
func races() error {
	reports, err := filepath.Glob(filepath.Join(raceReports(), "*"))
	errs := []error{err}
	for _, report := range reports {
		text, err := os.ReadFile(report)
		errs = append(errs, err, fmt.Errorf("a daemon has found a data race (%s):\n%s", filepath.Base(report), text))
	}
	return errors.Join(errs...)
}

// Raced marks a test that `make races` runs on a daemon with the race detector: with FUSE_OVERLAY_RACED=1 the tests that do
// not call it are left out. It is the first statement of the test.
func Raced(t *testing.T) { t.Helper() }

var racedTest = regexp.MustCompile(`(?m)^func (Test\w+)\(t \*testing\.T\) \{\n\t(?:harness\.)?Raced\(t\)$`)

// selectRaced limits the run to the tests of the package whose source calls Raced, and reports whether there are some.
func selectRaced() (bool, error) {
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		return false, err
	}
	var names []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return false, err
		}
		for _, m := range racedTest.FindAllSubmatch(text, -1) {
			names = append(names, string(m[1]))
		}
	}
	return len(names) > 0, flag.Set("test.run", "^("+strings.Join(names, "|")+")$")
}
