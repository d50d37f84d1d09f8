package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// raceReports is where daemons with the race detector write what it has found: by itself it goes to stderr, which a daemon has let go of.
func raceReports() string { return filepath.Join(base, "races") }

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
