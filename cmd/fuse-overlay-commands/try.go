package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fuse-overlay/fuse-overlay/fs"
	"github.com/fuse-overlay/fuse-overlay/internal/changes"
	"github.com/fuse-overlay/fuse-overlay/internal/host"
	"github.com/fuse-overlay/fuse-overlay/internal/layerconfig"
	"github.com/fuse-overlay/fuse-overlay/internal/merge"
	"github.com/fuse-overlay/fuse-overlay/internal/message"
	"github.com/fuse-overlay/fuse-overlay/internal/mountargs"
	"github.com/fuse-overlay/fuse-overlay/internal/progress"
	"github.com/fuse-overlay/fuse-overlay/internal/quote"
	"github.com/fuse-overlay/fuse-overlay/internal/tryout"
)

type tryOptions struct {
	keep             string
	throwAway, merge bool
}

const tryLong = `Runs a command in a copy of the system that is made of overlays: one over "/"
and one over each other mount that can be written. Nothing is copied before the
command changes it, and the real files do not change. Then it lists what the
command has changed, as fuse-overlay diff does, and requests an answer: merge
that into the real files, keep it as a directory, or throw it away.

The command runs as the calling user with the same rights, environment, working
directory and terminal. A plain user needs fusermount3 and user namespaces; in
them set-user-id programs such as sudo have no effect, and the files of other
users show the owner id 65534. All processes that the command leaves behind are
killed.

What the overlays do not catch:

  the network, and the services that the command reaches by it
  sockets and what lies below /run: a command that calls a running service, as
  systemctl does, changes the real system
  devices and kernel settings below /dev, /proc and /sys; as root the command
  can write to disks, mount, load modules and change the clock
  shared memory, and signals to processes of the same pid namespace only

So it shows what a program does, and is no sandbox for a hostile one.

Mounts that are read-only stay so. Single files that are mounted (as
/etc/resolv.conf in many containers), and mounts that take no overlay, are
read-only for the command. A file with several names keeps its data under the
other names when it is changed under one. Other processes that change files
meanwhile can confuse the copy.

A merge makes the changes in the real files, as fuse-overlay merge does. If it
is interrupted, the uppers stay, and the printed commands complete it.

The exit code is that of the command, 128 plus the number of a signal that has
killed it, 127 if it is not found, 126 if it cannot be executed, and 125 if the
copy cannot be made or a change cannot be kept or merged.

The uppers lie in a new directory in TMPDIR, or else in /var/tmp, with --keep
beside DIR. With --keep each becomes a directory in DIR, named after its mount:
root, home, ... fuse-overlay diff DIR/root / shows it again, for a plain user
and in a user namespace with -o xattr_permissions=2.`

