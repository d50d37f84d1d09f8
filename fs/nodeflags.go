package fs

import "sync/atomic"

// nodeFlag is a set of facts about a node.
type nodeFlag uint32

const (
	// flagNoCapability: the object has no security.capability.
	flagNoCapability nodeFlag = 1 << iota
	// flagNoXattrs: the object has no extended attribute that the mount shows.
	flagNoXattrs
	// flagUnseenWrites: the file is open for writing by passthrough. A write may clear suid and sgid,
	// which the kernel does not see.
	flagUnseenWrites
	// flagUnseenMappings: the file was opened for reading and writing by passthrough. A mapping, which
	// may outlive that open, changes times and blocks, which the kernel does not see.
	flagUnseenMappings
	// flagSplit: two inodes of the kernel lead to the node. A change through one is not seen through
	// the other.
	flagSplit
	// flagHasHandle: a handle of the object has been put into the cache.
	flagHasHandle
	// flagLarge: the file had more data than one READ brings when the node was made. A file of a lower
	// keeps its size.
	flagLarge
	// flagDirectIO: the file may be open for writing past the page cache.
	flagDirectIO
	// flagPagesRead: since the last WRITE past the page cache, the page cache may have got some of the
	// data.
	flagPagesRead
	// flagRangeChanging: the node is in [changingRanges].
	flagRangeChanging
	// flagProtectionKnown: flagImmutable and flagAppendOnly have been read (chattr +i, +a).
	flagProtectionKnown
	flagImmutable
	flagAppendOnly
	// flagManyNames: the object is a lower's file with several names. Each name has a node of its own.
	flagManyNames

	// xattrGeneration is what [Node.flags] grows by with each change of the extended attributes. A
	// request that has read the flags before such a change then fails to replace them.
	xattrGeneration nodeFlag = 1 << 16

	flagsProtected = flagImmutable | flagAppendOnly
)

// nodeFlags are the flags of one node, which change atomically.
type nodeFlags struct{ bits atomic.Uint32 }

func (f *nodeFlags) load() nodeFlag { return nodeFlag(f.bits.Load()) }

// has reports whether any of these flags is set.
func (f *nodeFlags) has(any nodeFlag) bool { return f.load()&any != 0 }

// set returns the flags as they were before.
func (f *nodeFlags) set(those nodeFlag) nodeFlag { return nodeFlag(f.bits.Or(uint32(those))) }

// clear returns the flags as they were before.
func (f *nodeFlags) clear(those nodeFlag) nodeFlag { return nodeFlag(f.bits.And(uint32(^those))) }

// replace reports whether the flags were still old.
func (f *nodeFlags) replace(old, by nodeFlag) bool {
	return f.bits.CompareAndSwap(uint32(old), uint32(by))
}

// xattrsChanged begins a new generation of the extended attributes.
func (f *nodeFlags) xattrsChanged() { f.bits.Add(uint32(xattrGeneration)) }
