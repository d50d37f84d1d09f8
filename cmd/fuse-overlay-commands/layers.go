package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/fuse-overlay/fuse-overlay/fs"
	"github.com/fuse-overlay/fuse-overlay/internal/layerconfig"
	"github.com/fuse-overlay/fuse-overlay/internal/mountargs"
)

// layerFlags are the flags of commands that read the layers of an overlay.
type layerFlags struct{ mountOptions, dataOnly []string }

func (f *layerFlags) add(c *cobra.Command) {
	flags := c.Flags()
	flags.StringArrayVarP(&f.mountOptions, "options", "o", nil,
		"options of the mount that decide what the layers mean: "+strings.Join(layerconfig.Names(), ", "))
	flags.StringArrayVar(&f.dataOnly, "datadir", nil, "a data-only layer, below all LOWERs; may be repeated")
}

// config returns what the flags and the other layers mean.
func (f *layerFlags) config(l mountargs.Layers) (fs.Config, error) {
	l.DataOnly = f.dataOnly
	cfg := layerconfig.New(&l)
	for _, list := range f.mountOptions {
		if err := layerconfig.Set(&cfg, list); err != nil {
			return cfg, err
		}
	}
	return cfg, nil
}
