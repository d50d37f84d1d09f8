package harness

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// raceReports is the folder for the reports of the race detector. Its default, stderr, is closed in
// a daemon.
func raceReports() string { return filepath.Join(RunDir, "races") }

// listenForRaces makes all daemons report there, and end without the second that the detector waits
// by default.
func listenForRaces() error {
	if err := os.Mkdir(raceReports(), 0o777); err != nil {
		return err
	}
	if err := os.Chmod(raceReports(), 0o777); err != nil {
		return err
	}
	return os.Setenv("GORACE", "atexit_sleep_ms=0 log_path="+filepath.Join(raceReports(), "of")+" "+os.Getenv("GORACE"))
}

// races returns the reports of this run.
func races() error {
	reports, err := filepath.Glob(filepath.Join(raceReports(), "*"))
	errs := []error{err}
	for _, report := range reports {
		text, err := os.ReadFile(report)
		errs = append(errs, err, fmt.Errorf("a daemon has found a data race (%s):\n%s", filepath.Base(report), text))
	}
	return errors.Join(errs...)
}

// Raced marks a test that `make races` runs on a race-built daemon. With FUSE_OVERLAY_RACED=1 no
// other test runs. The call is the first statement of the test, because selectRaced finds it in the
// source.
func Raced(t *testing.T) { t.Helper() }

var racedTest = regexp.MustCompile(`(?m)^func (Test\w+)\(t \*testing\.T\) \{\n\tharness\.Raced\(t\)$`)

// selectRaced limits the run to the tests in the current folder that call Raced. It reports whether
// there are some.
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
		found := racedTest.FindAllSubmatch(text, -1)
		if calls := bytes.Count(text, []byte("harness.Raced(")); calls != len(found) {
			return false, fmt.Errorf("%s: %d calls of Raced, %d of them first in a test", file, calls, len(found))
		}
		for _, m := range found {
			names = append(names, string(m[1]))
		}
	}
	return len(names) > 0, flag.Set("test.run", "^("+strings.Join(names, "|")+")$")
}
