package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/fuse-overlay/fuse-overlay/internal/check"
	"github.com/fuse-overlay/fuse-overlay/internal/mountargs"
	"github.com/fuse-overlay/fuse-overlay/internal/progress"
)

type checkOptions struct {
	layerFlags
	work                     string
	json, notes, repair, yes bool
}

func newCheck() *cobra.Command {
	var o checkOptions
	c := &cobra.Command{
		Use:   "check [flags] UPPER [LOWER]...",
		Short: "find what is damaged in the layers of an overlay",
		Long: `Reads an upper, its work directory and its lowers (the topmost first), and
finds what is damaged. It needs no mount and changes nothing. While the layers
are mounted, findings may be about objects that are about to change, and what
the mount has in its work directory is not checked.

Each finding is a line: the kind, after a tab the layer (upper, work, lower1
for the topmost lower) and the path in it, quoted as by git, and after another
tab what it means. Without a LOWER nothing is compared with the layers below.
Give all lowers of the mount: a name that only a missing one has is taken for a
name that does not exist.

--repair shows each repair, asks, and makes it. It needs the upper for itself,
and is refused while a mount uses it. Each repair is one system call, or such
that the state after each call is no worse. No repair removes an object with
data that is nowhere else. With --notes it also removes useless whiteouts.

The exit code is 0 if there is nothing, 1 if there is a finding that is no note
and has not been repaired, or after an error, 2 if the arguments are wrong.

` + kindsHelp(),
		Example: `  fuse-overlay check --workdir work upper lower2 lower1
  fuse-overlay check --json upper lower | jq -r '.[].kind' | sort | uniq -c
  fuse-overlay check --workdir work --repair upper lower`,
		Args: cobra.MinimumNArgs(1),
		PreRunE: func(*cobra.Command, []string) error {
			if o.yes && !o.repair {
				return errors.New("--yes is for --repair")
			}
			if o.repair && !o.yes && !canAsk() {
				return errors.New("--repair needs an answer to each question, and the input is no terminal: add --yes")
			}
			return nil
		},
		RunE: work(func(c *cobra.Command, args []string) error { return o.run(c, args) }),
	}
	flags := c.Flags()
	flags.StringVar(&o.work, "workdir", "", "the work directory of the upper; without it, it is not checked")
	flags.BoolVar(&o.notes, "notes", false, "also print what is no damage")
	flags.BoolVar(&o.repair, "repair", false, "repair what can be repaired without losing data")
	flags.BoolVarP(&o.yes, "yes", "y", false, "repair without questions")
	addJSON(c, &o.json)
	c.MarkFlagsMutuallyExclusive("json", "repair")
	o.layerFlags.add(c)
	return c
}

// kindsHelp lists the kinds of findings.
func kindsHelp() string {
	var b strings.Builder
	write := func(title string, notes bool) {
		fmt.Fprintf(&b, "%s\n\n", title)
		for _, k := range check.Kinds() {
			if k.Note != notes {
				continue
			}
			repairs := ""
			if k.Repairs {
				repairs = " *"
			}
			fmt.Fprintf(&b, "  %s%s\n      %s\n", k.Kind, repairs, k.Meaning)
		}
	}
	write("The kinds of damage, with * if --repair can repair some of them:", false)
	write("\nWith --notes also these, which are no damage:", true)
	return strings.TrimSuffix(b.String(), "\n")
}

func (o *checkOptions) config(args []string) (check.Config, error) {
	layers, err := o.layerFlags.config(mountargs.Layers{Upper: args[0], Lowers: args[1:]})
	layers.Log = zap.NewNop() // what a mount would log of damage is a finding
	return check.Config{Layers: layers, Work: o.work, Notes: o.notes}, err
}

func (o *checkOptions) run(c *cobra.Command, args []string) error {
	cfg, err := o.config(args)
	if err != nil {
		return err
	}
	var writer *check.Writer
	if o.repair { // first, so that what is found is still so when it is repaired
		if writer, err = check.Lock(cfg); err != nil {
			return err
		}
		defer writer.Close()
	}
	bar, end := startBar(c, "checking objects", progress.Objects, progress.Unknown)
	defer end()
	cfg.Seen = func() { bar.Add(1) }
	checker, err := check.Open(cfg)
	if err != nil {
		return err
	}
	defer checker.Close()
	if writer == nil {
		if by, err := checker.InUse(); err != nil {
			return err
		} else if by != "" {
			fmt.Fprintf(c.ErrOrStderr(), "%s: in use by %s: findings may be about objects that are about to change\n", c.CommandPath(), by)
		}
	}
	found, err := checker.Run()
	end()
	if err != nil {
		return err
	}
	damage := false
	if o.json {
		damage, err = o.printJSON(c.OutOrStdout(), found)
	} else {
		damage, err = o.print(c, found, writer)
	}
	if err == nil && damage {
		return errFinding
	}
	return err
}

// print prints the findings, and repairs them if there is a writer. It reports whether damage is
// left.
func (o *checkOptions) print(c *cobra.Command, found []check.Finding, writer *check.Writer) (damage bool, err error) {
	out, answers := c.OutOrStdout(), bufio.NewReader(c.InOrStdin())
	for i := range found {
		f := &found[i]
		fmt.Fprintln(out, f.String())
		mended := false
		if writer != nil && f.Repair != nil {
			if mended, err = o.mend(c, f, writer, answers); err != nil {
				return true, err
			}
		}
		damage = damage || !mended && !f.Note()
	}
	if writer != nil {
		err = writer.Sync()
	}
	return damage, err
}

// mend repairs one finding, if the user agrees.
func (o *checkOptions) mend(c *cobra.Command, f *check.Finding, writer *check.Writer, answers *bufio.Reader) (bool, error) {
	if o.yes {
		fmt.Fprintf(c.OutOrStdout(), "  repair: %s\n", f.Repair.Text)
	} else if yes, err := confirm(c.OutOrStdout(), answers, "  repair: "+f.Repair.Text); !yes || err != nil {
		return false, err
	}
	if err := f.Repair.Apply(writer); err != nil {
		return false, fmt.Errorf("%s:%s: %w", f.Layer, f.Path, err)
	}
	return true, nil
}

// findingJSON is a finding in the output of --json.
type findingJSON struct {
	Kind    check.Kind `json:"kind"`
	Layer   string     `json:"layer"`
	Path    string     `json:"path"`
	Meaning string     `json:"meaning"`
	Note    bool       `json:"note"`
	Repair  *string    `json:"repair"` // null: there is none
}

func (o *checkOptions) printJSON(out io.Writer, found []check.Finding) (damage bool, err error) {
	objects := []findingJSON{} // never null
	for _, f := range found {
		object := findingJSON{Kind: f.Kind, Layer: f.Layer, Path: f.Path, Meaning: f.Meaning(), Note: f.Note()}
		if f.Repair != nil {
			object.Repair = &f.Repair.Text
		}
		objects = append(objects, object)
		damage = damage || !f.Note()
	}
	return damage, printJSON(out, objects)
}
