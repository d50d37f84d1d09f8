package conn

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs/conn/readers"
	"github.com/fuse-overlay/fuse-overlay/fs/conn/wire"
	"github.com/fuse-overlay/fuse-overlay/internal/host"
)

// Mount is a mount that a connection serves.
type Mount struct {
	conn      *Conn
	cfg       MountConfig
	traits    Traits
	given     bool // another process has mounted the device, and unmounts it
	maxWrite  int
	writeback bool          // the kernel collects writes
	place     host.Place    // zero: not known
	dev       *host.Device  // closed when the connection ends
	done      chan struct{} // closed when the mount is gone
	cut       func() error  // ends the connection; set by Serve
}

// background is how many requests of its own (read-ahead, write-back) the kernel keeps under way.
// If so many hang on a layer that does not answer, reads and writes through the page cache hang for
// all processes. So it is larger than the number of readers. The mounts of an ordinary user get
// what the kernel derives from the machine's memory (max_user_bgreq).
const background = 1024

// devFD begins the mount points that are descriptors.
const devFD = "/dev/fd/"

// DeviceFD is the N of a mount point /dev/fd/N: a FUSE device that somebody else has opened and mounted.
func DeviceFD(point string) (fd int, ok bool) {
	number, ok := strings.CutPrefix(point, devFD)
	if !ok {
		return 0, false
	}
	fd, err := strconv.Atoi(number)
	return fd, err == nil && fd >= 0
}

// mountProgram mounts and unmounts for who may not; it is set-user-id root. mountProgramDir is where it lies if PATH does
// not tell: mount(8) empties the environment when it works for an ordinary user (option user of fstab).
const (
	mountProgram    = "fusermount3"
	mountProgramDir = "/bin"
)

// MountProgram is the path of the program that mounts for ordinary users, or an error that says what is missing.
func MountProgram() (string, error) { return findMountProgram(mountProgramDir) }

func findMountProgram(otherwise string) (string, error) {
	path, err := exec.LookPath(mountProgram)
	if err == nil {
		return path, nil
	}
	if path, err := exec.LookPath(filepath.Join(otherwise, mountProgram)); err == nil {
		return path, nil
	}
	return "", fmt.Errorf("mounting as an ordinary user needs the program %s of the package fuse3: %w", mountProgram, errors.Unwrap(err))
}

// mountFlags are the flags of mount(2) by the names that fusermount3 takes.
var mountFlags = []struct {
	flag uintptr
	name string
}{
	{unix.MS_RDONLY, "ro"}, {unix.MS_NOSUID, "nosuid"}, {unix.MS_NODEV, "nodev"}, {unix.MS_NOEXEC, "noexec"},
	{unix.MS_NOATIME, "noatime"}, {unix.MS_SYNCHRONOUS, "sync"}, {unix.MS_DIRSYNC, "dirsync"},
}

// Attach makes a mount for a file system with such traits. Nothing serves it before [Mount.Serve].
func (c *Conn) Attach(cfg MountConfig, t Traits) (*Mount, error) {
	if !t.Writable {
		cfg.Flags |= unix.MS_RDONLY
	}
	_, given := DeviceFD(cfg.Point)
	cfg.Direct = cfg.Direct && !given
	m := &Mount{
		conn: c, cfg: cfg, traits: t, given: given, maxWrite: c.cfg.maxWrite(), writeback: c.chooseWriteback(t),
		done: make(chan struct{}),
	}
	err := cfg.Namespace.Do(func() (err error) {
		m.dev, err = attach(cfg, m.maxWrite)
		return err
	})
	if err != nil {
		return nil, mountError(cfg.Point, err)
	}
	if given {
		return m, nil
	}
	m.place, err = cfg.Namespace.PlaceOf(cfg.Point)
	if err != nil && m.apart() { // without, it could not be unmounted later
		m.dev.Close()
		return nil, errors.Join(mountError(cfg.Point, err), cfg.Namespace.Do(func() error { return host.Detach(cfg.Point) }))
	}
	return m, nil
}

// apart reports whether the mount was made in another mount namespace than this process's.
func (m *Mount) apart() bool { return m.cfg.Namespace != nil }

