package journal

import (
	"fmt"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/fuse-overlay/fuse-overlay/internal/lock"
)

// Journal is a journal in shared memory. Any number of goroutines may call its methods.
type Journal struct {
	mem  []byte
	head *header

	mu          lock.Mutex[lock.Leaf] // guards the rest, and all of the memory but the areas in use
	byID        map[uint64]uint32     // the number of each node's entry
	freeNodes   []uint32
	freeRecords [2][]uint32 // short ones, long ones
	freeAreas   []uint32
}

// New begins a journal in memory of [Size] zeroes.
func New(mem []byte) *Journal {
	j := open(mem)
	j.head.version = Version
	j.head.records, j.head.long = 1, 1 // 0 is no record
	return j
}

func open(mem []byte) *Journal {
	return &Journal{mem: mem, head: (*header)(unsafe.Pointer(&mem[headerAt])), byID: map[uint64]uint32{}}
}

// Load opens the journal of a process that has ended.
func Load(mem []byte) (*Journal, error) {
	if len(mem) != Size {
		return nil, fmt.Errorf("the journal has %d bytes, not %d: it is one of another version", len(mem), Size)
	}
	j := open(mem)
	if j.head.magic != magic || j.head.version != Version {
		return nil, fmt.Errorf("the journal has version %d, this program knows version %d", j.head.version, Version)
	}
	return j, nil
}

// SetSetup stores what the next process needs to know of the mount, and completes the journal.
func (j *Journal) SetSetup(setup []byte) error {
	if len(setup) > setupSize {
		return fmt.Errorf("the setup has %d bytes, more than %d", len(setup), setupSize)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	copy(j.mem[setupAt:], setup)
	j.head.setupLength = uint32(len(setup))
	atomic.StoreUint32(&j.head.magic, magic)
	return nil
}

// Setup returns what SetSetup has stored.
func (j *Journal) Setup() []byte { return j.mem[setupAt : setupAt+int(j.head.setupLength)] }

// End keeps any process from taking over: the mount is gone.
func (j *Journal) End() { atomic.StoreUint32(&j.head.ended, 1) }

// Upgrade lets the next process run the program that lies under the name of this one.
func (j *Journal) Upgrade() { atomic.StoreUint32(&j.head.newProgram, 1) }

const (
	// shortLife is a life after which a death counts, and maxDeaths how many may follow each other.
	shortLife = 20 * time.Millisecond
	maxDeaths = 20
)

// Begin notes that a process takes over. The error is that of a mount whose processes die again and
// again: a request may be the reason.
func (j *Journal) Begin(now time.Time) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if now.UnixNano()-j.head.started < int64(shortLife) {
		j.head.deaths++
	} else {
		j.head.deaths = 0
	}
	if j.head.deaths > maxDeaths {
		return fmt.Errorf("%d processes in a row have died within %v", j.head.deaths, shortLife)
	}
	return nil
}

// Token returns a number that no other process of the mount has.
func (j *Journal) Token() uint32 { return atomic.AddUint32(&j.head.tokens, 1) }

// Serve notes that this process serves, whose token it is.
func (j *Journal) Serve(token uint32, now time.Time) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.head.started = now.UnixNano()
	atomic.StoreUint32(&j.head.serving, token)
	atomic.StoreUint32(&j.head.newProgram, 0)
}

// Keep makes the next process inherit a descriptor, until Release.
func (j *Journal) Keep(fd int) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.keepLocked(fd)
}

func (j *Journal) keepLocked(fd int) error {
	if fd < 0 || fd >= KeptBytes*8 {
		return fmt.Errorf("descriptor %d is too large for the journal", fd)
	}
	*j.keptWord(fd) |= 1 << (fd % 64)
	return nil
}

func (j *Journal) releaseLocked(fd int) {
	if fd >= 0 && fd < KeptBytes*8 {
		*j.keptWord(fd) &^= 1 << (fd % 64)
	}
}

func (j *Journal) keptWord(fd int) *uint64 {
	return (*uint64)(unsafe.Pointer(&j.mem[keptAt+fd/64*8]))
}

func (j *Journal) node(i uint32) *node {
	return (*node)(unsafe.Pointer(&j.mem[nodesAt+int(i)*int(unsafe.Sizeof(node{}))]))
}

// record returns the memory of a record.
func (j *Journal) record(i uint32) (*recordHead, []byte) {
	at, size := recordAt+int(i)*recordSize, recordSize
	if i&isLong != 0 {
		at, size = longAt+int(i&^isLong)*longSize, longSize
	}
	return (*recordHead)(unsafe.Pointer(&j.mem[at])), j.mem[at+headSize : at+size : at+size]
}
