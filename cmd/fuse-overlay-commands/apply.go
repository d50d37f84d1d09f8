package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/message"
	"github.com/fuse-overlay/fuse-overlay/internal/progress"
	"github.com/fuse-overlay/fuse-overlay/internal/quote"
	"github.com/fuse-overlay/fuse-overlay/internal/unpack"
)

type applyOptions struct {
	squash bool
}

func newApply() *cobra.Command {
	var o applyOptions
	c := &cobra.Command{
		Use:   "apply [--squash] {LAYER | -} DIR",
		Short: "unpack a layer of an image as a lower",
		Long: `Unpacks a layer of an OCI image as the directory DIR, which can then be a
lower of an overlay. DIR must not exist, or be empty. The layer is a tar
archive, plain or compressed by gzip or zstd, which its first bytes show; "-"
is stdin.

What the layer hides is written as a mount would write it: character devices
0/0 and the xattr trusted.overlay.opaque, for a plain user or in a user
namespace user.overlay.opaque, and ".wh." files where the file system takes no
devices. Whiteouts hide what is in layers below and never what is in the same
layer.

The archive need not be trusted: nothing is made or changed outside of DIR. The
whole layer is refused, with the name of the entry, if it has

  "..", or the name of a whiteout, in the middle of a path
  a whiteout of nothing, "." or ".."
  a hard link to what is not in the layer
  a character device 0/0
  an attribute by which the overlay would change owner or mode of a file
  a name that is too long for the file system, or a file that is too large

and if its end is missing. Attributes trusted.overlay.* and user.overlay.* are
stored under escaped names: the mount shows them as the archive has them, and
does not obey them. The attributes security.selinux and system.nfs4_acl are
left out, and names of AUFS (".wh..wh.*") as well. Symbolic links in a path are
followed inside DIR.

Root keeps owners, devices, set-user-id bits and capabilities. In a user
namespace the owners must be mapped, and devices are an error. A plain user
needs --squash unless all belongs to that user. An attribute that the file
system or the kernel refuses there is left out with a warning. Holes of sparse
files become zeroes. Parents that the archive leaves out get mode 0755.

The layer is unpacked in ".DIR.apply-*" beside DIR, and renamed when it is
complete and on disk. After an error or an interrupt nothing is left; a command
that was killed by SIGKILL leaves the directory.`,
		Example: `  fuse-overlay apply layer.tar.gz lower1
  fuse-overlay diff --tar upper lower | fuse-overlay apply - lower2
  podman unshare fuse-overlay apply layer.tar.zst lower1`,
		Args: cobra.ExactArgs(2),
		RunE: work(func(c *cobra.Command, args []string) error { return o.run(c, args[0], args[1]) }),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return nil, cobra.ShellCompDirectiveDefault
			}
			return nil, cobra.ShellCompDirectiveFilterDirs
		},
	}
	c.Flags().BoolVar(&o.squash, "squash", false,
		"give all to the caller; other owners than root are kept in user.rootlesscontainers")
	return c
}

// errInterrupted is the error of a command that a signal has ended.
var errInterrupted = errors.New("interrupted")

func (o *applyOptions) run(c *cobra.Command, source, target string) error {
	layer, err := openLayer(source)
	if err != nil {
		return err
	}
	defer layer.Close()
	bar, end := startBar(c, "unpacking", progress.Bytes, sizeOf(layer))
	defer end()
	unix.Umask(0o022) // for parents that the archive has left out

	ctx, cancel := context.WithCancelCause(c.Context())
	defer cancel(nil)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer signal.Stop(signals)
	go func() {
		<-signals
		cancel(errInterrupted)
	}()
	return unpack.Unpack(ctx, &countedReader{layer, bar}, target, unpack.Options{Squash: o.squash, Warn: func(text string) {
		fmt.Fprintf(c.ErrOrStderr(), "%s: %s\n", c.CommandPath(), message.Printable(message.OneLine(text)))
	}})
}

// openLayer opens the file of a layer; "-" is stdin.
func openLayer(path string) (*os.File, error) {
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("cannot open %s: %w", quote.Word(path), cause(err))
		}
		return f, nil
	}
	if isTerminal(os.Stdin) {
		return nil, errors.New("stdin is a terminal: pipe a layer into it, or give a file")
	}
	return os.Stdin, nil
}

// sizeOf returns the size of a file, which a pipe does not have.
func sizeOf(f *os.File) int64 {
	if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
		return info.Size()
	}
	return progress.Unknown
}
