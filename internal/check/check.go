package check

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"

	"github.com/fuse-overlay/fuse-overlay/fs"
	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/internal/ondisk"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/internal/view"
)

// Config is what is checked.
type Config struct {
	// Layers is the configuration of a mount of the layers. Of Work it has nothing.
	Layers fs.Config
	// Work is the work directory; empty: it is not checked.
	Work string
	// Notes requests findings that are no damage, too.
	Notes bool
	// Seen is called for each object of a layer that is looked at; nil: it is not.
	Seen func()
}

// Checker is an overlay that is open for reading.
type Checker struct {
	cfg   fs.Config // without ids
	notes bool
	seen  func()
	names ondisk.Names
	stack *stack.Stack
	work  *sys.Dir // nil: not checked
	// alone: no lowers are known. Then the stack has the upper as its only lower, and nothing is
	// compared with layers below.
	alone bool
	// views[i] shows the i-th layer and those below it; nil: not open yet.
	views  []*view.View
	strict *view.View // shows all layers, and checks digests; nil: not open yet
	places map[place]string
	used   []Finding // of [Checker.findPlaces]
}

// place identifies a directory.
type place struct{ dev, ino uint64 }

// Open opens the layers and the work directory. An error is one line that names the directory and
// the reason.
func Open(c Config) (*Checker, error) {
	cfg := c.Layers
	cfg.IDs, cfg.Work, cfg.ReadOnly, cfg.Features.Index = nil, "", true, false
	k := &Checker{notes: c.Notes, seen: c.Seen, alone: len(cfg.Lowers) == 0, names: cfg.Features.Names}
	if k.alone {
		cfg.Lowers, cfg.Upper = []string{cfg.Upper}, ""
	}
	if k.seen == nil {
		k.seen = func() {}
	}
	k.cfg = cfg
	if err := k.open(c.Work); err != nil {
		k.Close()
		return nil, err
	}
	return k, nil
}

func (c *Checker) open(work string) (err error) {
	cfg := &c.cfg
	c.stack, err = stack.Open(stack.Config{
		Lowers: cfg.Lowers, DataOnly: cfg.DataOnly, Upper: cfg.Upper, ReadOnly: true,
		Redirects: cfg.Redirects, Features: cfg.Features, Permissions: cfg.Permissions,
	})
	if err != nil {
		return err
	}
	c.views = make([]*view.View, c.layers())
	if work != "" {
		if c.work, _, err = sys.OpenLower(work); err != nil {
			return fmt.Errorf("workdir %q: %w", work, err)
		}
	}
	return c.findPlaces()
}

// Close closes what Open has opened.
func (c *Checker) Close() {
	for _, v := range append(c.views, c.strict) {
		if v != nil {
			v.Close()
		}
	}
	if c.work != nil {
		c.work.Close()
	}
	if c.stack != nil {
		c.stack.Close()
	}
}

// layers returns the number of layers, data-only ones apart. The upper is the first.
func (c *Checker) layers() int {
	if c.alone {
		return 1
	}
	return 1 + len(c.cfg.Lowers)
}

// inStack returns the number that the stack has for a layer.
func (c *Checker) inStack(layer int) int {
	if c.alone {
		return layer + 1
	}
	return layer
}

func (c *Checker) root(layer int) *sys.Dir { return c.stack.Root(c.inStack(layer)) }

// layerName returns the name of a layer in findings.
func layerName(layer int) string {
	if layer == 0 {
		return "upper"
	}
	return "lower" + strconv.Itoa(layer)
}

// from returns a view of a layer and those below it; nil: there is no such layer.
func (c *Checker) from(layer int) (*view.View, error) {
	if layer == len(c.views) {
		return nil, nil
	}
	if c.views[layer] == nil {
		cfg := c.cfg
		if layer > 0 {
			cfg.Upper, cfg.Lowers = "", cfg.Lowers[layer-1:]
		}
		v, err := view.Open(cfg)
		if err != nil {
			return nil, err
		}
		c.views[layer] = v
	}
	return c.views[layer], nil
}

// withDigests returns a view of all layers in which data with another digest than that of its
// metacopy cannot be read.
func (c *Checker) withDigests() (*view.View, error) {
	if c.strict == nil {
		cfg := c.cfg
		cfg.Features.Verity = fs.VerityOn
		v, err := view.Open(cfg)
		if err != nil {
			return nil, err
		}
		c.strict = v
	}
	return c.strict, nil
}

// findPlaces notes which directories the layers are, and finds those that are used twice. Two
// lowers may be one directory.
func (c *Checker) findPlaces() error {
	r := report{layer: layerName(0)}
	c.places = map[place]string{}
	for i := range c.layers() {
		here, err := placeOf(c.root(i))
		if err != nil {
			return err
		}
		if i > 0 && c.places[here] == layerName(0) {
			r.add(UsedTwice, ".", "it is "+layerName(i), nil)
			continue
		}
		c.places[here] = cmp.Or(c.places[here], layerName(i))
	}
	if c.work != nil {
		here, err := placeOf(c.work)
		if err != nil {
			return err
		}
		if other := c.places[here]; other != "" {
			r.layer = workLayer
			r.add(UsedTwice, ".", "it is "+other, nil)
		} else {
			c.places[here] = workLayer
		}
	}
	c.used = r.findings
	return nil
}

func placeOf(d *sys.Dir) (place, error) {
	var st sys.Stat
	err := d.Ref().Stat(&st)
	return place{st.Dev, st.Ino}, err
}

// InUse returns by what upper or work directory are in use; empty: nothing is known to use them. If
// they are in use, they may change while they are checked, and what a mount has in its work
// directory is no finding.
func (c *Checker) InUse() (string, error) {
	dirs := []*sys.Dir{c.root(0)}
	if c.work != nil {
		dirs = append(dirs, c.work)
	}
	point, _, err := sys.KernelOverlay(dirs...)
	if err != nil || point != "" {
		return fmt.Sprintf("the kernel's overlayfs on %q", point), err
	}
	for _, d := range dirs {
		if holder, ok := d.Holder(); ok {
			return fmt.Sprintf("a mount of fuse-overlay, process %d", holder.PID), nil
		}
	}
	return "", nil
}

// Run checks everything. The findings are in the order of work directory, upper and lowers, and of
// paths.
func (c *Checker) Run() ([]Finding, error) {
	all := slices.Clone(c.used)
	if c.work != nil {
		found, err := c.checkWork()
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	for i := range c.layers() {
		found, err := c.checkLayer(i)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	if !c.notes {
		all = slices.DeleteFunc(all, func(f Finding) bool { return f.Note() })
	}
	return all, nil
}
