package format

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// The format of an upper is the kernel's. The kernel's overlayfs shows the same merged tree of an
// upper that the program has written, and the other way round. Each feature of the format has
// scripts of changes. Writer and reader take turns on the same layers, a script each. Each must
// show what the other has left: type, mode, owner, times, size, content, xattrs, links, and the
// inode number if the format keeps it. After each script both must show what the kernel alone shows
// after the same scripts.

// format is a feature of the format.
type format struct {
	name   string // as in docs/SEMANTICS.md
	opts   []string
	kernel []string // options of the kernel's overlayfs besides opts
	here   []string // options of the program besides opts
	then   []string // options of the second, fourth and so on mount, in place of opts; nil: opts
	// since is the version of the first kernel whose overlayfs has the feature; zero: all have it.
	since [2]int
	modes []harness.Mode
	disks []string // types of the upper's file system; nil: all of formatDisks
	apart bool     // the lowers lie on another file system
	// identity: the format keeps st_ino over a remount.
	identity bool
	layers   []string // tables, the topmost lower first
	scripts  []string // the first is the writer's, the second the reader's, and so on
	// mark is a file that the mount leaves in the work directory. The next mount is refused until it
	// is removed.
	mark string
	// inside describes more of the mount, as lines of a snapshot.
	inside func(c *cell, o *harness.Overlay) (map[string]string, string)
	// broken damages what lies on disk after the first script. The comparison has to find each damage.
	broken map[string]func(o *harness.Overlay) error
}

// direction is the implementation that writes and the one that reads, with the name that
// docs/SEMANTICS.md has for it.
type direction struct {
	name           string
	writer, reader harness.Implementation
}

var directions = []direction{
	{"kernel-kernel", harness.Kernel, harness.Kernel}, // shows that scripts and comparison are right
	{"here-kernel", harness.Ours, harness.Kernel},
	{"kernel-here", harness.Kernel, harness.Ours},
	{"here-here", harness.Ours, harness.Ours},
}

func TestFormat(t *testing.T) {
	mountFormatDisks(t)
	for i := range formats {
		f := &formats[i]
		t.Run(f.name, func(t *testing.T) {
			if !harness.KernelAtLeast(t, f.since[0], f.since[1]) {
				t.Skipf("the kernel's overlayfs has that from Linux %d.%d on", f.since[0], f.since[1])
			}
			if f.disks == nil {
				f.disks = formatDisks
			}
			for _, d := range directions {
				t.Run(d.name, func(t *testing.T) {
					harness.EachMode(t, f.modes, func(t *testing.T, e *harness.Env) {
						for _, fstype := range f.disks {
							t.Run(fstype, func(t *testing.T) { f.test(t, e.Mode, fstype, d) })
						}
					})
				})
			}
		})
	}
}

// cell is a feature on a file system.
type cell struct {
	*format
	t       *testing.T
	e       *harness.Env
	fstype  string
	origins map[uint64]string
}

// references are what the kernel alone shows after each script, by feature, mode and file system.
var references = map[string][]*sight{}

func (f *format) test(t *testing.T, m harness.Mode, fstype string, d direction) {
	key := fmt.Sprint(f.name, m, fstype)
	reference, ok := references[key]
	if !ok {
		var fault string
		if reference, fault = f.cell(t, m, fstype).run(directions[0], nil); fault != "" {
			t.Fatalf("by the kernel alone: %s", fault)
		}
		references[key] = reference
	}
	if d == directions[0] {
		return
	}
	sights, fault := f.cell(t, m, fstype).run(d, nil)
	if fault != "" {
		t.Error(fault)
	}
	for i, s := range sights {
		if diff := harness.DiffLines(reference[i].lines, s.lines); diff != "" {
			t.Errorf("after script %d, by %s: the kernel alone shows (want) another tree:\n%s", i+1, d.by(i), diff)
		}
	}
}

func (f *format) cell(t *testing.T, m harness.Mode, fstype string) *cell {
	return &cell{format: f, t: t, e: harness.NewEnv(t, m), fstype: fstype}
}

// by is the implementation of the i-th mount.
func (d direction) by(i int) harness.Implementation {
	return []harness.Implementation{d.writer, d.reader}[i%2]
}

