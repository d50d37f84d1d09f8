package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/fuse-overlay/fuse-overlay/internal/mountargs"
	"github.com/fuse-overlay/fuse-overlay/internal/progress"
	"github.com/fuse-overlay/fuse-overlay/internal/quote"
	"github.com/fuse-overlay/fuse-overlay/internal/vacuum"
)

type vacuumOptions struct {
	layerFlags
	work              string
	dryRun, yes, json bool
}

func newVacuum() *cobra.Command {
	var o vacuumOptions
	c := &cobra.Command{
		Use:   "vacuum [flags] UPPER LOWER...",
		Short: "drop from an upper what equals the lowers",
		Long: `Drops from an upper what a mount shows without it as well. LOWERs are those of
the mount, all of them, the topmost first.

  copy       a file that equals that of the lowers in content, mode, owner,
             time of modification, xattrs and flags; also one whose data is in
             a lower
  whiteout   it hides nothing
  directory  it equals that of the lowers, and nothing else is left in it

A file with several links, in the upper or in a lower, is kept. Access times
are not compared. An object without an origin gets the inode number of the
object of the lowers.

The command prints a line for each object, kind and path, and asks once before
it drops them. It needs the upper for itself, and is refused while a mount uses
it. Each object is dropped by one system call. A command that is killed leaves
an upper from which less was dropped. It may leave one directory with a later
time of modification. A directory with such a time is kept.

The exit code is 0, 1 after an error or if the answer is no, 2 if the arguments
are wrong.`,
		Example: `  fuse-overlay vacuum --dry-run upper lower2 lower1
  fuse-overlay vacuum --workdir work --yes upper lower`,
		Args: cobra.MinimumNArgs(2),
		PreRunE: func(*cobra.Command, []string) error {
			if !o.yes && !o.dryRun && !canAsk() {
				return errors.New("the command needs an answer to its question, and the input is no terminal: add --yes or --dry-run")
			}
			if o.json && !o.yes && !o.dryRun {
				return errors.New("--json needs --yes or --dry-run")
			}
			return nil
		},
		RunE: work(func(c *cobra.Command, args []string) error { return o.run(c, args) }),
	}
	flags := c.Flags()
	flags.StringVar(&o.work, "workdir", "", "the work directory of the upper, which is locked as well")
	flags.BoolVarP(&o.dryRun, "dry-run", "n", false, "print what would be dropped, and change nothing")
	flags.BoolVarP(&o.yes, "yes", "y", false, "drop without a question")
	addJSON(c, &o.json)
	c.MarkFlagsMutuallyExclusive("dry-run", "yes")
	o.layerFlags.add(c)
	return c
}

func (o *vacuumOptions) open(c *cobra.Command, args []string) (*vacuum.Vacuum, error) {
	cfg, err := o.layerFlags.config(mountargs.Layers{Upper: args[0], Lowers: args[1:]})
	if err != nil {
		return nil, err
	}
	cfg.Log = warnings(c)
	if o.dryRun {
		return vacuum.OpenToRead(cfg)
	}
	return vacuum.Open(cfg, o.work)
}

func (o *vacuumOptions) run(c *cobra.Command, args []string) error {
	bar, end := startBar(c, "comparing objects", progress.Objects, progress.Unknown)
	defer end()
	v, err := o.open(c, args)
	if err != nil {
		return err
	}
	defer v.Close()
	v.Seen = func() { bar.Add(1) }
	drops, err := v.Find()
	end()
	if err != nil {
		return err
	}
	out := c.OutOrStdout()
	if err := o.print(out, drops); err != nil {
		return err
	}
	if o.dryRun || len(drops) == 0 {
		return nil
	}
	if !o.yes {
		question := fmt.Sprintf("drop these %d objects from %s", len(drops), quote.Path(args[0]))
		if err := confirmed(c, question); err != nil {
			return err
		}
	}
	bar, end = startBar(c, "dropping objects", progress.Objects, int64(len(drops)))
	defer end()
	for i := range drops {
		bar.Add(1)
		if err := v.Drop(&drops[i]); err != nil {
			return err
		}
	}
	return v.Sync()
}

// dropJSON is a dropped object in the output of --json.
type dropJSON struct {
	Kind  vacuum.Kind `json:"kind"`
	Path  string      `json:"path"`
	Bytes int64       `json:"bytes"` // on disk
}

func (o *vacuumOptions) print(out io.Writer, drops []vacuum.Drop) error {
	if o.json {
		objects := []dropJSON{} // never null
		for _, d := range drops {
			objects = append(objects, dropJSON{d.Kind, d.Path, d.Bytes})
		}
		return printJSON(out, objects)
	}
	bytes := int64(0)
	for _, d := range drops {
		fmt.Fprintf(out, "%s\t%s\n", d.Kind, quote.Path(d.Path))
		bytes += d.Bytes
	}
	if len(drops) > 0 {
		fmt.Fprintf(out, "%d objects, %d bytes on disk\n", len(drops), bytes)
	}
	return nil
}
