package conn

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"go.uber.org/zap"

	"github.com/fuse-overlay/fuse-overlay/fs/conn/readers"
	"github.com/fuse-overlay/fuse-overlay/fs/conn/wire"
)

// Handler serves the requests of a connection: the file system. The connection decodes the frequent
// requests itself, and go-fuse the others. Several goroutines call the methods concurrently.
type Handler interface {
	fuse.RawFileSystem

	// Connected is called once, after INIT and before any other request.
	Connected(p Policy, kernel *fuse.Server)
	// Gate returns the gate of the requests that may change the file system.
	Gate() *Gate

	// ReadData answers READ. It fills buf and returns how many bytes of data there are.
	ReadData(in *fuse.ReadIn, buf []byte) (int, fuse.Status)
	// ForgetAll answers BATCH_FORGET. list is valid during the call.
	ForgetAll(list []wire.Forget)
	// SyncFS answers SYNCFS, which go-fuse does not decode.
	SyncFS() fuse.Status

	// Reconcile notes what an interrupted request has changed already. It is called before any
	// request is served.
	Reconcile(r Redo)
	// Reconciled is called after the last Reconcile.
	Reconciled()
	// Child returns the ID of the node that a name of a directory leads to, if it has one.
	Child(parent uint64, name string) uint64
	// CreateAgain answers a CREATE whose file has been made already.
	CreateAgain(in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status

	// Failed is called when a request has failed, before the reply. It returns whether to serve the
	// request again.
	Failed(r Request, status fuse.Status) (again bool)
	// Idle is called by a reader that finds no request. It may prepare what a later request needs. It
	// returns whether there was anything to do.
	Idle() (done bool)
}

// Request describes a request that has failed.
type Request struct {
	Op     wire.Opcode
	NodeID uint64
	// Name is that of a LOOKUP, UNLINK or RMDIR. It is valid during the call.
	Name []byte
	// Failures is how often the request has failed, at least 1.
	Failures int
}

// Conn is a connection to the kernel. It exists before the mount.
type Conn struct {
	cfg    Config
	log    *zap.Logger
	idle   idlePoll // immutable
	counts counter

	latencies *latencies

	pool *readers.Pool // set by Mount.Serve, before any request is served; nil before
}

// New prepares a connection. An error is one line, and nothing has changed then.
func New(cfg Config, log *zap.Logger) (*Conn, error) {
	idle, err := newIdlePoll(cfg.CPUIdle, log)
	if err != nil {
		return nil, err
	}
	return &Conn{cfg: cfg, log: log, idle: idle, latencies: &latencies{}}, nil
}

// Close closes what [New] has opened. Precondition: the mount is gone.
func (c *Conn) Close() { c.idle.close() }

// Counts returns how many requests of each kind were served, by their names in linux/fuse.h without
// the prefix.
func (c *Conn) Counts() map[string]uint64 { return c.counts.snapshot() }

// IdleCPUs returns what idle CPUs do while requests come fast, and why, for the log.
func (c *Conn) IdleCPUs() string { return c.idle.decision }

// Slow is called by a request that may take long. Another reader takes the requests meanwhile.
func (c *Conn) Slow() {
	if c.pool != nil {
		c.pool.Slow()
	}
}

// While calls f, which waits until other requests are answered. There is a reader for them.
func (c *Conn) While(f func()) {
	if c.pool == nil {
		f()
		return
	}
	c.pool.While(f)
}

// Panicked logs a panic of a goroutine that serves a request, and returns the status of that
// request. v is the result of recover.
func (c *Conn) Panicked(v any) fuse.Status {
	c.log.Error("panic while serving a request", zap.Any("panic", v), zap.Stack("stack"))
	return fuse.EIO
}
