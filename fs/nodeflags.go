package fs

// Bits of Node.flags.
const (
	// bare: known to have no file capabilities.
	bare = 1 << iota
	// unseenWrites, unseenMappings: attributes may change without the kernel noticing, so that it must not keep them: while
	// it is open by passthrough for writing, a write may clear suid and sgid; a mapping, which may outlive the open that it
	// was made from, may change times and blocks.
	unseenWrites
	unseenMappings
	// handled: a handle of it has been cached.
	handled
	// plain: known to have no extended attribute that is shown.
	plain
	// large: of more than one READ when it was found, which a file of a lower stays.
	large
	// parted: two inodes of the kernel's lead to it, and what changes through one is not seen by the other.
	parted
	// direct: may be open for writing past the page cache. hasRead: the page cache may have some of it since the last such write.
	direct
	hasRead
	// growsDirectly: a WRITE past the page cache is making it longer.
	growsDirectly
	// immutable, appendOnly: what the object is (chattr +i, +a), if protectionKnown.
	protectionKnown
	immutable
	appendOnly
	// manyNames: one of several names of a lower's file, each of which has a node.
	manyNames
	// xattrChange is what the flags grow by with each change of the extended attributes.
	xattrChange = 1 << 16
)
