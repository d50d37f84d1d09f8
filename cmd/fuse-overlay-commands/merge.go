package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fuse-overlay/fuse-overlay/fs"
	"github.com/fuse-overlay/fuse-overlay/internal/changes"
	"github.com/fuse-overlay/fuse-overlay/internal/host"
	"github.com/fuse-overlay/fuse-overlay/internal/merge"
	"github.com/fuse-overlay/fuse-overlay/internal/mountargs"
	"github.com/fuse-overlay/fuse-overlay/internal/mounts"
	"github.com/fuse-overlay/fuse-overlay/internal/progress"
	"github.com/fuse-overlay/fuse-overlay/internal/quote"
)

type mergeOptions struct {
	layerFlags
	work, into        string
	dryRun, yes, json bool
}

const mergeLong = `Makes the changes of an upper in its topmost lower, as if they had been made
there, and empties the upper. If the overlay has further lowers, they are given
after it: a name that one of them still has stays removed by a whiteout in
LOWER. With one LOWER no whiteout or other mark of the overlay is left, and
LOWER is the plain tree that the overlay showed.

The command prints the changes as fuse-overlay diff does, and asks once before
it begins. It is refused while a mount uses UPPER, while one has LOWER as a
layer, as far as this user can see that, and if LOWER is read-only or an
object would need another owner than this user can give.

On one file system the objects of UPPER are renamed into LOWER. Between two
they are copied with all attributes. A file of which UPPER has the metadata
only keeps the data that LOWER has. Owners, modes and types that UPPER has in
xattrs (xattr_permissions) become those of the objects, unless LOWER has them
in xattrs too.

All that needs space is made before the first change, so a full disk leaves
the layers as they were. From then on a list in the work directory has what is
still to be done, and no mount takes the upper. A merge that was killed is
completed by the same command. The inode numbers of changed objects are new.
Directories of other users keep the time of their last change.

With --into the merged tree of all layers is copied to the new directory DIR,
and the layers stay as they are.

The exit code is 0, 1 after an error or if the answer is no, 2 if the arguments
are wrong.`

func newMerge() *cobra.Command {
	var o mergeOptions
	c := &cobra.Command{
		Use:   "merge [flags] UPPER LOWER...",
		Short: "make the changes of an upper in its lower",
		Long:  mergeLong,
		Example: `  fuse-overlay merge --dry-run upper lower
  fuse-overlay merge --workdir work --yes upper lower
  fuse-overlay merge --into copy upper lower2 lower1`,
		Args: cobra.MinimumNArgs(2),
		PreRunE: func(*cobra.Command, []string) error {
			asks := !o.yes && !o.dryRun && o.into == ""
			switch {
			case asks && o.json:
				return errors.New("--json needs --yes or --dry-run")
			case asks && !canAsk():
				return errors.New("the command needs an answer to its question, and the input is no terminal: add --yes or --dry-run")
			}
			return nil
		},
		RunE: work(func(c *cobra.Command, args []string) error { return o.run(c, args) }),
	}
	flags := c.Flags()
	flags.StringVar(&o.work, "workdir", "", `the work directory of the upper; if it is not given, the directory "work" beside the upper`)
	flags.StringVar(&o.into, "into", "", "copy the merged tree to the new directory DIR, and change no layer")
	flags.BoolVarP(&o.dryRun, "dry-run", "n", false, "print the changes, and make none")
	flags.BoolVarP(&o.yes, "yes", "y", false, "merge without a question")
	addJSON(c, &o.json)
	c.MarkFlagsMutuallyExclusive("dry-run", "yes", "into")
	c.MarkFlagsMutuallyExclusive("json", "into")
	o.layerFlags.add(c)
	return c
}

