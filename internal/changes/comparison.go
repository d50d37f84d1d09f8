package changes

import (
	"fmt"
	"path"
	"slices"

	"github.com/fuse-overlay/fuse-overlay/fs"
	"github.com/fuse-overlay/fuse-overlay/internal/ondisk"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/internal/view"
)

// Comparison is an upper beside its lowers, open for reading.
type Comparison struct {
	// Unchanged: a walk reports each file of the upper that is Unchanged. It is set before a walk.
	Unchanged bool

	upper  *sys.Dir
	names  ondisk.Names
	merged *view.View
	lowers *view.View // nil: they are not known
	index  bool       // linked files of lowers have copies in the index
	work   string     // the work directory, if index
}

// Open opens the layers. cfg is that of a mount of them. It needs an upper, but no lowers. Without
// lowers everything in the upper is compared with nothing. An error is one line that names the
// directory and the reason. Ids are not mapped. With Features.Index the work directory is read too.
func Open(cfg fs.Config) (*Comparison, error) {
	cfg.IDs = nil
	below := cfg
	below.Upper, below.Features.Index = "", false
	if len(cfg.Lowers) == 0 {
		cfg.Lowers, cfg.DataOnly, cfg.Upper, cfg.Features.Index = []string{cfg.Upper}, nil, "", false
	}
	c := &Comparison{names: cfg.Features.Names, index: cfg.Features.Index, work: cfg.Work}
	err := c.open(cfg, below)
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func (c *Comparison) open(merged, below fs.Config) (err error) {
	if c.merged, err = view.Open(merged); err != nil {
		return err
	}
	upper := merged.Upper
	if upper == "" {
		upper = merged.Lowers[0]
	} else {
		below.NoACL = !c.merged.ShowsACLs()
		if c.lowers, err = view.Open(below); err != nil {
			return err
		}
	}
	if c.upper, _, err = sys.OpenLower(upper); err != nil {
		return fmt.Errorf("upperdir %q: %w", upper, err)
	}
	return nil
}

// Close closes the layers.
func (c *Comparison) Close() {
	if c.merged != nil {
		c.merged.Close()
	}
	if c.lowers != nil {
		c.lowers.Close()
	}
	if c.upper != nil {
		c.upper.Close()
	}
}

// HasLowers reports whether the lowers are known.
func (c *Comparison) HasLowers() bool { return c.lowers != nil }

// Merged returns the view of the merged tree. It is closed with c.
func (c *Comparison) Merged() *view.View { return c.merged }

// Walk reports the changes to v. paths selects the objects at some paths and below them; none: all.
// Of the rest it reads only the directories above.
func (c *Comparison) Walk(paths []string, v Visitor) error {
	w := walk{Comparison: c, visitor: v, links: map[uint64]*firstName{}}
	for _, p := range paths {
		w.filter = append(w.filter, path.Clean(p))
	}
	slices.Sort(w.filter)
	now, err := c.merged.Root()
	if err != nil {
		return err
	}
	root := pair{path: ".", now: now, wasPath: "."}
	if c.lowers != nil {
		if root.was, err = c.lowers.Root(); err != nil {
			return err
		}
	}
	up, err := c.upper.OpenDir("")
	if err != nil {
		return err
	}
	defer up.Close()
	if c.index {
		if err := w.findLinked(c.work, up); err != nil {
			return err
		}
	}
	return w.dir(root, up, nil)
}
