package conn

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"go.uber.org/zap"

	"github.com/fuse-overlay/fuse-overlay/fs/conn/readers"
	"github.com/fuse-overlay/fuse-overlay/fs/conn/wire"
)

// FileSystem is what a connection serves. The requests that speed depends on are decoded by the connection, the others by
// go-fuse. All methods may be called concurrently, if they do not say otherwise.
type FileSystem interface {
	fuse.RawFileSystem

	// Connected is called once, after INIT and before any other request.
	Connected(p Policy, kernel *fuse.Server)
	// Gate is what requests pass that may change the file system.
	Gate() *Gate

	// ReadData answers READ: it fills buf, and returns how many bytes of data there are.
	ReadData(in *fuse.ReadIn, buf []byte) (int, fuse.Status)
	// ForgetAll answers BATCH_FORGET. list is valid during the call.
	ForgetAll(list []wire.Forget)
	// SyncFS answers SYNCFS, which go-fuse does not decode.
	SyncFS() fuse.Status

	// Failed is called after a request has failed and before its reply is sent. It returns whether the request is served once
	// more.
	Failed(r Request, status fuse.Status) (again bool)
	// Idle is called by a reader that finds no request. It does what may be of use for the next one, and reports whether there
	// was anything to do.
	Idle() (done bool)
}

// Request describes a request that has failed.
type Request struct {
	Op     wire.Opcode
	NodeID uint64
	// Name is that of a LOOKUP, UNLINK or RMDIR. It is valid during the call.
	Name []byte
	// Failures is how often the request has failed, 1 at least.
	Failures int
}

// Conn is a connection to the kernel, or one that is to be.
type Conn struct {
	cfg    Config
	log    *zap.Logger
	idle   idlePoll // immutable
	counts counter

	pool *readers.Pool // set by Mount.Serve, before any request is served
}

// New prepares a connection. An error is one line; then nothing has changed.
func New(cfg Config, log *zap.Logger) (*Conn, error) {
	idle, err := newIdlePoll(cfg.CPUIdle, log)
	if err != nil {
		return nil, err
	}
	return &Conn{cfg: cfg, log: log, idle: idle}, nil
}

// Close gives back what [New] has opened. The mount must be gone.
func (c *Conn) Close() { c.idle.close() }

// Counts returns how many requests of each kind have been served, by their names in linux/fuse.h without the prefix.
func (c *Conn) Counts() map[string]uint64 { return c.counts.snapshot() }

// IdleCPUs returns, for the log, what idle CPUs do while requests come fast, and why.
func (c *Conn) IdleCPUs() string {
	if c.idle.poll != nil {
		return "idle CPUs poll under load"
	}
	return "idle CPUs sleep: " + c.idle.sleepReason
}

// Slow is called by a request that may take long: another reader takes the requests that come meanwhile.
func (c *Conn) Slow() {
	if c.pool != nil {
		c.pool.Slow()
	}
}

// While calls f, which waits for other requests to be answered: then there is a reader for them.
func (c *Conn) While(f func()) {
	if c.pool == nil {
		f()
		return
	}
	c.pool.While(f)
}

// Panicked logs a panic in a goroutine that serves a request, and returns the status of that request. v is what recover has
// returned.
func (c *Conn) Panicked(v any) fuse.Status { return logPanic(c.log, v) }
