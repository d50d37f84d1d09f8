package journal

import "unsafe"

// Version is that of the layout, and of what the journal's setup and nodes mean. A program does not
// take over the journal of another version.
const Version = 1

// Sizes and places, in bytes. Memory that was never written takes no room.
const (
	page = 4096

	setupSize = 1 << 20
	// KeptBytes is the size of the bits of kept descriptors.
	KeptBytes = 1 << 17

	// maxAreas is more than there are readers of a connection at a time.
	maxAreas = 2048
	// areaRoom is the room for a request: the largest WRITE and its header.
	areaRoom = 1<<20 + page
	// maxGrants is how many entries a READDIRPLUS may return.
	maxGrants = 8000
	areaSize  = areaHead + areaRoom
	areaHead  = 64 << 10

	maxNodes   = 1 << 26
	maxRecords = 1 << 27
	maxLong    = 1 << 24

	headerAt = 0
	setupAt  = page
	keptAt   = setupAt + setupSize
	areasAt  = keptAt + KeptBytes
	nodesAt  = areasAt + maxAreas*areaSize
	recordAt = nodesAt + maxNodes*int(unsafe.Sizeof(node{}))
	longAt   = recordAt + maxRecords*recordSize
	// Size is that of the memory of a journal.
	Size = longAt + maxLong*longSize
)

// Offsets of words that the supervisor reads.
const (
	EndedAt      = headerAt + int(unsafe.Offsetof(header{}.ended))
	ServingAt    = headerAt + int(unsafe.Offsetof(header{}.serving))
	NewProgramAt = headerAt + int(unsafe.Offsetof(header{}.newProgram))
	KeptAt       = keptAt
)

// magic is the first word of a journal that is complete.
const magic = 0x6f766a6c

type header struct {
	magic, version uint32
	ended          uint32 // the mount is gone: no process takes over.
	newProgram     uint32 // the next process runs the program that lies under the old one's name.
	setupLength    uint32
	deaths         uint32 // processes in a row that died soon.
	started        int64  // when the last process began to serve, in Unix nanoseconds.
	serving        uint32 // the token of the process that served last.
	tokens         uint32 // as many were given.
	lastID         uint64 // the largest node id
	nodes          uint32 // as many entries of the node array were ever used
	records, long  uint32 // the same of both arrays of records
	areas          uint32
}

// node is an entry of the node array.
type node struct {
	id      uint64 // 0: free
	granted uint64 // references that the kernel has been sent
	record  uint32 // number of the record, never 0
	_       uint32
	_       uint64
}

const (
	recordSize = 128
	longSize   = 512
	// isLong is the bit of a record's number that selects the array of long ones.
	isLong = 1 << 31
)

// recordHead is the fixed part of a record. The name and the layers follow.
type recordHead struct {
	parent     uint64
	ino        uint64
	dev, inode uint64
	kind       uint32
	flags      uint32
	layer      int32
	fd         int32 // 0: none, else the descriptor and 1
	next       uint32
	nameLength uint16
	layers     uint16 // how many
}

const headSize = int(unsafe.Sizeof(recordHead{}))

// areaHeader is what a reader has noted of the request in its area.
type areaHeader struct {
	grants uint64 // entries of ids
	mark   uint64
	ids    [maxGrants]uint64
}

var _ [areaHead - int(unsafe.Sizeof(areaHeader{}))]byte // it fits
