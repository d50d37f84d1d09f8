package fs

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs/conn"
	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/internal/host"
	"github.com/fuse-overlay/fuse-overlay/internal/ondisk"
)

// Report is what the mount has found and decided, as fields of the line that the log gets. Precondition: mounted.
func (o *Overlay) Report() []zap.Field {
	layers, writable := o.reportLayers()
	return []zap.Field{
		zap.Strings("layers", layers),
		zap.String("whiteouts", o.reportWhiteouts()),
		zap.String("copy-ups", o.reportCopyUps()),
		zap.String("io", o.reportIO()),
		zap.Strings("not in this kernel", o.missing()),
		zap.Strings("done without", o.doneWithout(writable)),
	}
}

// mostReported is how many lowers the report names.
const mostReported = 8

// reportLayers names the layers and their file systems. writable: a lower's mount, as it is reached, is not read-only.
func (o *Overlay) reportLayers() (list []string, writable bool) {
	names := map[uint64]string{} // of file systems, by device number
	kind := func(layer int) string {
		dev := o.stack.Device(layer)
		if names[dev] == "" {
			var st unix.Statfs_t
			if err := o.stack.Root(layer).Ref().Statfs(&st); err != nil {
				return err.Error()
			}
			names[dev] = fileSystemName(uint32(st.Type))
			writable = writable || layer != stack.Upper && st.Flags&unix.ST_RDONLY == 0
		}
		return names[dev]
	}
	lowers := len(o.cfg.Lowers)
	for i := range lowers {
		k := kind(i + 1) // first: an upper of the same file system is reached through another mount
		if i < mostReported {
			list = append(list, fmt.Sprintf("lowerdir %s (%s)", o.layerName(i+1), k))
		}
	}
	if more := lowers - mostReported; more > 0 {
		list = append(list, fmt.Sprintf("and %d more lowerdirs", more))
	}
	for _, dir := range o.layerNames.dataOnly {
		list = append(list, "data-only lowerdir "+dir)
	}
	if o.stack.Writable() {
		upper := fmt.Sprintf("upperdir %s (%s)", o.layerName(stack.Upper), kind(stack.Upper))
		list = append([]string{upper}, list...)
	}
	return list, writable
}

// fileSystemNames are the file systems that layers lie on, by the numbers of linux/magic.h.
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

func (o *Overlay) reportIO() string {
	words := []string{"cached"}
	if o.policy.Passthrough {
		words[0] = "passthrough"
	}
	if o.policy.Writeback {
		words = append(words, "writeback=1")
	}
	if o.policy.DirectIO && o.stack.Writable() {
		words = append(words, "new files are written past the page cache")
	}
	if o.policy.Timeout < conn.Endless {
		words = append(words, fmt.Sprintf("timeout=%v", o.policy.Timeout.Seconds()))
	}
	return strings.Join(append(words, o.conn.IdleCPUs()), ", ")
}

// kernelFeatures are the flags of INIT that the program makes use of by itself, by their names in linux/fuse.h.
var kernelFeatures = []struct {
	flag uint64
	name string
}{
	{fuse.CAP_NO_OPEN_SUPPORT, "NO_OPEN_SUPPORT"},
	{fuse.CAP_NO_OPENDIR_SUPPORT, "NO_OPENDIR_SUPPORT"},
	{fuse.CAP_HANDLE_KILLPRIV_V2, "HANDLE_KILLPRIV_V2"},
	{fuse.CAP_SETXATTR_EXT, "SETXATTR_EXT"},
	{fuse.CAP_DONT_MASK, "DONT_MASK"},
	{fuse.CAP_POSIX_ACL, "POSIX_ACL"},
	{fuse.CAP_CACHE_SYMLINKS, "CACHE_SYMLINKS"},
	{fuse.CAP_MAX_PAGES, "MAX_PAGES"},
	{fuse.CAP_READDIRPLUS_AUTO, "READDIRPLUS_AUTO"},
	{fuse.CAP_DIRECT_IO_ALLOW_MMAP, "DIRECT_IO_ALLOW_MMAP"},
	{fuse.CAP_PASSTHROUGH, "PASSTHROUGH"},
	{fuse.CAP_ALLOW_IDMAP, "ALLOW_IDMAP"},
}

// missing are the features that the kernel does not offer.
func (o *Overlay) missing() []string {
	var names []string
	for _, f := range kernelFeatures {
		if o.policy.Offered&f.flag == 0 {
			names = append(names, f.name)
		}
	}
	return names
}

// doneWithout returns which features the mount does without, and why.
func (o *Overlay) doneWithout(writable bool) []string {
	without := slices.Clone(o.stack.Warnings())
	add := func(given bool, what string) {
		if given {
			without = append(without, what)
		}
	}
	add(writable, "private read-only clones of the lowers' mounts: no right to mount, or an old kernel")
	add(!host.IsHostRoot(), "file handles: only root of the first user namespace opens them")
	add(!o.stack.KeepsMode(), "POSIX ACLs: owner and mode of objects are attributes")
	if o.stack.Writable() {
		f := o.stack.Format()
		add(f.Xattrs == ondisk.NoXattrs, "redirects, metacopies and origins: the upper takes no extended attributes")
		without = append(without, f.Missing()...)
		add(!o.cfg.Volatile && !o.stack.OrdersCopyUps(), "copy-ups without fsync: the upper's file system does not prove to keep their order")
	}
	add(o.cfg.Disabled != 0, "optimisations: disable="+strings.ReplaceAll(o.cfg.Disabled.String(), ", ", ":"))
	return without
}

// layerNames are the absolute paths of the layers, for the log: the daemon leaves its caller's directory.
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
