package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/fuse-overlay/fuse-overlay/internal/version"
)

type versionOptions struct {
	json bool
}

func newVersion() *cobra.Command {
	var o versionOptions
	c := &cobra.Command{
		Use:   "version",
		Short: "show the version of the program",
		Long:  "Shows the version, the commit and the Go version of the program.",
		Example: `  fuse-overlay version
  fuse-overlay version --json`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              work(func(c *cobra.Command, _ []string) error { return o.run(c) }),
	}
	addJSON(c, &o.json)
	return c
}

func (o *versionOptions) run(c *cobra.Command) error {
	build := version.Current()
	if o.json {
		return printJSON(c.OutOrStdout(), build)
	}
	commit := build.Commit
	switch {
	case commit == "":
		commit = "not recorded by the build"
	case build.Modified:
		commit += ", with changes"
	}
	fmt.Fprintf(c.OutOrStdout(), "fuse-overlay version %s\ncommit: %s\nbuilt by: %s for %s\n",
		build.Version, commit, build.Go, build.Platform)
	return nil
}