// run lets writer and reader take turns. It returns what the mount shows after each script, and the
// first fault. damage runs between the first script and the next mount.
func (c *cell) run(d direction, damage func(o *harness.Overlay) error) (sights []*sight, fault string) {
	c.t.Helper()
	o := c.overlay()
	harness.Check(c.t, c.findOrigins(o))
	var last *sight
	for i, script := range append(c.scripts, "") {
		by := fmt.Sprintf("mount %d (%s)", i+1, d.by(i))
		o.Kernel = harness.Oracle || d.by(i) == harness.Kernel
		moved := c.moveLayers(o, script)
		c.setOptions(o, i)
		if err := c.mount(o, i); err != nil {
			return sights, fmt.Sprintf("%s: %v", by, err)
		}
		if i > 0 {
			s, fault := c.look(o)
			if fault == "" {
				fault = s.differs(last)
			}
			if fault == "" && c.identity && !moved {
				fault = s.numbersDiffer(last)
			}
			if fault != "" {
				o.Unmount()
				return sights, fmt.Sprintf("%s of what %s left:\n%s", by, d.by(i-1), fault)
			}
		}
		fault := runScript(o, script)
		if fault == "" {
			last, fault = c.look(o)
		}
		o.Unmount()
		if fault == "" {
			fault = c.check(o)
		}
		if fault != "" {
			return sights, fmt.Sprintf("%s, script: %s", by, fault)
		}
		if rest := harness.WorkRest(filepath.Join(o.Work, "work")); !o.Kernel && len(rest) > 0 {
			return sights, fmt.Sprintf("%s: the work directory still holds %v", by, rest)
		}
		if sights = append(sights, last); i == 0 && damage != nil {
			harness.Check(c.t, damage(o))
		}
	}
	return sights, ""
}

// overlay makes the layers.
func (c *cell) overlay() *harness.Overlay {
	c.t.Helper()
	disk := diskFolder(c.t, c.e, c.fstype)
	below := disk
	if c.apart {
		below = diskFolder(c.t, c.e, otherDisk(c.fstype))
	}
	o := &harness.Overlay{T: c.t, Env: c.e, Log: filepath.Join(c.e.Dir, "log"), Upper: disk + "/upper", Work: disk +
		"/work", Point: c.e.Dir + "/mnt"}
	harness.Mkdir(c.t, o.Upper, o.Work, o.Point)
	harness.Build(c.t, c.e, o.Upper, "")
	for i, table := range c.layers {
		layer := fmt.Sprintf("%s/lower%d", below, i)
		harness.Mkdir(c.t, layer)
		harness.Build(c.t, c.e, layer, table)
		o.Lowers = append(o.Lowers, layer)
	}
	return o
}

// setOptions sets the options of the i-th mount.
func (c *cell) setOptions(o *harness.Overlay, i int) {
	opts := c.opts
	if c.then != nil && i%2 == 1 {
		opts = c.then
	}
	// The comparison must not change access times.
	o.Opts, o.KernelFlags = slices.Concat([]string{"noatime"}, opts, c.here), unix.MS_NOATIME
	o.KernelOpts = strings.Join(slices.Concat(opts, c.kernel), ",")
}

// moveLayers makes the upper a lower if a script begins with that, and reports whether it does.
func (c *cell) moveLayers(o *harness.Overlay, script string) bool {
	c.t.Helper()
	word, _, _ := strings.Cut(strings.TrimSpace(script), "\n")
	if word != "lower" && word != "data" {
		return false
	}
	if word == "data" {
		o.Lowers, o.Data = nil, append(o.Lowers, o.Data...)
	}
	o.Lowers = append([]string{o.Upper}, o.Lowers...)
	o.Upper, o.Work = o.Upper+"+", o.Work+"+"
	harness.Mkdir(c.t, o.Upper, o.Work)
	// The root of the mount has the attributes of the new upper.
	harness.Shell(c.t, "", fmt.Sprintf("chmod --reference=%[1]s %[2]s; chown --reference=%[1]s %[2]s; touch -r %[1]s %[2]s", o.Lowers[0], o.Upper))
	return true
}

// mount mounts. If the last mount has left a mark, it checks that the mount is refused, and removes
// the mark.
func (c *cell) mount(o *harness.Overlay, i int) error {
	c.t.Helper()
	if c.mark != "" && i > 0 {
		if _, err := o.TryMount(); err == nil {
			o.Unmount()
			return fmt.Errorf("it is not refused, although there is %s", c.mark)
		}
		harness.Check(c.t, os.RemoveAll(filepath.Join(o.Work, c.mark)))
	}
	out, err := o.TryMount()
	if err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}

// The comparison finds what is wrong on disk.
func TestFormatComparison(t *testing.T) {
	mountFormatDisks(t)
	for i := range formats {
		f := &formats[i]
		t.Run(f.name, func(t *testing.T) {
			if len(f.broken) == 0 {
				t.Error("nothing shows that the comparison can fail")
			}
			for what, damage := range f.broken {
				t.Run(what, func(t *testing.T) {
					harness.EachMode(t, f.modes[:1], func(t *testing.T, e *harness.Env) {
						for _, d := range directions {
							_, fault := f.cell(t, e.Mode, "ext4").run(d, damage)
							t.Logf("%s: %s", d.name, fault)
							if fault == "" {
								t.Errorf("%s: the comparison does not find it", d.name)
							}
						}
					})
				})
			}
		})
	}
}

// without removes an attribute of an object of the upper.
func without(rel, name string) func(o *harness.Overlay) error {
	return func(o *harness.Overlay) error { return unix.Lremovexattr(filepath.Join(o.Upper, rel), name) }
}

// withoutFile removes a file below the folder of upper and work directory.
func withoutFile(rel string) func(o *harness.Overlay) error {
	return func(o *harness.Overlay) error { return os.Remove(filepath.Join(filepath.Dir(o.Upper), rel)) }
}
