package conn

import (
	"bytes"
	"errors"
	"strconv"

	"github.com/hanwen/go-fuse/v2/fuse"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs/conn/readers"
	"github.com/fuse-overlay/fuse-overlay/fs/conn/wire"
	"github.com/fuse-overlay/fuse-overlay/internal/host"
)

// maxBackground is how many requests of its own (read-ahead, writeback) the kernel keeps under way.
// If so many hang on a layer that does not answer, reads and writes through the page cache hang for
// all processes. So it is larger than the number of readers. The mounts of a plain user get
// what the kernel derives from the machine's memory (max_user_bgreq).
const maxBackground = 1024

// Serve begins to serve the mount with fsys. It returns when the mount answers. After an error,
// call [Mount.Abandon].
func (m *Mount) Serve(fsys Handler) error {
	serve, err := m.connect(fsys)
	if err != nil {
		return mountError(m.cfg.Point, err)
	}
	go func() {
		serve()
		close(m.done)
	}()
	return nil
}

// errOtherInit is the error of a program that would have made another mount.
var errOtherInit = errors.New("this program would have agreed on other features with the kernel")

// connect answers INIT. It returns the function that serves the connection until it ends.
func (m *Mount) connect(fsys Handler) (serve func(), err error) {
	fd, err := m.dev.Dup()
	if err != nil {
		return nil, err
	}
	opts := m.initOptions()
	served := &served{fsys, m}
	server, err := m.newServer(served, fd, opts)
	if err == nil {
		err = checkProtocol(server.KernelSettings())
	}
	if err != nil {
		return nil, err
	}
	decoder, err := m.newDecoder(served, opts, server.KernelSettings())
	if err != nil {
		return nil, err
	}
	if err := m.dev.SetNonblock(); err != nil {
		return nil, err
	}
	m.cut = func() error { return m.dev.Cut(fd) }
	pool := m.newPool(WorkerConfig{
		Handler: fsys, Device: m.dev, MaxWrite: m.maxWrite, RestOnly: m.cfg.Debug, Rest: decoder,
		Journal: m.traits.Journal, resent: m.resent,
	})
	m.reconcile(fsys) // before a reader can be added
	m.conn.pool = pool
	return func() {
		if err := pool.Run(); err != unix.ENODEV {
			m.conn.log.Warn("the connection to the kernel has ended", zap.Error(err))
		}
		m.dev.Close()
		server.Serve() // finds the connection ended, and closes its descriptor
	}, nil
}

// initOptions are go-fuse's options for the reply to INIT.
func (m *Mount) initOptions() *fuse.MountOptions {
	return &fuse.MountOptions{
		MaxBackground:        maxBackground,
		MaxWrite:             m.maxWrite,
		Debug:                m.cfg.Debug,
		Logger:               zap.NewStdLog(m.conn.log),
		EnableSymlinkCaching: !m.traits.Changing,
		// Without it, the kernel drops the pages if size or mtime differ (FUSE_AUTO_INVAL_DATA).
		ExplicitDataCacheControl: !m.traits.Changing,
		DisableReadDirPlus:       m.traits.Changing,
		EnableAcl:                m.traits.ACL,
		ExtraCapabilities:        m.capabilities(),
		DisabledCapabilities:     m.unwantedCapabilities(),
		// The kernel maps ids (FUSE_ALLOW_IDMAP) only if it checks permissions. Otherwise it ends the
		// connection. The options of a mount of another process are not known.
		Options:       []string{defaultPermissions},
		IDMappedMount: !m.external,
		PanicHandler:  m.conn.Panicked,
	}
}

// newPool makes the readers of the mount.
func (m *Mount) newPool(workers WorkerConfig) *readers.Pool {
	c, fsys := m.conn, workers.Handler
	var device readers.Device = m.dev
	if m.resent != nil {
		device = &resentFirst{m.dev, m.resent}
	}
	pool := readers.New(device, func() readers.Worker { return c.NewWorker(workers) }, host.Yield)
	pool.OnPaceChange(c.idle.request)
	pool.OnIdle(func() (done bool) {
		defer func() {
			if v := recover(); v != nil {
				_ = c.Panicked(v)
			}
		}()
		return fsys.Idle()
	})
	pool.OnGrow(host.ReserveThreads)
	if c.cfg.NoSpin {
		pool.DisableSpin()
	}
	return pool
}

// served is the file system as go-fuse calls it.
type served struct {
	Handler
	mount *Mount
}

// Init is called by go-fuse when the kernel has sent INIT.
func (s *served) Init(server *fuse.Server) {
	s.Connected(s.mount.policy(server.KernelSettings()), server)
}

// newDecoder returns go-fuse's decoder of single requests. init is the result of INIT.
//
// If the process before has had another result, the mount cannot be served: the kernel keeps to it.
func (m *Mount) newDecoder(fsys fuse.RawFileSystem, opts *fuse.MountOptions, init *fuse.InitIn) (*fuse.ProtocolServer, error) {
	p := fuse.NewProtocolServer(fsys, opts)
	msg, out := *init, make([]byte, wire.PageSize)
	msg.Opcode, msg.Length = uint32(wire.OpInit), uint32(wire.SizeOf(&msg))
	n, _ := p.HandleRequest([][]byte{wire.Bytes(&msg)}, [][]byte{out})
	reply := out[wire.OutHeaderSize:max(n, wire.OutHeaderSize)]
	if m.initReply != nil && !bytes.Equal(m.initReply, reply) {
		return nil, errOtherInit
	}
	m.init, m.initReply = &msg, reply
	return p, nil
}

// newServer returns go-fuse's server on a descriptor of the connection, which has answered INIT.
func (m *Mount) newServer(fsys fuse.RawFileSystem, fd int, opts *fuse.MountOptions) (*fuse.Server, error) {
	if m.init == nil {
		return fuse.NewServer(fsys, devFD+strconv.Itoa(fd), opts)
	}
	// The kernel sends INIT once. The server gets the same INIT from a socket, which the connection
	// then replaces.
	msg := *m.init
	end, err := host.ReplaceByMessage(fd, wire.Bytes(&msg))
	if err != nil {
		return nil, err
	}
	defer end.Close()
	server, err := fuse.NewServer(fsys, devFD+strconv.Itoa(fd), opts)
	if err != nil {
		return nil, err
	}
	return server, m.dev.PutInPlaceOf(fd)
}
