package main

import (
	"encoding/json"
	"io"

	"github.com/spf13/cobra"
)

// output is stdout. It keeps the first error, which decides the exit code of the command: the
// callers of fmt.Fprintf need not check theirs.
type output struct {
	w   io.Writer
	err error
}

// Write writes nothing after an error.
func (o *output) Write(text []byte) (int, error) {
	if o.err != nil {
		return 0, o.err
	}
	n, err := o.w.Write(text)
	o.err = err
	return n, err
}

// addJSON adds the flag --json to a command.
func addJSON(c *cobra.Command, target *bool) {
	c.Flags().BoolVar(target, "json", false, "print JSON, for programs")
}

// printJSON prints a value as indented JSON. Names keep characters that only HTML would escape.
func printJSON(w io.Writer, value any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(value)
}
