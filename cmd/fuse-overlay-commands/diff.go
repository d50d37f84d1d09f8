package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/fuse-overlay/fuse-overlay/fs"
	"github.com/fuse-overlay/fuse-overlay/internal/changes"
	"github.com/fuse-overlay/fuse-overlay/internal/control"
	"github.com/fuse-overlay/fuse-overlay/internal/layerconfig"
	"github.com/fuse-overlay/fuse-overlay/internal/mountargs"
	"github.com/fuse-overlay/fuse-overlay/internal/mounts"
	"github.com/fuse-overlay/fuse-overlay/internal/ocilayer"
	"github.com/fuse-overlay/fuse-overlay/internal/progress"
	"github.com/fuse-overlay/fuse-overlay/internal/quote"
)

type diffOptions struct {
	layerFlags
	nameOnly, stat, json, tar bool
	exitCode                  bool
	work                      string

	layers []string // UPPER and LOWERs, or the mount point
	paths  []string // relative to the root of the tree
}

func newDiff() *cobra.Command {
	var o diffOptions
	c := &cobra.Command{
		Use:   "diff [flags] {UPPER [LOWER]... | MOUNTPOINT} [-- PATH...]",
		Short: "show what an upper changes",
		Long:  diffHelp,
		Example: `  fuse-overlay diff merged
  fuse-overlay diff upper lower2 lower1 -- etc usr/lib
  fuse-overlay diff --tar upper lower >layer.tar`,
		ValidArgsFunction: completeDirectories,
		RunE: func(c *cobra.Command, args []string) error {
			if err := o.parse(c, args); err != nil {
				return err
			}
			return work(func(c *cobra.Command, _ []string) error { return o.run(c) })(c, args)
		},
	}
	o.addFlags(c)
	return c
}

func (o *diffOptions) addFlags(c *cobra.Command) {
	flags := c.Flags()
	flags.BoolVar(&o.nameOnly, "name-only", false, "print the paths alone")
	flags.BoolVar(&o.stat, "stat", false, "print how many changes of each kind there are, and the bytes of new data")
	flags.BoolVar(&o.tar, "tar", false, "write an OCI layer to stdout, which must not be a terminal")
	addJSON(c, &o.json)
	flags.Lookup("json").Usage = "print a JSON object a line, for programs"
	c.MarkFlagsMutuallyExclusive("name-only", "stat", "json", "tar")
	flags.BoolVar(&o.exitCode, "exit-code", false, "exit with 1 if there are changes")
	o.layerFlags.add(c)
	flags.StringVar(&o.work, "workdir", "", "the work directory of the upper, which is read with -o index=on")
}

const diffHelp = `Shows what an upper changes in the tree of its lowers (the topmost first), or
what the upper of a mount changes. It reads the layers, mounted or not, and
writes nothing. The time that it takes grows with the upper and not with the
lowers.

Each change is a line: a letter, a blank, the path, and after tabs what else is
known. Paths are relative to the root of the tree and quoted as by git.

  A path                   added
  M path  aspects          modified: which of content, mode, owner, times,
                           xattrs; or type: another object has its place
  D path                   deleted; a directory is one line with all below it
  R path  from  [aspects]  renamed by a redirect, with what has changed besides
  H path  first            a further hard link of the object at the path first

The old path of a renamed object has a line D of its own. What is below a
renamed directory is compared with what was below the old path. Content is the
data of a file, the target of a symbolic link or the number of a device. Times
is the time of the last modification. Access times, inode numbers and inode
flags are not compared.

Without a LOWER the upper is compared with nothing: what it has is added, and
each whiteout is a deletion, whatever a lower might have. A file whose data is
in a lower is "M path", since no more is known of it.

With -o index=on a linked file of a lower that was changed has changed under
all its names. If the upper does not have all of them, the whole tree is read.

PATHs select objects with all that is below them. The rest is not read.

The exit code is 0, with --exit-code 1 if there are changes; 2 if the arguments
are wrong, and 1 after any other error.

With --tar the output is a layer of an OCI image: changed objects with their
parents, ".wh." files for what is gone, the xattrs that the mount shows as PAX
records, hard links, devices, times with nanoseconds, ids as in the layers.
Holes of sparse files become zeroes: the specification of OCI images advises
against sparse entries. Sockets are left out with a warning, and an xattr with
"=" in its name is an error, since no PAX record can hold it.`

