package vacuum

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs"
	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/internal/ondisk"
	"github.com/fuse-overlay/fuse-overlay/internal/quote"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/internal/view"
)

// Vacuum is an upper with its lowers.
type Vacuum struct {
	// Seen is called for each object of the upper that Find looks at; nil: it is not.
	Seen func()

	stack  *stack.Stack
	merged *view.View
	lowers *view.View
	upper  *sys.Dir // for writing, and locked; nil: drops are only found
	work   *sys.Dir // locked; nil: not given
}

// OpenToRead opens the layers to find out what can be dropped. cfg is that of a mount of them. An
// error is one line that names the directory and the reason.
func OpenToRead(cfg fs.Config) (*Vacuum, error) {
	v := &Vacuum{}
	if err := v.open(cfg); err != nil {
		v.Close()
		return nil, err
	}
	return v, nil
}

// Open is [OpenToRead] with the lock of the upper and of its work directory, which may be empty.
// While a mount uses one of them, it is an error.
func Open(cfg fs.Config, work string) (*Vacuum, error) {
	upper, workDir, err := stack.TakeUpper(stack.Config{Upper: cfg.Upper, Work: work})
	if err != nil {
		return nil, err
	}
	v := &Vacuum{upper: upper, work: workDir}
	if err := v.open(cfg); err != nil {
		v.Close()
		return nil, err
	}
	return v, nil
}

// errOtherLower is for lowers that the upper does not belong to.
var errOtherLower = errors.New("was mounted with another first lower")

func (v *Vacuum) open(cfg fs.Config) (err error) {
	// No object with a copy in the index is dropped: it has several links.
	cfg.IDs, cfg.Work, cfg.ReadOnly, cfg.Features.Index = nil, "", true, false
	below := cfg
	below.Upper = ""
	v.stack, err = stack.Open(stack.Config{
		Lowers: cfg.Lowers, DataOnly: cfg.DataOnly, Upper: cfg.Upper, ReadOnly: true,
		Redirects: cfg.Redirects, Features: cfg.Features, Permissions: cfg.Permissions,
	})
	if err != nil {
		return err
	}
	root := v.stack.Root(stack.Upper).Ref()
	for _, ns := range ondisk.Written {
		if !v.stack.Names().Has(ns) {
			continue
		}
		if err := v.stack.HoldsRoot(ns, root, stack.Upper+1); err == unix.ESTALE {
			return fmt.Errorf("upperdir %q: %w", cfg.Upper, errOtherLower)
		} else if err != nil {
			return fmt.Errorf("upperdir %q: %w", cfg.Upper, err)
		}
	}
	if v.merged, err = view.Open(cfg); err != nil {
		return err
	}
	below.NoACL = !v.merged.ShowsACLs()
	v.lowers, err = view.Open(below)
	return err
}

// Close closes the layers, and unlocks the upper.
func (v *Vacuum) Close() {
	for _, w := range []*view.View{v.merged, v.lowers} {
		if w != nil {
			w.Close()
		}
	}
	for _, d := range []*sys.Dir{v.upper, v.work} {
		if d != nil {
			d.Close()
		}
	}
	if v.stack != nil {
		v.stack.Close()
	}
}

// Kind is what is dropped.
type Kind string

// The kinds of drops.
const (
	Copy      Kind = "copy"      // an object that equals that of the lowers
	Whiteout  Kind = "whiteout"  // it hides nothing
	Directory Kind = "directory" // it equals that of the lowers, and the upper has nothing in it
)

// Drop is one object of the upper that can be dropped.
type Drop struct {
	Kind  Kind
	Path  string // in the upper
	Bytes int64  // that are freed

	inode object
}

// object identifies an object.
type object struct{ dev, ino uint64 }

// Drop drops an object that [Vacuum.Find] has returned. The drops are made in that order: a
// directory is empty after those in it. ESTALE: another object has taken its place.
//
// The directory in which it was keeps its times. They are set again after the drop, so a process
// that ends in between leaves that directory with another time of modification.
func (v *Vacuum) Drop(d *Drop) error {
	if err := v.drop(d); err != nil {
		return fmt.Errorf("%s: %w", quote.Path(d.Path), err)
	}
	return nil
}

func (v *Vacuum) drop(d *Drop) error {
	parent, name := path.Split(d.Path)
	in, err := v.upper.OpenDir(strings.TrimSuffix(parent, "/"))
	if err != nil {
		return err
	}
	defer in.Close()
	var st, before sys.Stat
	if err := in.At(name).Stat(&st); err != nil {
		return err
	}
	if (object{st.Dev, st.Ino}) != d.inode {
		return unix.ESTALE
	}
	if err := in.Ref().Stat(&before); err != nil {
		return err
	}
	remove := in.Unlink
	if d.Kind == Directory {
		remove = in.Rmdir
	}
	if err := remove(name); err != nil {
		return err
	}
	return in.Ref().Utimes(before.Atim, before.Mtim)
}

// Sync makes all drops durable.
func (v *Vacuum) Sync() error { return v.upper.SyncFS() }