func newTry() *cobra.Command {
	var o tryOptions
	c := &cobra.Command{
		Use:   "try [--keep DIR | --merge | --throw-away] [--] COMMAND [ARGUMENT]...",
		Short: "run a command against a throwaway copy of the system",
		Long:  tryLong,
		Example: `  fuse-overlay try -- make install
  fuse-overlay try --throw-away sh -c 'rm -rf ~/.cache && ls -la'
  fuse-overlay try --keep changes -- dpkg -i package.deb
  fuse-overlay try --merge make install`,
		Args: cobra.MinimumNArgs(1),
		PreRunE: func(*cobra.Command, []string) error {
			if o.keep == "" && !o.merge && !o.throwAway && !isTerminal(os.Stdin) {
				return errors.New("stdin is no terminal for a question: give --keep DIR, --merge or --throw-away")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			code, err := o.run(c, args)
			if err == nil && code == exitOK {
				return nil
			}
			return &exitError{code, err}
		},
	}
	c.Flags().SetInterspersed(false) // flags behind COMMAND are its own
	c.Flags().StringVar(&o.keep, "keep", "", "keep the changes as the new directory DIR, without a question")
	c.Flags().BoolVar(&o.throwAway, "throw-away", false, "throw the changes away, without a question")
	c.Flags().BoolVar(&o.merge, "merge", false, "merge the changes into the real files, without a question")
	c.MarkFlagsMutuallyExclusive("keep", "merge", "throw-away")
	return c
}

// privateVariable is set in a process that has a mount namespace of its own.
const privateVariable = "_FUSE_OVERLAY_TRY_PRIVATE"

func (o *tryOptions) run(c *cobra.Command, command []string) (code int, err error) {
	runtime.LockOSThread() // the processes of the command end with the thread
	if host.MayMount() && os.Getenv(privateVariable) == "" {
		return tryout.CodeFailed, host.ExecApart(os.Args, append(os.Environ(), privateVariable+"=1"))
	}
	if err := os.Unsetenv(privateVariable); err != nil {
		return tryout.CodeFailed, err
	}
	base, err := o.base()
	if err != nil {
		return tryout.CodeFailed, err
	}
	program, err := mountProgram()
	if err != nil {
		return tryout.CodeFailed, err
	}
	s, err := tryout.Open(program, base, func(err error) { printError(c, err) })
	if err != nil {
		return tryout.CodeFailed, err
	}
	defer func() {
		_, end := startBar(c, "removing the copy", progress.Nothing, progress.Unknown)
		defer end()
		if e := s.Close(); e != nil {
			code, err = tryout.CodeFailed, errors.Join(err, e)
		}
	}()
	status, err := s.Run(command)
	var start *tryout.StartError
	if errors.As(err, &start) {
		return start.Code, err
	}
	if err != nil {
		return tryout.CodeFailed, err
	}
	_, end := startBar(c, "unmounting the copy", progress.Nothing, progress.Unknown)
	err = s.Complete()
	end()
	if err != nil {
		return tryout.CodeFailed, err
	}
	changed, err := o.list(c, s)
	if err == nil && changed {
		err = o.dispose(c, s)
	}
	if err != nil {
		return tryout.CodeFailed, err
	}
	return tryout.ExitCode(status), nil
}

// base returns the directory in which the uppers are made.
func (o *tryOptions) base() (string, error) {
	if o.keep == "" {
		if dir := os.Getenv("TMPDIR"); dir != "" {
			return dir, nil
		}
		return "/var/tmp", nil
	}
	if _, err := os.Lstat(o.keep); err == nil {
		return "", fmt.Errorf("%s exists already; --keep makes a new directory", quote.Word(o.keep))
	}
	path, err := filepath.Abs(o.keep)
	return filepath.Dir(path), err
}

// mountProgram returns the path of fuse-overlay, which has started this program or lies beside it.
func mountProgram() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	for _, path := range []string{filepath.Join(filepath.Dir(self), ownName), filepath.Join(filepath.Dir(self), "../../bin", ownName)} {
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("there is no program %s beside %s", ownName, self)
}

// layersOf returns the configuration of an overlay of the copy.
func layersOf(c *cobra.Command, s *tryout.Session, l *tryout.Layer) (fs.Config, error) {
	cfg := layerconfig.New(&mountargs.Layers{Upper: l.Upper, Work: l.Work, Lowers: []string{l.Point}})
	cfg.Log = warnings(c)
	if !s.OwnersInXattrs {
		return cfg, nil
	}
	return cfg, layerconfig.Set(&cfg, ownersOption)
}

// ownersOption is the option of the mounts of a plain user's copy.
const ownersOption = "xattr_permissions=2"

// list prints the changes to stderr: stdout is the command's.
func (o *tryOptions) list(c *cobra.Command, s *tryout.Session) (changed bool, err error) {
	out := bufio.NewWriter(c.ErrOrStderr())
	for _, l := range s.Layers {
		cfg, err := layersOf(c, s, &l)
		if err != nil {
			return false, err
		}
		comparison, err := changes.Open(cfg)
		if err != nil {
			return false, err
		}
		found := &finder{Visitor: &below{&changes.Lines{W: out}, l.Point}}
		err = comparison.Walk(nil, found)
		comparison.Close()
		if err != nil {
			return false, err
		}
		changed = changed || found.changed
	}
	if !changed {
		fmt.Fprintln(out, "Nothing has changed.")
	}
	return changed, out.Flush()
}

// below reports changes by their absolute paths.
type below struct {
	changes.Visitor
	point string
}

// Change passes on a change with other paths.
func (b *below) Change(c *changes.Change) error {
	moved := *c
	moved.Path = filepath.Join(b.point, c.Path)
	if c.From != "" {
		moved.From = filepath.Join(b.point, c.From)
	}
	return b.Visitor.Change(&moved)
}

// dispose keeps or merges the changes, if the user wants to.
func (o *tryOptions) dispose(c *cobra.Command, s *tryout.Session) error {
	switch {
	case o.throwAway:
		return nil
	case o.merge:
		return o.mergeAll(c, s)
	case o.keep != "":
		return o.keepIn(c, s, o.keep)
	}
	answers := bufio.NewReader(os.Stdin)
	for {
		fmt.Fprint(c.ErrOrStderr(), "Merge the changes into the real files (m), keep them in a new directory (its path), "+
			"or throw them away (Enter)? ")
		answer, err := answers.ReadString('\n')
		answer = strings.TrimSpace(answer)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		switch answer {
		case "":
			return nil
		case "m":
			err = o.mergeAll(c, s)
			var incomplete *merge.IncompleteError
			if errors.As(err, &incomplete) {
				return err
			}
		default:
			err = o.keepIn(c, s, answer)
		}
		if err == nil {
			return nil
		}
		printError(c, err)
	}
}

// mergeAll merges the uppers into the real files. All are planned before the first one begins.
func (o *tryOptions) mergeAll(c *cobra.Command, s *tryout.Session) error {
	var all []*merge.Merge
	defer func() {
		for _, m := range all {
			m.Close()
		}
	}()
	for _, l := range s.Layers {
		cfg, err := layersOf(c, s, &l)
		if err != nil {
			return err
		}
		m, err := merge.Open(cfg)
		if err != nil {
			return err
		}
		all = append(all, m)
		if err := m.Plan(&changes.Lines{W: io.Discard}); err != nil {
			return err
		}
	}
	if err := s.Stay(); err != nil {
		return err
	}
	for i, m := range all {
		err := runMerge(c, m)
		if err == nil {
			continue
		}
		var incomplete *merge.IncompleteError
		if i == 0 && !errors.As(err, &incomplete) {
			s.Merged() // nothing has begun
			return err
		}
		for _, l := range s.Layers[i:] {
			words := []string{ownName, "merge"}
			if s.OwnersInXattrs {
				words = append(words, "-o", ownersOption)
			}
			fmt.Fprintf(c.ErrOrStderr(), "to be completed: %s --workdir %s %s %s\n",
				strings.Join(words, " "), quote.Word(l.Work), quote.Word(l.Upper), quote.Word(l.Point))
		}
		return err
	}
	s.Merged()
	fmt.Fprintln(c.ErrOrStderr(), "The changes are in the real files.")
	return nil
}

func (o *tryOptions) keepIn(c *cobra.Command, s *tryout.Session, dir string) error {
	if err := s.Keep(dir); err != nil {
		return err
	}
	fmt.Fprintf(c.ErrOrStderr(), "The changes are in %s.\n", quote.Word(dir))
	return nil
}

// printError prints an error after which the command goes on.
func printError(c *cobra.Command, err error) {
	fmt.Fprintf(c.ErrOrStderr(), "%s: %s\n", c.CommandPath(), message.Printable(message.OneLine(err.Error())))
}

// newTryInside and newTryWatch are for processes that newTry starts.
func newTryInside() *cobra.Command {
	return &cobra.Command{
		Use: tryout.InsideCommand, Short: "run a command in the namespaces of try", Hidden: true, Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			return &exitError{tryout.Inside(slices.Clone(args)), nil}
		},
	}
}

func newTryWatch() *cobra.Command {
	return &cobra.Command{
		Use: tryout.WatchCommand + " DIR", Short: "remove what a killed try has left", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: work(func(_ *cobra.Command, args []string) error {
			return tryout.Watch(os.NewFile(3, "alive"), args[0])
		}),
	}
}
