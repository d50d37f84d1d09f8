// Package commands has what the two programs of the command line both need: the names of the
// commands, and the place of the second program.
//
// The program fuse-overlay mounts. Its start is part of each start of a container, so it does not
// link the libraries of the other commands. If its first argument is the name of a command, it
// replaces itself by the program fuse-overlay-commands, which has them.
package commands

import "slices"

// Mount is the command that fuse-overlay runs itself, and that needs no name.
const Mount = "mount"

// names are the commands of fuse-overlay-commands. A test compares them with its tree of commands.
var names = []string{"apply", "check", "completion", "diff", "help", "list", "merge", "stats", "try", "umount", "upgrade", "vacuum", "version"}

// completing are the hidden commands by which the completion scripts of cobra request words
// (ShellCompRequestCmd, ShellCompNoDescRequestCmd).
var completing = []string{"__complete", "__completeNoDesc"}

// Names returns the names of all commands, in their order in the help.
func Names() []string {
	all := append(slices.Clone(names), Mount)
	slices.Sort(all)
	return all
}

// InSecondProgram reports whether fuse-overlay-commands runs the command of this name.
func InSecondProgram(name string) bool {
	return slices.Contains(names, name) || slices.Contains(completing, name)
}
