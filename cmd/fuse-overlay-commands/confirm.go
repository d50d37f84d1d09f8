package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// canAsk reports whether stdin is a terminal, at which a user can answer.
func canAsk() bool { return term.IsTerminal(int(os.Stdin.Fd())) }

// confirm prints a question and reads the answer. It returns false for any answer but yes, and at
// the end of the input.
func confirm(out io.Writer, answers *bufio.Reader, question string) (bool, error) {
	fmt.Fprintf(out, "%s? [y/N] ", question)
	answer, err := answers.ReadString('\n')
	if err != nil && err != io.EOF {
		return false, fmt.Errorf("cannot read the answer: %w", cause(err))
	}
	answer = strings.ToLower(strings.TrimSpace(answer))
	return answer == "y" || answer == "yes", nil
}

// confirmed prints one question and reads the answer. errFinding: it is no.
func confirmed(c *cobra.Command, question string) error {
	yes, err := confirm(c.OutOrStdout(), bufio.NewReader(c.InOrStdin()), question)
	if err == nil && !yes {
		err = errFinding
	}
	return err
}
