package stack

import "github.com/fuse-overlay/fuse-overlay/internal/ondisk"

// Features are the choices of the format on disk, by the names of the kernel's options.
type Features struct {
	// MetaCopy: a change of attributes makes a metacopy. The first write copies the data.
	MetaCopy bool
	// Index keeps linked lower files one object over a copy-up.
	Index bool
	// Names are the xattrs that belong to the overlay.
	Names ondisk.Names
	// XattrWhiteouts writes whiteouts in xattr form if devices cannot be made.
	XattrWhiteouts bool
	// UUID is how a mount recognises the layers of earlier mounts.
	UUID UUID
	// Verity is whether the digests of metacopies are written and checked.
	Verity Verity
}

// UUID is a value of option uuid.
type UUID int

// The values of option uuid.
const (
	UUIDAuto UUID = iota // on if the upper is new or has been mounted with on; else null
	UUIDOff              // handles have no UUID; layers on any file system are trusted
	UUIDNull             // the UUIDs of the layers' file systems
	UUIDOn               // a UUID of its own, in an xattr of the upper
)

// Verity is a value of option verity.
type Verity int

// The values of option verity.
const (
	VerityOff     Verity = iota // digests are neither written nor checked
	VerityOn                    // digests of metacopies are checked; one is written if the file has fs-verity
	VerityRequire               // a file without a digest is EIO
)
