package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// exitCodes is a part of the help, and of each page of the manual.
const exitCodes = `Exit codes of the commands: 0 if all is well, 1 if the command has failed or has
found what it looks for, 2 if its arguments are wrong.`

// newRoot returns the tree of commands.
func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   ownName,
		Short: "show several directories as one, from user space",
		Long: `fuse-overlay mounts overlays, and has commands for those that are mounted.

Without a command it mounts: fuse-overlay --help lists the options of a mount.
A first argument that is the name of a command is always the command. A mount
point of such a name is written with a path: ./list

` + exitCodes,
		Example: `  fuse-overlay -o lowerdir=a:b,upperdir=up,workdir=work merged
  fuse-overlay list
  fuse-overlay umount merged`,
		SilenceErrors:     true, // report prints them
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		DisableAutoGenTag: true,
	}
	root.AddCommand(
		newApply(),
		newCheck(),
		newCompletion(),
		newDiff(),
		newList(),
		newMan(),
		newMerge(),
		newMount(),
		newStats(),
		newTry(),
		newTryInside(),
		newTryWatch(),
		newUmount(),
		newUpgrade(),
		newVacuum(),
		newVersion(),
	)
	root.InitDefaultHelpCmd()
	for _, command := range root.Commands() {
		if command.Name() == "help" {
			command.Short = "show the help of a command"
			command.Long = "Shows the help of a command, and without an argument the list of all."
			command.Example = "  fuse-overlay help umount"
			command.Args = checkTopic
		}
	}
	return root
}

// checkTopic refuses the help of what is no command.
func checkTopic(c *cobra.Command, args []string) error {
	if _, rest, err := c.Root().Find(args); err != nil || len(rest) > 0 {
		return fmt.Errorf("%q is no command", strings.Join(args, " "))
	}
	return nil
}

// newMount has the help of the command that the program fuse-overlay runs itself.
func newMount() *cobra.Command {
	return &cobra.Command{
		Use:   "mount [flags] [SOURCE] MOUNTPOINT -o OPTION[,OPTION]...",
		Short: "mount an overlay; the word mount may be left out",
		Long: `Mounts an overlay. The word mount may be left out.
fuse-overlay --help lists flags and options, and fuse-overlay(1) explains them.`,
		Example:            "  fuse-overlay mount -o lowerdir=a:b,upperdir=up,workdir=work merged",
		DisableFlagParsing: true,
		RunE: func(*cobra.Command, []string) error {
			return errors.New("this program does not mount; call fuse-overlay")
		},
	}
}
