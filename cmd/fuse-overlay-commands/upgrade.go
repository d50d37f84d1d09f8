package main

import (
	"errors"
	"time"

	"github.com/spf13/cobra"

	"github.com/fuse-overlay/fuse-overlay/internal/mounts"
)

// upgradeTimeout is the default of --timeout.
const upgradeTimeout = 30 * time.Second

func newUpgrade() *cobra.Command {
	timeout := upgradeTimeout
	c := &cobra.Command{
		Use:   "upgrade [flags] MOUNTPOINT...",
		Short: "let the installed program take over mounts in use",
		Long: `Replaces the daemons of mounts with option supervise by processes of the
program that is installed now in the place of theirs. The mounts stay, with all
that is open in them: processes that use them wait for a moment.

If the installed program cannot take over a mount, the program that served it
goes on. Mounts without option supervise are refused.`,
		Example: `  fuse-overlay upgrade merged`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("no mount point given")
			}
			return nil
		},
		PreRunE: func(*cobra.Command, []string) error {
			if timeout < 0 {
				return errors.New("--timeout is negative")
			}
			return nil
		},
		RunE: work(func(_ *cobra.Command, args []string) error {
			var errs []error
			for _, point := range args {
				errs = append(errs, mounts.Upgrade(point, timeout))
			}
			return errors.Join(errs...)
		}),
		ValidArgsFunction: completeMountPoints,
	}
	c.Flags().DurationVar(&timeout, "timeout", upgradeTimeout, "how long to wait for the new process")
	return c
}
