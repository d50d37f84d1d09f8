package harness

import (
	"slices"
	"testing"
)

// Feature is a flag of INIT, by its name in linux/fuse.h, and the first Linux that has it.
type Feature struct {
	Name         string
	Major, Minor int
}

// The features of FUSE on which expectations of tests depend.
var (
	KillprivV2    = Feature{"HANDLE_KILLPRIV_V2", 5, 11}
	SetxattrExt   = Feature{"SETXATTR_EXT", 5, 13}
	DirectMmap    = Feature{"DIRECT_IO_ALLOW_MMAP", 6, 6}
	BackingFiles  = Feature{"PASSTHROUGH", 6, 9}
	IDMappedMount = Feature{"ALLOW_IDMAP", 6, 12}
)

// Features are all of them, in the order of the daemon's log.
var Features = []Feature{KillprivV2, SetxattrExt, DirectMmap, BackingFiles, IDMappedMount}

// DirectIO reports whether new files are written past the page cache without the writeback cache.
func DirectIO(t *testing.T) bool {
	t.Helper()
	return KernelAtLeast(t, 6, 16) // FUSE 7.44, whose kernel writes back pages and not copies of them
}

// KernelHas reports whether the running kernel has a feature.
func KernelHas(t *testing.T, f Feature) bool {
	t.Helper()
	return KernelAtLeast(t, f.Major, f.Minor)
}

// NeedPassthrough skips a test that mounts with these options, if one is passthrough and the kernel
// has none. TestPassthroughNeedsTheKernel of package command expects that the mount is refused.
func NeedPassthrough(t *testing.T, opts ...string) {
	t.Helper()
	if f := BackingFiles; slices.Contains(opts, Passthrough) && !KernelHas(t, f) {
		t.Skipf("not applicable on this kernel: FUSE has %s since Linux %d.%d", f.Name, f.Major, f.Minor)
	}
}
