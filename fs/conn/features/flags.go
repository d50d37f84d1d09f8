package features

import "github.com/hanwen/go-fuse/v2/fuse"

// Flag is a flag of INIT that the daemon uses without an option.
type Flag struct {
	Bit uint64
	// Symbol is its name in linux/fuse.h, without FUSE_.
	Symbol string
	// Name and Without are for users: what the flag is for, and what happens on a kernel that does not
	// have it.
	Name, Without string
}

// MinorOfPageWriteback is the protocol of Linux 6.16, the first whose kernel writes back the pages
// themselves. Before, it writes back copies of them, and dropping a page does not wait for its copy
// (fuse_writepages_fill). So old bytes could come back over what a process has written past the
// page cache, if a mapping changes the same page at the same time.
const MinorOfPageWriteback = 44

// DirectIO reports whether files can be written past the page cache while others map them. Linux
// 6.6 is the first with the flag, and the first that drops the pages of what direct I/O writes.
func DirectIO(offered uint64, minor uint32) bool {
	return offered&fuse.CAP_DIRECT_IO_ALLOW_MMAP != 0 && minor >= MinorOfPageWriteback
}

// Flags are all of them, in the order of the log.
var Flags = []Flag{
	{fuse.CAP_NO_OPEN_SUPPORT, "NO_OPEN_SUPPORT", "opening a file costs no request", "each open costs a request"},
	{fuse.CAP_NO_OPENDIR_SUPPORT, "NO_OPENDIR_SUPPORT", "the kernel keeps listings", "each listing costs requests"},
	{fuse.CAP_HANDLE_KILLPRIV_V2, "HANDLE_KILLPRIV_V2", "killpriv v2", "a write costs a GETXATTR more"},
	{fuse.CAP_SETXATTR_EXT, "SETXATTR_EXT", "an ACL can take sgid away", "a new ACL leaves sgid as it is"},
	{fuse.CAP_DONT_MASK, "DONT_MASK", "umask and default ACLs", "the umask counts beside a default ACL"},
	{fuse.CAP_POSIX_ACL, "POSIX_ACL", "POSIX ACLs", "files have no ACLs"},
	{fuse.CAP_CACHE_SYMLINKS, "CACHE_SYMLINKS", "the kernel keeps symbolic links", "each READLINK is a request"},
	{fuse.CAP_MAX_PAGES, "MAX_PAGES", "large requests", "a request has at most 128 KiB"},
	{fuse.CAP_READDIRPLUS_AUTO, "READDIRPLUS_AUTO", "listings with attributes", "attributes cost a request each"},
	{fuse.CAP_DIRECT_IO_ALLOW_MMAP, "DIRECT_IO_ALLOW_MMAP", "maps of what is written directly", "new files are cached twice"},
	{fuse.CAP_PASSTHROUGH, "PASSTHROUGH", "passthrough (for root)", "io=passthrough is refused"},
	{fuse.CAP_ALLOW_IDMAP, "ALLOW_IDMAP", "id-mapped mounts of the tree", "the kernel refuses to map the mount's ids"},
}

// Missing returns the flags that are not offered, by their symbols.
func Missing(offered uint64) (symbols []string) {
	for _, f := range Flags {
		if offered&f.Bit == 0 {
			symbols = append(symbols, f.Symbol)
		}
	}
	return symbols
}
