package fs

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/host"
	"github.com/fuse-overlay/fuse-overlay/internal/readers"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// Mount is an attached overlay.
type Mount struct {
	overlay *Overlay
	point   string
	direct  bool
	apart   bool          // it was made in another mount namespace than this process's
	place   host.Place    // zero: not known
	done    chan struct{} // closed when the mount is gone
	handing sync.Mutex    // held by HandOver
}

// defaultMaxWrite is the largest request that Linux takes without further settings (FUSE_MAX_MAX_PAGES).
const defaultMaxWrite = 1 << 20

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

// Mount attaches the overlay and serves it. It returns when the mount answers.
func (o *Overlay) Mount(m MountConfig) (*Mount, error) {
	if !o.stack.Writable() {
		m.Flags |= unix.MS_RDONLY
	}
	_, given := DeviceFD(m.Point) // mounted by somebody else, who also unmounts it
	direct := m.Direct && !given
	maxWrite := o.cfg.MaxWrite
	if maxWrite == 0 {
		maxWrite = defaultMaxWrite
	}
	o.chooseWriteback()
	if err := checkDescriptors(m.Passing); err != nil {
		return nil, err
	}
	var dev *host.Device
	err := m.Namespace.Do(func() (err error) {
		dev, err = attach(m, direct, o.selinux, maxWrite)
		return err
	})
	if err != nil {
		return nil, mountError(m.Point, err)
	}
	mounted := &Mount{overlay: o, point: m.Point, direct: direct, apart: m.Namespace != nil, done: make(chan struct{})}
	if !given {
		mounted.place, err = m.Namespace.PlaceOf(m.Point)
		if err != nil && mounted.apart { // without, it could not be unmounted later
			dev.Close()
			return nil, errors.Join(mountError(m.Point, err), m.Namespace.Do(func() error { return host.Detach(m.Point) }))
		}
	}
	fail := func(err error) (*Mount, error) {
		if !given {
			err = errors.Join(err, mounted.Unmount())
		}
		return nil, err
	}
	serve, err := o.prepare(dev, m, given, maxWrite)
	if err != nil {
		dev.Close()
		return fail(err)
	}
	go func() {
		serve()
		close(mounted.done)
	}()
	if o.cfg.CacheInodes > 0 {
		go o.prune(o.server, mounted.done)
	}
	if o.cfg.passthrough() { // only a mount can tell whether it can be had
		if err := o.checkPassthrough(); err != nil {
			_, err = fail(err)
			return nil, errors.Join(err, o.unmarkVolatile())
		}
	}
	o.stack.Publish(sys.Self(mounted.place))
	if direct {
		err := m.Namespace.Do(func() error { return host.RaiseReadAhead(m.Point, maxWrite) })
		o.log.Debug("read-ahead", zap.Int("bytes", maxWrite), zap.Error(err))
	}
	return mounted, nil
}

// defaultPermissions has the kernel check permissions.
const defaultPermissions = "default_permissions"

