package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/fuse-overlay/fuse-overlay/fs/conn/features"
	"github.com/fuse-overlay/fuse-overlay/internal/version"
)

type versionOptions struct {
	json, features bool
}

func newVersion() *cobra.Command {
	var o versionOptions
	c := &cobra.Command{
		Use:   "version",
		Short: "show the version of the program, and what this kernel offers",
		Long: `Shows the version, the commit and the Go version of the program.

With --features it also shows what the running kernel offers to a mount, and
what happens without it. The command finds that by trying. A plain user tries
in a user namespace; where the user may not make one, the answer is "unknown".
Clones are not for mounts that a plain user makes by fusermount3.`,
		Example: `  fuse-overlay version
  fuse-overlay version --features
  fuse-overlay version --features --json | jq -r '.kernel.features[] | select(.here == false) | .name'`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              work(func(c *cobra.Command, _ []string) error { return o.run(c) }),
	}
	c.Flags().BoolVar(&o.features, "features", false, "show also what this kernel offers")
	addJSON(c, &o.json)
	return c
}

func (o *versionOptions) run(c *cobra.Command) error {
	build, out := version.Current(), c.OutOrStdout()
	var kernel *features.Kernel
	if o.features {
		k := features.Find()
		kernel = &k
	}
	if o.json {
		return printJSON(out, versionJSON{build, kernel})
	}
	commit := build.Commit
	switch {
	case commit == "":
		commit = "not recorded by the build"
	case build.Modified:
		commit += ", with changes"
	}
	fmt.Fprintf(out, "fuse-overlay version %s\ncommit: %s\nbuilt by: %s for %s\n",
		build.Version, commit, build.Go, build.Platform)
	if kernel != nil {
		printFeatures(out, kernel)
	}
	return nil
}

// versionJSON is the output of --json.
type versionJSON struct {
	version.Build
	Kernel *features.Kernel `json:"kernel,omitempty"`
}

func printFeatures(w io.Writer, k *features.Kernel) {
	protocol := k.Protocol
	if protocol == "" {
		protocol = "unknown"
	}
	fmt.Fprintf(w, "kernel: Linux %s\nFUSE protocol: %s\n\n", k.Release, protocol)
	t := table{head: []string{"FEATURE", "HERE", "NOTE"}}
	for _, f := range k.Features {
		here, note := cell{"yes", green}, ""
		switch {
		case f.Here == nil:
			here, note = cell{text: "unknown"}, f.Reason
		case !*f.Here:
			here, note = cell{"no", red}, f.Without
		}
		t.rows = append(t.rows, []cell{{text: f.Name}, here, {text: note}})
	}
	t.print(w, wantsColour(w))
}
