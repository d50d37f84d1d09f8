package main

import (
	"errors"
	"time"

	"github.com/spf13/cobra"

	"github.com/fuse-overlay/fuse-overlay/internal/mounts"
	"github.com/fuse-overlay/fuse-overlay/internal/progress"
)

type umountOptions struct {
	lazy    bool
	timeout time.Duration
}

// umountTimeout is the default of --timeout: a daemon writes back what is dirty before it ends.
const umountTimeout = 30 * time.Second

func newUmount() *cobra.Command {
	o := umountOptions{}
	c := &cobra.Command{
		Use:   "umount [flags] MOUNTPOINT...",
		Short: "unmount, and wait until the upper can be used again",
		Long: `Unmounts mounts of fuse-overlay, and waits until their daemons have ended or
have released the upper and the work directory. These can then be mounted
again, moved or removed.

Root, and root of a user namespace, unmounts by umount(2); a plain user by
fusermount3. Mounts of other programs are refused.

With --lazy a mount that is in use leaves the tree at once, and its daemon goes
on until its last user is done. The command does not wait for that.

It is a failure if a mount stays, or if its daemon has not ended in time.`,
		Example: `  fuse-overlay umount merged
  fuse-overlay umount --timeout 5m /srv/a /srv/b
  fuse-overlay umount --lazy merged`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("no mount point given")
			}
			return nil
		},
		PreRunE: func(*cobra.Command, []string) error {
			if o.timeout < 0 {
				return errors.New("--timeout is negative")
			}
			return nil
		},
		RunE: work(func(c *cobra.Command, args []string) error {
			_, end := startBar(c, "unmounting", progress.Nothing, progress.Unknown)
			defer end()
			return mounts.Unmount(args, mounts.Options{Lazy: o.lazy, Timeout: o.timeout})
		}),
		ValidArgsFunction: completeMountPoints,
	}
	c.Flags().BoolVarP(&o.lazy, "lazy", "l", false, "take a mount that is in use out of the tree, and do not wait")
	c.Flags().DurationVar(&o.timeout, "timeout", umountTimeout, "how long to wait for the daemons")
	return c
}

// completeMountPoints completes the mount points of this program.
func completeMountPoints(_ *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	list, err := mounts.List()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var points []string
	for _, m := range list {
		points = append(points, m.Point)
	}
	return points, cobra.ShellCompDirectiveDefault
}
