package stack

// Features are the parts of the format on disk that can be chosen, by the names of the kernel's options.
type Features struct {
	// MetaCopy: a change of attributes alone copies up attributes alone; the data follows with the first write.
	MetaCopy bool
	// Index keeps linked lower files one object over a copy-up.
	Index bool
	// UserXattr writes and reads marks as user.overlay.* only.
	UserXattr bool
	// XattrWhiteouts writes whiteouts as attributes where devices cannot be made.
	XattrWhiteouts bool
	// UUID says which layers a mount trusts to be those that it had before.
	UUID UUID
	// Verity says whether digests of files whose data lies in a lower are written and checked.
	Verity Verity
}

// UUID is a value of option uuid.
type UUID int

// The values of option uuid.
const (
	UUIDAuto UUID = iota // on for an upper that is new, or has been mounted with on; else null
	UUIDOff              // no number at all; layers are trusted whatever their file system's
	UUIDNull             // the numbers of the layers' file systems
	UUIDOn               // a number of its own, kept in the upper
)

// Verity is a value of option verity.
type Verity int

// The values of option verity.
const (
	VerityOff     Verity = iota // digests are neither written nor looked at
	VerityOn                    // a digest that is there is checked; one is written where the file has fs-verity
	VerityRequire               // a file without a digest is EIO
)
