package fs

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/internal/host"
	"github.com/fuse-overlay/fuse-overlay/internal/ondisk"
)

// Report returns what the mount has found and decided: the fields of the one line that the daemon
// logs at mount. Precondition: mounted.
func (o *Overlay) Report() []zap.Field {
	layers, cloned := o.reportLayers()
	return []zap.Field{
		zap.Strings("layers", layers),
		zap.String("whiteouts", o.reportWhiteouts()),
		zap.String("copy-ups", o.reportCopyUps()),
		zap.Stringer("io", &o.policy),
		zap.String("idle CPUs", o.conn.IdleCPUs()),
		zap.Strings("not in this kernel", o.policy.Missing()),
		zap.Strings("done without", o.doneWithout(cloned)),
	}
}

// maxReportedLowers is how many lowers the report names.
const maxReportedLowers = 8

// reportLayers returns the layers with their file systems. cloned: all lowers are reached through
// read-only clones of their mounts.
func (o *Overlay) reportLayers() (list []string, cloned bool) {
	names := map[uint64]string{} // of file systems, by device number
	cloned = true
	fileSystem := func(layer int) string {
		dev := o.stack.Device(layer)
		if names[dev] == "" {
			var st unix.Statfs_t
			if err := o.stack.Root(layer).Ref().Statfs(&st); err != nil {
				return err.Error()
			}
			names[dev] = fileSystemName(uint32(st.Type))
			cloned = cloned && (layer == stack.Upper || st.Flags&unix.ST_RDONLY != 0)
		}
		return names[dev]
	}
	// The lowers come first: an upper on their file system is reached through another mount.
	lowers := len(o.cfg.Lowers)
	for i := range lowers {
		name := fileSystem(i + 1)
		if i < maxReportedLowers {
			list = append(list, fmt.Sprintf("lowerdir %s (%s)", o.layerName(i+1), name))
		}
	}
	if more := lowers - maxReportedLowers; more > 0 {
		list = append(list, fmt.Sprintf("and %d more lowerdirs", more))
	}
	for _, dir := range o.layerNames.dataOnly {
		list = append(list, "data-only lowerdir "+dir)
	}
	if o.stack.Writable() {
		upper := fmt.Sprintf("upperdir %s (%s)", o.layerName(stack.Upper), fileSystem(stack.Upper))
		list = append([]string{upper}, list...)
	}
	return list, cloned
}

// fileSystemNames are the file systems that layers lie on, by their numbers in linux/magic.h.
var fileSystemNames = map[uint32]string{
	0xef53: "ext4", 0x58465342: "xfs", 0x9123683e: "btrfs", 0x01021994: "tmpfs", 0x794c7630: "overlay", 0x65735546: "fuse",
	0x73717368: "squashfs", 0xe0f5e1e2: "erofs", 0x6969: "nfs", 0x2fc12fc1: "zfs", 0xf2f52010: "f2fs", 0x9660: "iso9660",
	0x858458f6: "ramfs", 0xca451a4e: "bcachefs", 0xff534d42: "cifs", 0x00c36400: "ceph", 0x01021997: "9p", 0x9fa0: "proc",
}

func fileSystemName(magic uint32) string {
	if name := fileSystemNames[magic]; name != "" {
		return name
	}
	return fmt.Sprintf("file system %#x", magic)
}

func (o *Overlay) reportWhiteouts() string {
	if !o.stack.Writable() {
		return "none are written"
	}
	return o.stack.Format().String()
}

func (o *Overlay) reportCopyUps() string {
	switch {
	case !o.stack.Writable():
		return "none"
	case o.cfg.Volatile:
		return "not synced: volatile"
	case o.stack.OrdersCopyUps():
		return "kept whole by the order of the upper's journal"
	}
	return "synced before they show"
}

// doneWithout returns which features the mount does without, and why.
func (o *Overlay) doneWithout(cloned bool) []string {
	without := slices.Clone(o.stack.Warnings())
	add := func(missing bool, what string) {
		if missing {
			without = append(without, what)
		}
	}
	add(!cloned, "private read-only clones of the lowers' mounts: no right to mount, or an old kernel")
	add(!host.IsHostRoot(), "file handles: only root of the first user namespace opens them")
	add(!o.stack.KeepsMode(), "POSIX ACLs: owner and mode of objects are attributes")
	if o.stack.Writable() {
		f := o.stack.Format()
		add(f.Xattrs == ondisk.NoXattrs, "redirects, metacopies and origins: the upper takes no extended attributes")
		without = append(without, f.Missing()...)
		add(!o.cfg.Volatile && !o.stack.OrdersCopyUps(),
			"copy-ups without fsync: the upper's file system does not prove to keep their order")
	}
	add(o.cfg.Disabled != 0, "optimisations: disable="+strings.ReplaceAll(o.cfg.Disabled.String(), ", ", ":"))
	return without
}

// layerNames are the absolute paths of the layers, for the log: the daemon leaves its caller's
// directory.
type layerNames struct {
	upper            string
	lowers, dataOnly []string
}

func newLayerNames(cfg *Config) (names layerNames) {
	absolute := func(dir string) string {
		if full, err := filepath.Abs(dir); err == nil {
			return full
		}
		return dir
	}
	for _, dir := range cfg.Lowers {
		names.lowers = append(names.lowers, absolute(dir))
	}
	for _, dir := range cfg.DataOnly {
		names.dataOnly = append(names.dataOnly, absolute(dir))
	}
	if cfg.Upper != "" {
		names.upper = absolute(cfg.Upper)
	}
	return names
}

// layerName is the directory of a layer.
func (o *Overlay) layerName(layer int) string {
	switch {
	case layer == stack.DataOnly:
		return strings.Join(o.layerNames.dataOnly, ", ")
	case layer == stack.Upper:
		return o.layerNames.upper
	}
	return o.layerNames.lowers[layer-1]
}