// parse sorts the arguments into layers and paths.
func (o *diffOptions) parse(c *cobra.Command, args []string) error {
	o.layers, o.paths = args, nil
	if dash := c.ArgsLenAtDash(); dash >= 0 {
		o.layers, o.paths = args[:dash], args[dash:]
		if len(o.paths) == 0 {
			o.paths = nil
		}
	}
	if len(o.layers) == 0 {
		return errors.New("no upper and no mount point given")
	}
	for _, p := range o.paths {
		if !filepath.IsLocal(p) {
			return fmt.Errorf("the path %q does not lie in the tree: paths are relative to its root", p)
		}
	}
	return nil
}

func (o *diffOptions) run(c *cobra.Command) error {
	if o.tar && isTerminal(c.OutOrStdout()) {
		return errors.New("the archive is not written to a terminal: redirect the output to a file")
	}
	cfg, err := o.config()
	if err != nil {
		return err
	}
	bar, end := o.startBar(c)
	defer end()
	cfg.Log = warnings(c)
	comparison, err := changes.Open(cfg)
	if err != nil {
		return err
	}
	defer comparison.Close()
	found := &finder{bar: bar}
	out := bufio.NewWriter(c.OutOrStdout())
	if o.tar { // its bytes are counted, and not the objects
		found.bar, out = nil, bufio.NewWriter(&countedWriter{c.OutOrStdout(), bar})
	}
	var finish func() error
	found.Visitor, finish = o.visitor(c, comparison, out)
	if err := comparison.Walk(o.paths, found); err != nil {
		return errors.Join(err, out.Flush())
	}
	if !o.tar {
		end() // before a summary on the terminal
	}
	if err := errors.Join(finish(), out.Flush()); err != nil {
		return err
	}
	if o.exitCode && found.changed {
		return errFinding
	}
	return nil
}

// startBar is [startBar] for what is not shown on the terminal while it is found.
func (o *diffOptions) startBar(c *cobra.Command) (*progress.Bar, func()) {
	switch {
	case o.tar:
		return startBar(c, "writing the layer", progress.Bytes, progress.Unknown)
	case o.stat || !isTerminal(c.OutOrStdout()):
		return startBar(c, "comparing objects", progress.Objects, progress.Unknown)
	}
	return nil, func() {}
}

// config returns which layers are compared, and what they mean.
func (o *diffOptions) config() (cfg fs.Config, err error) {
	l := mountargs.Layers{Upper: o.layers[0], Lowers: o.layers[1:], Work: o.work}
	if len(l.Lowers) == 0 && len(o.dataOnly) == 0 {
		m, err := mounts.At(o.layers[0])
		if err != nil {
			return cfg, fmt.Errorf("upperdir %q: %w", o.layers[0], err)
		}
		if m != nil {
			return o.configOf(m)
		}
	}
	if cfg, err = o.layerFlags.config(l); err != nil {
		return cfg, err
	}
	if cfg.Features.Index && o.work == "" {
		return cfg, errors.New("option index=on needs --workdir: the index is in the work directory")
	}
	return cfg, nil
}

