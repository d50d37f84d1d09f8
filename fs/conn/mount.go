package conn

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/host"
)

// Mount is a mount that a connection serves.
type Mount struct {
	conn      *Conn
	cfg       MountConfig
	traits    Traits
	external  bool // another process has made the mount, and unmounts it
	maxWrite  int
	writeback writebackChoice
	place     host.Place      // zero: not known
	dev       *host.Device    // closed when the connection ends
	outside   Outside         // unmounts; nil: this process
	readAhead *host.ReadAhead // nil: it stays as it is
	done      chan struct{}   // closed when the mount is gone
	cut       func() error    // ends the connection; nil before Serve

	elsewhere bool         // the mount is in another mount namespace than this process
	init      *fuse.InitIn // what the kernel has sent; nil before Serve
	initReply []byte       // what it got
	resent    *resent      // requests that the process before has not answered; nil: this is the first
}

// devFD begins the mount points that are descriptors.
const devFD = "/dev/fd/"

// DeviceFD returns the N of a mount point /dev/fd/N: a FUSE device that another process has opened
// and mounted.
func DeviceFD(point string) (fd int, ok bool) {
	number, ok := strings.CutPrefix(point, devFD)
	if !ok {
		return 0, false
	}
	fd, err := strconv.Atoi(number)
	return fd, err == nil && fd >= 0
}

// Attach makes a mount for a file system with such traits. Nothing serves it before [Mount.Serve].
func (c *Conn) Attach(cfg MountConfig, t Traits) (*Mount, error) {
	if !t.Writable {
		cfg.Flags |= unix.MS_RDONLY
	}
	_, external := DeviceFD(cfg.Point)
	cfg.Direct = cfg.Direct && !external
	m := &Mount{
		conn: c, cfg: cfg, traits: t, external: external, maxWrite: c.cfg.maxWrite(),
		writeback: c.chooseWriteback(t), done: make(chan struct{}), elsewhere: cfg.Namespace != nil,
	}
	err := cfg.Namespace.Do(func() (err error) {
		m.dev, err = openDevice(cfg, m.maxWrite)
		return err
	})
	if err != nil {
		return nil, mountError(cfg.Point, err)
	}
	if external {
		return m, nil
	}
	m.place, err = cfg.Namespace.PlaceOf(cfg.Point)
	if err != nil && m.inOtherNamespace() { // the daemon could not unmount it later
		m.dev.Close()
		detach := func() error { return host.Detach(cfg.Point) }
		return nil, errors.Join(mountError(cfg.Point, err), cfg.Namespace.Do(detach))
	}
	return m, nil
}

// inOtherNamespace reports whether the mount is in another mount namespace than this process.
func (m *Mount) inOtherNamespace() bool { return m.elsewhere }

// Abandon ends a mount that cannot be served, and unmounts it if this process has made it.
func (m *Mount) Abandon() error {
	if m.readAhead != nil {
		m.readAhead.Close()
	}
	if m.cut == nil {
		m.dev.Close()
	}
	if m.external || m.resent != nil { // or the next attempt to take over may succeed
		return nil
	}
	return m.Unmount()
}

// PrepareReadAhead opens what [Mount.RaiseReadAhead] needs of the namespace of the mount.
func (m *Mount) PrepareReadAhead() {
	if !m.cfg.Direct {
		return
	}
	err := m.cfg.Namespace.Do(func() (err error) {
		m.readAhead, err = host.OpenReadAhead(m.cfg.Point)
		return err
	})
	if err != nil {
		m.conn.log.Debug("read-ahead", zap.Error(err))
	}
}

// RaiseReadAhead makes the kernel read ahead as much as one request can contain, if this process
// may set that. The reply to INIT lowers it, so it comes after that.
func (m *Mount) RaiseReadAhead() {
	if m.readAhead == nil {
		return
	}
	err := m.readAhead.Set(m.maxWrite)
	m.conn.log.Debug("read-ahead", zap.Int("bytes", m.maxWrite), zap.Error(err))
}

// Place is where the mount is in the tree; zero: not known.
func (m *Mount) Place() host.Place { return m.place }

// Done is closed when the mount is gone.
func (m *Mount) Done() <-chan struct{} { return m.done }

// Wait returns when the mount is gone.
func (m *Mount) Wait() { <-m.done }

// mountFlags are the flags of mount(2) by their names as options of fusermount3.
var mountFlags = []struct {
	flag uintptr
	name string
}{
	{unix.MS_RDONLY, "ro"}, {unix.MS_NOSUID, "nosuid"}, {unix.MS_NODEV, "nodev"}, {unix.MS_NOEXEC, "noexec"},
	{unix.MS_NOATIME, "noatime"}, {unix.MS_SYNCHRONOUS, "sync"}, {unix.MS_DIRSYNC, "dirsync"},
}

// defaultPermissions is the option by which the kernel checks permissions.
const defaultPermissions = "default_permissions"

// openDevice makes the mount, or takes over the device of one, and returns the device.
func openDevice(cfg MountConfig, maxWrite int) (*host.Device, error) {
	if fd, ok := DeviceFD(cfg.Point); ok {
		return host.AdoptDevice(fd)
	}
	options := []string{defaultPermissions, fmt.Sprintf("max_read=%d", maxWrite)}
	if cfg.AllowOther {
		options = append(options, "allow_other")
	}
	if cfg.Context != "" && host.HasSELinux() { // without SELinux the kernel refuses the option
		options = append(options, `context="`+strings.ReplaceAll(cfg.Context, `"`, "")+`"`)
	}
	if cfg.Direct {
		return mountDirectly(cfg, options)
	}
	for _, f := range mountFlags {
		if cfg.Flags&f.flag != 0 {
			options = append(options, f.name)
		}
	}
	escape := strings.NewReplacer(`\`, `\\`, ",", `\,`)
	options = append(options, "fsname="+escape.Replace(cfg.Source), "subtype="+escape.Replace(cfg.Type))
	program, err := host.MountProgram()
	if err != nil {
		return nil, err
	}
	return host.MountByHelper(program, cfg.Point, strings.Join(options, ","), cfg.HelperOutput)
}

// mountDirectly calls mount(2) as fusermount3 does.
func mountDirectly(cfg MountConfig, options []string) (*host.Device, error) {
	dev, err := host.OpenDevice()
	if err != nil {
		return nil, err
	}
	options = append(options,
		fmt.Sprintf("rootmode=%o,user_id=%d,group_id=%d", unix.S_IFDIR, os.Geteuid(), os.Getegid()))
	if err := dev.Mount(cfg.Source, cfg.Point, "fuse."+cfg.Type, cfg.Flags, strings.Join(options, ",")); err != nil {
		dev.Close()
		return nil, err
	}
	return dev, nil
}

func mountError(point string, err error) error {
	if errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("mount point %q is busy", point)
	}
	return fmt.Errorf("mount point %q: %w", point, err)
}
