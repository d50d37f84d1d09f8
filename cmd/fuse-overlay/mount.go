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
	"github.com/fuse-overlay/fuse-overlay/internal/host"
	"github.com/fuse-overlay/fuse-overlay/internal/message"
	"github.com/fuse-overlay/fuse-overlay/internal/version"
)

// attach makes the mount of a request, and returns when it answers. After an error, the caller's
// namespace is still open.
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
	wait, abandon := startLossProbe(req, log)
	req.overlay.Conn.Loss = wait
	failed := true
	defer func() {
		if failed {
			abandon()
		}
	}()
	overlay, err := fs.Open(req.overlay)
	if err != nil {
		return nil, req.explainColons(err)
	}
	control := prepareControl(req, overlay, log)
	if err := req.leaveMounts(); err != nil {
		control.close()
		overlay.Close()
		return nil, err
	}
	m, err := mountAndListen(overlay, req.mount, log)
	if err != nil {
		control.close()
		overlay.Close()
		return nil, err
	}
	control.mounted(m.Place())
	a := &attached{mount: m, counts: overlay.Counts, close: overlay.Close, log: log, control: control}
	if _, ok := conn.DeviceFD(req.mount.Point); ok {
		a.mount = mountOfOthers{m}
	} else {
		answers := func() error { return checkAnswers(req.mount.Point) }
		if err := conn.Quietly(func() error { return namespace.Do(answers) }); err != nil {
			a.detach()
			return nil, err
		}
	}
	failed = false
	control.listen()
	logMounted(req, overlay, log)
	namespace.Close() // from now on it lasts as long as others use it
	return a, nil
}

// logMounted logs one line about what the mount has found and decided.
func logMounted(req *request, overlay *fs.Overlay, log *zap.Logger) {
	if !log.Core().Enabled(zap.InfoLevel) { // the report costs system calls, and the log would drop it
		return
	}
	fields := []zap.Field{zap.String("version", version.String()), zap.String("mount point", req.mount.Point)}
	fields = append(fields, overlay.Report()...)
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

// checkAnswers checks that statfs(2) of the mount point reaches this mount. stat(2) then brings the
// attributes of the root into the kernel's cache, so the first client does not wait for them.
func checkAnswers(point string) error {
	var st syscall.Statfs_t
	if err := syscall.Statfs(point, &st); err != nil {
		return fmt.Errorf("the mount on %q does not answer: %w", point, err)
	}
	if st.Type != unix.FUSE_SUPER_MAGIC {
		return fmt.Errorf("the mount on %q cannot be seen there", point)
	}
	var root syscall.Stat_t
	if err := syscall.Stat(point, &root); err != nil {
		return fmt.Errorf("the mount on %q does not return its attributes: %w", point, err)
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
