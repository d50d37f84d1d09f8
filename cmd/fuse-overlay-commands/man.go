package main

import (
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
		RunE: work(func(c *cobra.Command, args []string) error {
			return doc.GenManTree(c.Root(), &doc.GenManHeader{Source: ownName}, args[0])
		}),
	}
}