func (o *mergeOptions) run(c *cobra.Command, args []string) error {
	cfg, err := o.config(args)
	if err != nil {
		return err
	}
	cfg.Log = warnings(c)
	if o.into != "" {
		bar, end := startBar(c, "copying objects", progress.Objects, progress.Unknown)
		defer end()
		return merge.Into(cfg, o.into, func() { bar.Add(1) })
	}
	if o.dryRun {
		m, err := merge.OpenToRead(cfg)
		if err != nil {
			return err
		}
		defer m.Close()
		_, err = o.plan(c.OutOrStdout(), m)
		return err
	}
	if err := checkNoLayer(cfg.Lowers[0]); err != nil {
		return err
	}
	m, err := merge.Open(cfg)
	if err != nil {
		return err
	}
	defer m.Close()
	return o.merge(c, m, args)
}

// merge merges, if the user wants to.
func (o *mergeOptions) merge(c *cobra.Command, m *merge.Merge, args []string) error {
	out := c.OutOrStdout()
	question := fmt.Sprintf("complete the merge of %s into %s that was begun", quote.Path(args[0]), quote.Path(args[1]))
	if !m.Begun() {
		count, err := o.plan(out, m)
		if err != nil {
			return err
		}
		question = fmt.Sprintf("make these %d changes in %s, and empty %s", count, quote.Path(args[1]), quote.Path(args[0]))
	}
	if !o.yes {
		if err := confirmed(c, question); err != nil {
			return err
		}
	}
	return runMerge(c, m)
}

// runMerge merges with a progress bar.
func runMerge(c *cobra.Command, m *merge.Merge) error {
	bar, end := startBar(c, "merging objects", progress.Objects, int64(m.Objects()))
	defer end()
	m.Done = func() { bar.Add(1) }
	return m.Run()
}

// plan prints the changes, and returns how many there are.
func (o *mergeOptions) plan(out io.Writer, m *merge.Merge) (int, error) {
	w := bufio.NewWriter(out)
	count := counter{Visitor: &changes.Lines{W: w}}
	if o.json {
		count.Visitor = &changes.JSON{W: w}
	}
	if err := m.Plan(&count); err != nil {
		return 0, err
	}
	return count.n, w.Flush()
}

// counter counts changes.
type counter struct {
	changes.Visitor
	n int
}

func (k *counter) Change(c *changes.Change) error {
	if c.Kind != changes.Unchanged {
		k.n++
	}
	return k.Visitor.Change(c)
}

func (o *mergeOptions) config(args []string) (cfg fs.Config, err error) {
	if o.work == "" {
		beside := filepath.Join(filepath.Dir(filepath.Clean(args[0])), "work")
		info, err := os.Stat(beside)
		switch {
		case err == nil && info.IsDir():
			o.work = beside
		case o.into == "":
			return cfg, errors.New(`there is no directory "work" beside the upper: give its work directory by --workdir`)
		}
	}
	return o.layerFlags.config(mountargs.Layers{Upper: args[0], Lowers: args[1:], Work: o.work})
}

// checkNoLayer returns an error if a mount has a directory as a layer, as far as this process can
// see that.
func checkNoLayer(dir string) error {
	own, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("lowerdir %q: %w", dir, cause(err))
	}
	isDir := func(path string) bool {
		other, err := os.Stat(path)
		return filepath.IsAbs(path) && err == nil && os.SameFile(own, other)
	}
	used := func(point string, layers []string) error {
		for _, layer := range layers {
			if isDir(layer) {
				return fmt.Errorf("lowerdir %q: is a layer of the mount on %q: unmount that first", dir, point)
			}
		}
		return nil
	}
	list, err := mounts.List()
	if err != nil {
		return fmt.Errorf("cannot read the mount table: %w", err)
	}
	for i := range list {
		if err := used(list[i].Point, list[i].Daemon.Layers.Lowers); err != nil {
			return err
		}
	}
	table, err := host.MountTable()
	if err != nil {
		return fmt.Errorf("cannot read the mount table: %w", err)
	}
	for _, m := range table {
		if lowers, ok := m.Option("lowerdir"); ok && m.Type == "overlay" {
			if err := used(m.Point, strings.Split(lowers, ":")); err != nil {
				return err
			}
		}
	}
	return nil
}