// configOf returns the layers of a mount. What is written to the mount is in its upper then.
func (o *diffOptions) configOf(m *mounts.Mount) (cfg fs.Config, err error) {
	const instead = "give the layers: fuse-overlay diff UPPER LOWER..."
	l := m.Daemon.Layers
	switch user := os.Geteuid(); {
	case len(o.mountOptions) > 0:
		return cfg, errors.New("the options are those of the mount: leave -o out")
	case uint32(user) != m.User: // nor root: that user's process names the layers, and root can read every directory
		return cfg, fmt.Errorf("the mount on %q is one of user %d, whose process alone names its layers: %s", m.Point, m.User, instead)
	case m.State != mounts.Serving:
		return cfg, fmt.Errorf("the mount on %q does not answer: %s", m.Point, instead)
	case !m.Daemon.Known:
		return cfg, fmt.Errorf("the layers of the mount on %q are not known: %s", m.Point, instead)
	case l.Upper == "":
		return cfg, fmt.Errorf("the mount on %q has no upperdir, so nothing can have changed", m.Point)
	}
	if anyRelative(l) {
		if err := findLayers(m, &l); err != nil {
			return cfg, fmt.Errorf("the mount on %q was given relative paths of its layers (%w): %s", m.Point, err, instead)
		}
	}
	if err := m.Sync(); err != nil {
		return cfg, fmt.Errorf("cannot write back what is cached of the mount on %q: %w", m.Point, err)
	}
	cfg = layerconfig.New(&l)
	if err := layerconfig.SetKnown(&cfg, m.Daemon.OptionLists); err != nil {
		return cfg, err
	}
	if cfg.Features.Index && !filepath.IsAbs(l.Work) {
		return cfg, fmt.Errorf("the mount on %q has index=on and a relative path of its work directory: %s", m.Point, instead)
	}
	return cfg, nil
}

// anyRelative reports whether the path of a layer begins at a directory that is not known.
func anyRelative(l mountargs.Layers) bool {
	return slices.ContainsFunc(slices.Concat([]string{l.Upper}, l.Lowers, l.DataOnly),
		func(path string) bool { return !filepath.IsAbs(path) })
}

// findLayers requests the paths of the layers from the daemon.
func findLayers(m *mounts.Mount, l *mountargs.Layers) error {
	info, err := control.Info(m.Entry)
	if err != nil {
		return err
	}
	l.Upper, l.Lowers, l.DataOnly = info.Upper, info.Lowers, info.DataOnly
	if anyRelative(*l) {
		return errors.New("its daemon does not know where they begin")
	}
	return nil
}

// visitor returns what writes the output of a walk, and what ends it.
func (o *diffOptions) visitor(c *cobra.Command, comparison *changes.Comparison, out io.Writer) (changes.Visitor, func() error) {
	nothing := func() error { return nil }
	switch {
	case o.nameOnly:
		return &changes.Names{W: out}, nothing
	case o.json:
		return &changes.JSON{W: out}, nothing
	case o.stat:
		var s changes.Summary
		return &s, func() error { return s.Write(out) }
	case o.tar:
		w := ocilayer.NewWriter(out, comparison.HasLowers(), func(path string) {
			fmt.Fprintf(c.ErrOrStderr(), "%s: %s is a socket, which an archive cannot hold: left out\n", c.CommandPath(), quote.Path(path))
		})
		return w, w.Close
	}
	return &changes.Lines{W: out}, nothing
}

// finder notes whether there is a change.
type finder struct {
	changes.Visitor
	changed bool
	bar     *progress.Bar // counts what is found
}

// Enter counts a directory.
func (f *finder) Enter(d *changes.Dir) (bool, error) {
	f.bar.Add(1)
	return f.Visitor.Enter(d)
}

func (f *finder) Change(c *changes.Change) error {
	f.bar.Add(1)
	f.changed = f.changed || c.Kind != changes.Unchanged
	return f.Visitor.Change(c)
}

// warnings is a log that writes its lines to stderr.
func warnings(c *cobra.Command) *zap.Logger {
	encoder := zapcore.NewConsoleEncoder(zapcore.EncoderConfig{MessageKey: "m"})
	out := zapcore.AddSync(&prefixed{c.ErrOrStderr(), c.CommandPath() + ": "})
	return zap.New(zapcore.NewCore(encoder, out, zapcore.WarnLevel))
}

// prefixed writes each line behind a prefix.
type prefixed struct {
	w      io.Writer
	prefix string
}

func (p *prefixed) Write(line []byte) (int, error) {
	if _, err := p.w.Write(slices.Concat([]byte(p.prefix), line)); err != nil {
		return 0, err
	}
	return len(line), nil
}

// completeDirectories completes mount points of this program, and directories.
func completeDirectories(c *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveFilterDirs
	}
	return completeMountPoints(c, args, word)
}