// attach makes the mount. Nobody serves it yet.
func attach(m MountConfig, direct, selinux bool, maxWrite int) (*host.Device, error) {
	if fd, ok := DeviceFD(m.Point); ok {
		return host.AdoptDevice(fd)
	}
	options := []string{defaultPermissions, fmt.Sprintf("max_read=%d", maxWrite)}
	if m.AllowOther {
		options = append(options, "allow_other")
	}
	if m.Context != "" && selinux { // elsewhere the kernel would refuse the option
		options = append(options, `context="`+strings.ReplaceAll(m.Context, `"`, "")+`"`)
	}
	if direct {
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
	return host.MountByHelper(program, m.Point, strings.Join(options, ","))
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

// prepare is connect, after the work directory says that the mount is volatile, if it is.
func (o *Overlay) prepare(dev *host.Device, m MountConfig, given bool, maxWrite int) (serve func(), err error) {
	if o.marksVolatile() {
		if err := o.stack.MarkVolatile(); err != nil {
			return nil, err
		}
	}
	serve, err = o.connect(dev, m, given, maxWrite)
	if err != nil {
		return nil, errors.Join(mountError(m.Point, err), o.unmarkVolatile())
	}
	return serve, nil
}

func (o *Overlay) marksVolatile() bool { return o.cfg.Volatile && o.stack.Writable() }

// unmarkVolatile is for a mount that has not come to be.
func (o *Overlay) unmarkVolatile() error {
	if !o.marksVolatile() {
		return nil
	}
	return o.stack.UnmarkVolatile()
}

// connect answers INIT and returns what serves the connection until it ends. given: somebody else has mounted it, with who
// knows what options.
func (o *Overlay) connect(dev *host.Device, m MountConfig, given bool, maxWrite int) (serve func(), err error) {
	fd, err := dev.Dup()
	if err != nil {
		return nil, err
	}
	o.cut = func() error { return dev.Cut(fd) }
	opts := &fuse.MountOptions{
		MaxBackground:            background,
		MaxWrite:                 maxWrite,
		Debug:                    m.Debug,
		Logger:                   zap.NewStdLog(o.log),
		EnableSymlinkCaching:     !o.cfg.LayersChange,
		ExplicitDataCacheControl: !o.cfg.LayersChange, // else another size or mtime drops the pages (FUSE_AUTO_INVAL_DATA)
		DisableReadDirPlus:       o.cfg.LayersChange,
		EnableAcl:                !o.cfg.NoACL && !o.cfg.NoXattrs,
		ExtraCapabilities:        o.capabilities(),
		DisabledCapabilities:     o.unwanted(),
		// The kernel maps ids (FUSE_ALLOW_IDMAP) only where it checks permissions, and ends the connection otherwise.
		Options:       []string{defaultPermissions},
		IDMappedMount: !given,
		PanicHandler:  o.panicked,
	}
	server, err := fuse.NewServer(o, devFD+strconv.Itoa(fd), opts)
	if err != nil {
		return nil, err
	}
	if err := dev.SetNonblock(); err != nil {
		return nil, err
	}
	rest := protocol(o, opts, server.KernelSettings())
	newWorker := func() readers.Worker { return o.newWorker(dev, rest, maxWrite, m.Debug) }
	o.pool = readers.New(dev, newWorker, host.Yield)
	o.pool.Tell(o.pace)
	o.pool.Meanwhile(o.meanwhile)
	if o.cfg.Disabled.has(SpinningReader) {
		o.pool.DisableSpin()
	}
	o.helped = runtime.GOMAXPROCS(0) > 1 && !o.cfg.Disabled.has(SecondThread)
	return func() {
		if err := o.pool.Run(); err != unix.ENODEV {
			o.log.Warn("the connection to the kernel has ended", zap.Error(err))
		}
		dev.Close()
		server.Serve() // finds the connection ended, and closes its descriptor
	}, nil
}

// protocol is go-fuse's decoder of single requests, told what was settled by INIT.
func protocol(o *Overlay, opts *fuse.MountOptions, settled *fuse.InitIn) *fuse.ProtocolServer {
	p := fuse.NewProtocolServer(o, opts)
	init := *settled
	init.Opcode, init.Length = codeInit, uint32(sizeOf(&init))
	p.HandleRequest([][]byte{unsafe.Slice((*byte)(unsafe.Pointer(&init)), sizeOf(&init))}, [][]byte{make([]byte, pageSize)})
	return p
}

// Quietly calls f, which enters the mount that this process itself serves, with no garbage collection under way or to
// come. A thread that enters its system call just when the world is being stopped can be missed (internal/readers says why), and
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
func (m *Mount) Cut() error { return m.overlay.cut() }

// Wait returns when the mount is gone.
func (m *Mount) Wait() { <-m.done }

// Unmount writes back what the kernel keeps and takes the mount out of the tree; one that is in use is detached. It does
// not wait for the mount's users, there or in other mount namespaces, to go.
func (m *Mount) Unmount() error { return Quietly(m.unmount) }

func (m *Mount) unmount() error {
	if !m.apart {
		return m.unmountAt(m.point)
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
	if m.direct {
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
