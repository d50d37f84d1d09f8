package main

import (
	"github.com/spf13/cobra"
)

func newCompletion() *cobra.Command {
	return &cobra.Command{
		Use:   "completion {bash|zsh|fish}",
		Short: "print the completion script of a shell",
		Long: `Prints a script by which the shell completes commands, flags and arguments.

bash needs the package bash-completion. A new shell uses what lies in the
folder of the example; make install fills those of the system.`,
		Example: `  fuse-overlay completion bash >~/.local/share/bash-completion/completions/fuse-overlay
  fuse-overlay completion zsh >"${fpath[1]}/_fuse-overlay"
  fuse-overlay completion fish >~/.config/fish/completions/fuse-overlay.fish`,
		Args:                  cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		ValidArgs:             []string{"bash", "zsh", "fish"},
		DisableFlagsInUseLine: true,
		RunE: work(func(c *cobra.Command, args []string) error {
			root, out := c.Root(), c.OutOrStdout()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(out, true)
			case "zsh":
				return root.GenZshCompletion(out)
			default:
				return root.GenFishCompletion(out, true)
			}
		}),
	}
}
