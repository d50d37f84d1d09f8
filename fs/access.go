package fs

import (
	"sync/atomic"

	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/inodecache"
	"github.com/fuse-overlay/fuse-overlay/internal/lock"
)

// access leads from nodes to their objects in the layers: by name, by descriptors that are kept
// open, and by what the daemon knows of directories. It knows nothing of requests.
type access struct {
	stack        *stack.Stack
	root         *Node                              // immutable
	nodes        *inodecache.Table[*Node]           // what the kernel may refer to
	handles      *inodecache.LRU[handleKey, handle] // what is kept open
	parts        int                                // of one directory that a request keeps open; immutable
	layersChange bool                               // [Config.LayersChange]; immutable
	journal      *nodeJournal                       // nil without Config.Journal; immutable while served

	walked   atomic.Pointer[Node] // if layers change: the directory whose parts were looked up last
	dirLoads atomic.Uint64        // directories that were read for their name tables
	listed   atomic.Int64         // names in the name tables of all nodes, see countNames

	// movesMu is held while a directory moves in the upper. It is held over calls on the upper, never
	// over one on a lower. A goroutine that holds it may hold the mu of directories that do not lie in
	// one another, see lockDirs.
	movesMu lock.Mutex[lock.Moves]
	moves   atomic.Uint32 // odd while a directory moves; changes with movesMu held
}
