package main

import (
	"bytes"
	"fmt"
	"os"
	"syscall"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs"
	"github.com/fuse-overlay/fuse-overlay/fs/conn"
	"github.com/fuse-overlay/fuse-overlay/fs/conn/lossprobe"
	"github.com/fuse-overlay/fuse-overlay/internal/host"
	"github.com/fuse-overlay/fuse-overlay/internal/message"
	"github.com/fuse-overlay/fuse-overlay/internal/version"
)

// attach makes the mount of a request, and returns when it answers. After an apartError the
// namespace of the caller is still open.
func attach(req *request, log *zap.Logger) (*attached, error) {
	if err := prepareProcess(); err != nil {
		return nil, err
	}
	req.fitMemory()
	namespace := req.mount.Namespace
	if namespace != nil {
		if err := host.MakePrivate(); err != nil {
			return nil, &apartError{err}
		}
	}
	if err := namespace.Do(req.checkMountable); err != nil {
		return nil, err
	}
	req.overlay.Log = log
	sv, err := req.prepareSupervise(log)
	if err != nil {
		return nil, err
	}
	wait, abandon := startLossProbe(req, log)
	req.overlay.Conn.Loss = wait
	failed := true
	defer func() {
		if failed {
			abandon()
		}
	}()
	c := prepareConfinement(req, log)
	overlay, err := fs.Open(req.overlay)
	if err != nil {
		return nil, req.explainColons(err)
	}
	s := &starting{req: req, log: log, overlay: overlay, confinement: c, root: unservedRoot{point: req.mount.Point}, probed: wait}
	s.control = prepareControl(req, overlay, log)
	m, err := s.mount()
	if err != nil {
		s.root.close()
		s.control.close()
		overlay.Close()
		c.close()
		return nil, err
	}
	a := &attached{mount: m, counts: overlay.Counts, close: overlay.Close, log: log, control: s.control, confinement: c, supervised: sv}
	if s.root.external() {
		a.mount = mountOfOthers{m}
	}
	if err := conn.Quietly(s.root.check); err != nil {
		a.detach()
		return nil, err
	}
	failed = false
	s.control.serve()
	if err := sv.begin(m, s.control); err != nil {
		a.detach()
		return nil, err
	}
	logMounted(req, overlay, c, log)
	return a, nil
}

// starting is a mount whose layers are open.
type starting struct {
	req         *request
	log         *zap.Logger
	overlay     *fs.Overlay
	control     *controlled
	confinement *confinement
	root        unservedRoot
	probed      func() lossprobe.Result // waits for the probe for lost appends; nil: there is none
}

// mount makes the mount and serves it. After an error nothing is mounted.
func (s *starting) mount() (*fs.Mount, error) {
	if err := s.req.leaveMounts(); err != nil {
		return nil, err
	}
	s.req.mount.Attached = s.attached
	return mountAndListen(s.overlay, s.req.mount, s.log)
}

// attached does what the daemon may not do once it is confined, and confines it. The mount is not
// served yet.
func (s *starting) attached(m *conn.Mount) error {
	namespace := s.req.mount.Namespace
	if err := s.root.open(namespace); err != nil {
		return err
	}
	if s.probed != nil {
		s.probed()
	}
	s.control.listen(m.Place())
	namespace.Close() // from now on it lasts as long as others use it
	s.confinement.confine(m, s.overlay)
	return nil
}

// logMounted logs one line about what the mount has found and decided.
func logMounted(req *request, overlay *fs.Overlay, c *confinement, log *zap.Logger) {
	if !log.Core().Enabled(zap.InfoLevel) { // the report costs system calls, and the log would drop it
		return
	}
	fields := []zap.Field{zap.String("version", version.String()), zap.String("mount point", req.mount.Point)}
	fields = append(fields, overlay.Report()...)
	fields = append(fields, zap.String("sandbox", c.result))
	if len(req.notes) > 0 {
		fields = append(fields, zap.Strings("notes", req.notes))
	}
	log.Info("mounted", fields...)
}

// mountOfOthers is a mount point /dev/fd/N. The process that has mounted it knows where, and
// unmounts it.
type mountOfOthers struct{ *fs.Mount }

func (mountOfOthers) Unmount() error { return nil }

func (mountOfOthers) HandOver() {}

// prepareProcess sets umask, limits and the dumpable flag of the process. The daemon of a plain
// user stays dumpable: it has no right that other processes of this user lack, and the commands
// read its files in /proc.
func prepareProcess() error {
	// The umask of the client is already applied to the modes in requests.
	syscall.Umask(0)
	// The Go runtime raises the limit only to one below the hard limit. If this fails, the caches
	// are smaller.
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err == nil {
		limit.Cur = limit.Max
		_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
	}
	if os.Geteuid() != 0 {
		return nil
	}
	return host.RefuseTracing()
}

// unservedRoot is the root directory of a mount that is not served yet. It is opened while the
// daemon may enter the namespace of the mount.
type unservedRoot struct {
	point string
	dir   *host.Point // nil: it is not open
}

// external reports whether the mount is one of another process, which knows where it is.
func (r *unservedRoot) external() bool {
	_, ok := conn.DeviceFD(r.point)
	return ok
}

func (r *unservedRoot) open(n *host.MountNamespace) error {
	if r.external() {
		return nil
	}
	var dir host.Point
	err := n.Do(func() (err error) {
		dir, err = host.OpenPoint(r.point)
		return err
	})
	if err != nil {
		return fmt.Errorf("the mount on %q does not answer: %w", r.point, err)
	}
	r.dir = &dir
	return nil
}

// close closes the directory, which keeps the mount in use.
func (r *unservedRoot) close() {
	if r.dir != nil {
		r.dir.Close()
		r.dir = nil
	}
}

// check checks that the mount, which is served now, answers, and closes its root. It brings the
// attributes of the root into the kernel's cache, so the first client does not wait for them.
func (r *unservedRoot) check() error {
	if r.dir == nil {
		return nil
	}
	defer r.close()
	kind, err := r.dir.Type()
	if err != nil {
		return fmt.Errorf("the mount on %q does not answer: %w", r.point, err)
	}
	if kind != unix.FUSE_SUPER_MAGIC {
		return fmt.Errorf("the mount on %q cannot be seen there", r.point)
	}
	if err := r.dir.Request(); err != nil {
		return fmt.Errorf("the mount on %q does not return its attributes: %w", r.point, err)
	}
	return nil
}

// mountAndListen makes what fusermount3 writes to stderr part of the error, or of the log if it was
// a warning only.
func mountAndListen(overlay *fs.Overlay, mount conn.MountConfig, log *zap.Logger) (*fs.Mount, error) {
	mount.Passing = 1 // the pipe to the parent
	if mount.Namespace != nil {
		mount.Passing += host.NamespaceDescriptors
	}
	if mount.Direct {
		return overlay.Mount(mount)
	}
	var output bytes.Buffer
	mount.HelperOutput = &output
	mount.Passing += 2 // its pipe
	m, err := overlay.Mount(mount)
	said := message.OneLine(output.String())
	switch {
	case said == "":
		return m, err
	case err != nil:
		// The helper opens the device with the user's rights, and its message does not name the
		// device.
		if err := checkDeviceUsable(); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("mount point %q: %s", mount.Point, said) // the text has more than the exit code
	default:
		log.Warn("the mount differs from what was requested", zap.String("fusermount3", said))
		return m, nil
	}
}