// Serve begins to serve the mount with fsys. It returns when the mount answers. After an error, [Mount.Abandon] is to be called.
func (m *Mount) Serve(fsys FileSystem) error {
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

// Abandon unmounts a mount that cannot be served, if this process has made it.
func (m *Mount) Abandon() error {
	if m.cut == nil {
		m.dev.Close()
	}
	if m.given {
		return nil
	}
	return m.Unmount()
}

// RaiseReadAhead makes the kernel read ahead as much as one request can have, where this process may set that.
func (m *Mount) RaiseReadAhead() {
	if !m.cfg.Direct {
		return
	}
	err := m.cfg.Namespace.Do(func() error { return host.SetReadAhead(m.cfg.Point, m.maxWrite) })
	m.conn.log.Debug("read-ahead", zap.Int("bytes", m.maxWrite), zap.Error(err))
}

// Place is where the mount is; zero: not known.
func (m *Mount) Place() host.Place { return m.place }

// Done is closed when the mount is gone.
func (m *Mount) Done() <-chan struct{} { return m.done }

// defaultPermissions has the kernel check permissions.
const defaultPermissions = "default_permissions"

// attach makes the mount. Nobody serves it yet.
func attach(m MountConfig, maxWrite int) (*host.Device, error) {
	if fd, ok := DeviceFD(m.Point); ok {
		return host.AdoptDevice(fd)
	}
	options := []string{defaultPermissions, fmt.Sprintf("max_read=%d", maxWrite)}
	if m.AllowOther {
		options = append(options, "allow_other")
	}
	if m.Context != "" && host.HasSELinux() { // elsewhere the kernel would refuse the option
		options = append(options, `context="`+strings.ReplaceAll(m.Context, `"`, "")+`"`)
	}
	if m.Direct {
		return attachDirectly(m, options)
	}
	for _, f := range mountFlags {
		if m.Flags&f.flag != 0 {
			options = append(options, f.name)
		}
	}
	escape := strings.NewReplacer(`\`, `\\`, ",", `\,`)
	options = append(options, "fsname="+escape.Replace(m.Source), "subtype="+escape.Replace(m.Type))
	program, err := MountProgram()
	if err != nil {
		return nil, err
	}
	return host.MountByHelper(program, m.Point, strings.Join(options, ","), m.HelperOutput)
}

// attachDirectly calls mount(2) as fusermount3 does.
func attachDirectly(m MountConfig, options []string) (*host.Device, error) {
	dev, err := host.OpenDevice()
	if err != nil {
		return nil, err
	}
	options = append(options, fmt.Sprintf("rootmode=%o,user_id=%d,group_id=%d", unix.S_IFDIR, os.Geteuid(), os.Getegid()))
	if err := dev.Mount(m.Source, m.Point, "fuse."+m.Type, m.Flags, strings.Join(options, ",")); err != nil {
		dev.Close()
		return nil, err
	}
	return dev, nil
}

// connect answers INIT and returns what serves the connection until it ends.
func (m *Mount) connect(fsys FileSystem) (serve func(), err error) {
	c := m.conn
	fd, err := m.dev.Dup()
	if err != nil {
		return nil, err
	}
	opts := &fuse.MountOptions{
		MaxBackground:            background,
		MaxWrite:                 m.maxWrite,
		Debug:                    m.cfg.Debug,
		Logger:                   zap.NewStdLog(c.log),
		EnableSymlinkCaching:     !m.traits.Changing,
		ExplicitDataCacheControl: !m.traits.Changing, // else another size or mtime drops the pages (FUSE_AUTO_INVAL_DATA)
		DisableReadDirPlus:       m.traits.Changing,
		EnableAcl:                m.traits.ACL,
		ExtraCapabilities:        m.capabilities(),
		DisabledCapabilities:     m.unwanted(),
		// The kernel maps ids (FUSE_ALLOW_IDMAP) only where it checks permissions, and ends the connection otherwise.
		// A device that another process has mounted may have any options.
		Options:       []string{defaultPermissions},
		IDMappedMount: !m.given,
		PanicHandler:  c.Panicked,
	}
	served := &served{fsys, m}
	server, err := fuse.NewServer(served, devFD+strconv.Itoa(fd), opts)
	if err != nil {
		return nil, err
	}
	if err := m.dev.SetNonblock(); err != nil {
		return nil, err
	}
	m.cut = func() error { return m.dev.Cut(fd) }
	workers := WorkerConfig{
		FileSystem: fsys, Device: m.dev, Rest: protocol(served, opts, server.KernelSettings()), MaxWrite: m.maxWrite,
		RestOnly: m.cfg.Debug,
	}
	newWorker := func() readers.Worker { return c.NewWorker(workers) }
	c.pool = readers.New(m.dev, newWorker, host.Yield)
	c.pool.Tell(c.idle.ask)
	c.pool.Meanwhile(func() (done bool) {
		defer func() {
			if v := recover(); v != nil {
				_ = c.Panicked(v)
			}
		}()
		return fsys.Idle()
	})
	if c.cfg.NoSpin {
		c.pool.DisableSpin()
	}
	return func() {
		if err := c.pool.Run(); err != unix.ENODEV {
			c.log.Warn("the connection to the kernel has ended", zap.Error(err))
		}
		m.dev.Close()
		server.Serve() // finds the connection ended, and closes its descriptor
	}, nil
}

// served is the file system as go-fuse has it.
type served struct {
	FileSystem
	mount *Mount
}

// Init is called by go-fuse when the kernel has sent INIT.
func (s *served) Init(server *fuse.Server) {
	s.Connected(s.mount.policy(server.KernelSettings()), server)
}

// protocol is go-fuse's decoder of single requests, which is given what was settled by INIT.
func protocol(fsys fuse.RawFileSystem, opts *fuse.MountOptions, settled *fuse.InitIn) *fuse.ProtocolServer {
	p := fuse.NewProtocolServer(fsys, opts)
	init := *settled
	init.Opcode, init.Length = uint32(wire.OpInit), uint32(wire.SizeOf(&init))
	p.HandleRequest([][]byte{wire.Bytes(&init)}, [][]byte{make([]byte, wire.PageSize)})
	return p
}

// Quietly calls f, which enters the mount that this process itself serves, with no garbage collection under way or to
// come. A thread that enters its system call just when the world is being stopped can be missed (fs/conn/readers says why), and
// f's does not return before the request that it makes is answered, which the stopped threads cannot do: seen as a mount that
// hung for a minute.
func Quietly(f func() error) error {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // waits for the end of the one that may be under way
	return f()
}

func mountError(point string, err error) error {
	if errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("mount point %q is busy", point)
	}
	return fmt.Errorf("mount point %q: %w", point, err)
}

// Cut ends the connection to the kernel, for a process that ends. Requests under way may hang in a layer that does not answer, and
// a thread in such a call keeps the process's descriptors open, and with them the users of the mount waiting, until it returns.
func (m *Mount) Cut() error { return m.cut() }

// Wait returns when the mount is gone.
func (m *Mount) Wait() { <-m.done }

// Unmount writes back what the kernel keeps and takes the mount out of the tree; one that is in use is detached. It does
// not wait for the mount's users, there or in other mount namespaces, to go.
func (m *Mount) Unmount() error { return Quietly(m.unmount) }

func (m *Mount) unmount() error {
	if !m.apart() {
		return m.unmountAt(m.cfg.Point)
	}
	// In a namespace without a process no path leads to the mount.
	_, err := m.place.Visit(func(mounts []host.MountEntry) error {
		point := m.place.Point(mounts)
		if point == "" { // it has left that namespace already
			return nil
		}
		return m.unmountAt(point)
	})
	return err
}

func (m *Mount) unmountAt(point string) error {
	if err := host.SyncMount(point); err != nil {
		return fmt.Errorf("mount point %q: cannot write back: %w", point, err)
	}
	if m.cfg.Direct {
		err := host.Unmount(point)
		if errors.Is(err, unix.EBUSY) {
			err = host.Detach(point)
		}
		return err
	}
	if err := fusermount("-u", point); err == nil {
		return nil
	}
	return Detach(point, false)
}

// Detach takes the mount at point out of the tree at once, even while it is in use; direct: by umount2(2), which takes
// CAP_SYS_ADMIN.
func Detach(point string, direct bool) error {
	if direct {
		return host.Detach(point)
	}
	return fusermount("-u", "-z", point)
}

func fusermount(args ...string) error {
	program, err := MountProgram()
	if err != nil {
		return err
	}
	out, err := exec.Command(program, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", mountProgram, err, strings.TrimSpace(string(out)))
	}
	return nil
}
