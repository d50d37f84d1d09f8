package harness

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A table of clients shows what a run has tried with each client, and by which test.

// EnvTried is a variable of the environment. If it is set, the run prints the table of clients, and
// fails if a cell is missing.
const EnvTried = "FUSE_OVERLAY_TRIED"

// triedFile has a line for each action of a client in a test: client, action, result, test.
const triedFile = "tried"

// The results of an action.
const (
	triedOK      = "ok"
	triedFailed  = "FAILED"
	triedMissing = "MISSING"
)

// Tried records at the end of the test that the test has tried these actions of a client, and
// whether it has passed. Only tests of root and of ModePrivate may call it.
func Tried(t *testing.T, client string, actions ...string) {
	t.Helper()
	t.Cleanup(func() {
		result := triedOK
		if t.Failed() || t.Skipped() {
			result = triedFailed
		}
		var lines strings.Builder
		for _, action := range actions {
			fmt.Fprintf(&lines, "%s\t%s\t%s\t%s\n", client, action, result, t.Name())
		}
		f, err := os.OpenFile(filepath.Join(RunDir, triedFile), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		Check(t, err)
		_, err = f.WriteString(lines.String())
		if err := errors.Join(err, f.Close()); err != nil {
			t.Error(err)
		}
	})
}

// PrintTried prints the table of clients if the environment has EnvTried. wanted has the actions of
// each client. The error contains those that no test has tried.
func PrintTried(wanted map[string][]string) error {
	if os.Getenv(EnvTried) == "" {
		return nil
	}
	text, err := os.ReadFile(filepath.Join(RunDir, triedFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	table, missing := triedTable(string(text), wanted)
	fmt.Print(table)
	if len(missing) > 0 {
		return fmt.Errorf("no test has tried: %s", strings.Join(missing, ", "))
	}
	return nil
}

// triedTable makes the table of clients of the text of triedFile.
func triedTable(text string, wanted map[string][]string) (table string, missing []string) {
	results, tests := map[string]string{}, map[string][]string{}
	for client, actions := range wanted {
		for _, action := range actions {
			results[client+"\t"+action] = triedMissing
		}
	}
	for line := range strings.Lines(text) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		cell := f[0] + "\t" + f[1]
		if results[cell] != triedFailed {
			results[cell] = f[2]
		}
		if !slices.Contains(tests[cell], f[3]) {
			tests[cell] = append(tests[cell], f[3])
		}
	}
	var lines []string
	for cell, result := range results {
		if result == triedMissing {
			missing = append(missing, strings.ReplaceAll(cell, "\t", ": "))
		}
		client, action, _ := strings.Cut(cell, "\t")
		lines = append(lines, fmt.Sprintf("%-22s %-14s %-8s %s\n", client, action, result, strings.Join(tests[cell], " ")))
	}
	slices.Sort(lines)
	slices.Sort(missing)
	return "clients:\n" + strings.Join(lines, "") + "\n", missing
}
