package control

import "time"

// reply is what a daemon replies: one of its members.
type reply struct {
	Error string `json:"error,omitempty"`
	Mount *Mount `json:"mount,omitempty"`
	Stats *Stats `json:"stats,omitempty"`
}

// Mount describes a mount and its daemon. In its texts U+FFFD stands for bytes that are not UTF-8.
type Mount struct {
	Version string    `json:"version"`
	PID     int       `json:"pid"` // in the pid namespace of the daemon
	Started time.Time `json:"started"`

	// Point is where the mount was made, which may be in another mount namespace than that of the
	// client.
	Point string `json:"mount_point"`
	// Device is the device number of the mount as in /proc/self/mountinfo.
	Device string `json:"device"`
	// Mode is read-only, read-write or volatile.
	Mode string `json:"mode"`
	// IO is what the kernel caches and does by itself, in words.
	IO string `json:"io"`

	// Upper is empty if there is none. Lowers and DataOnly begin with the topmost. The paths are
	// absolute, unless the daemon could not find out in which directory its caller was.
	Upper    string   `json:"upperdir,omitempty"`
	Lowers   []string `json:"lowerdirs"`
	DataOnly []string `json:"datadirs,omitempty"`
}

// Stats is what a daemon has done since it has mounted, and what it uses. The numbers are not of
// one moment.
type Stats struct {
	Mount Mount `json:"mount"`
	// Uptime is how long the mount has been there, in seconds.
	Uptime float64 `json:"uptime_seconds"`
	// Requests are the kinds that have come, in the order of linux/fuse.h.
	Requests []Request `json:"requests"`
	CopyUps  CopyUps   `json:"copy_ups"`
	Inodes   Inodes    `json:"inodes"`
	Caches   Caches    `json:"caches"`
	Process  Process   `json:"process"`
}

// Request is one kind of request.
type Request struct {
	// Kind is the name in linux/fuse.h without the prefix.
	Kind string `json:"kind"`
	// Count counts all requests, also those that are not answered yet.
	Count uint64 `json:"count"`
	// Seconds is how long all answered requests took together, each from its decoding to its reply.
	Seconds float64 `json:"seconds"`
	// Latency has the answered requests by how long they took, the shortest first. FORGET is not
	// answered.
	Latency []Bucket `json:"latency,omitempty"`
}

// Bucket is how many requests took less than Below nanoseconds, and are in no bucket before.
type Bucket struct {
	Below int64  `json:"below_ns"`
	Count uint64 `json:"count"`
}

// CopyUps are objects that were copied up, and the bytes of data that they got.
type CopyUps struct {
	Objects uint64 `json:"objects"`
	Bytes   uint64 `json:"bytes"`
}

// Inodes are those that the kernel knows now, and that it has ever got. A LOOKUP of a name whose
// inode is known makes none.
type Inodes struct {
	Known uint64 `json:"known"`
	Made  uint64 `json:"made"`
}

// Caches is how the caches of the daemon were used.
type Caches struct {
	// HandlesOpen are files and directories of layers that are kept open, HandlesFound the uses of
	// one that was open, HandlesOpened those that had to open one.
	HandlesOpen   uint64 `json:"handles_open"`
	HandlesFound  uint64 `json:"handles_found"`
	HandlesOpened uint64 `json:"handles_opened"`
	// DirLoads is how often a directory of the layers was read to know all its names.
	DirLoads uint64 `json:"directory_loads"`
	// PrefetchedReads is how many READs found their data in memory.
	PrefetchedReads uint64 `json:"prefetched_reads"`
}

// Process is what the daemon uses. A number that could not be read is 0.
type Process struct {
	OpenDescriptors uint64 `json:"open_descriptors"`
	ResidentBytes   uint64 `json:"resident_bytes"`
	HeapBytes       uint64 `json:"heap_bytes"`
	Goroutines      uint64 `json:"goroutines"`
}
