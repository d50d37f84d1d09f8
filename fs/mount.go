package fs

import (
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// Mount is an attached overlay.
type Mount struct {
	server *fuse.Server
	point  string
	direct bool
	done   chan struct{} // closed when the mount is gone
}

// defaultMaxWrite is the largest request that Linux takes without further settings (FUSE_MAX_MAX_PAGES).
const defaultMaxWrite = 1 << 20

// background is how many requests that nobody waits for (read-ahead, write-back) the kernel keeps under way.
const background = 64

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
	flags := m.Flags
	if flags == 0 {
		flags = unix.MS_MGC_VAL // go-fuse takes 0 for its own default; this the kernel takes for 0
	}
	direct := m.Direct && !strings.HasPrefix(m.Point, "/dev/fd/")
	opts := &fuse.MountOptions{
		AllowOther:               m.AllowOther,
		Options:                  []string{"default_permissions"},
		MaxBackground:            background,
		MaxWrite:                 o.cfg.MaxWrite,
		FsName:                   m.Source,
		Name:                     m.Type,
		Debug:                    m.Debug,
		Logger:                   zap.NewStdLog(o.log),
		EnableSymlinkCaching:     true,
		ExplicitDataCacheControl: true,
		DirectMountStrict:        direct,
		DirectMountFlags:         flags,
		EnableAcl:                !o.cfg.NoACL && !o.cfg.NoXattrs,
		ExtraCapabilities:        o.capabilities(),
		PanicHandler: func(v any) fuse.Status {
			o.log.Error("panic while serving a request", zap.Any("panic", v), zap.Stack("stack"))
			return fuse.EIO
		},
	}
	if opts.MaxWrite == 0 {
		opts.MaxWrite = defaultMaxWrite
	}
	if !direct {
		for _, f := range mountFlags {
			if m.Flags&f.flag != 0 {
				opts.Options = append(opts.Options, f.name)
			}
		}
	}
	server, err := fuse.NewServer(o, m.Point, opts)
	if err != nil {
		return nil, mountError(m.Point, err)
	}
	mounted := &Mount{server: server, point: m.Point, direct: direct, done: make(chan struct{})}
	go func() {
		server.Serve()
		close(mounted.done)
	}()
	if err := Quietly(server.WaitMount); err != nil {
		return nil, errors.Join(mountError(m.Point, err), mounted.Unmount())
	}
	return mounted, nil
}

// Quietly calls f, which enters the mount that this process itself serves, with no garbage collection under way or to
// come. A collection stops every thread, and the thread in f's system call cannot stop before the request that it waits for
// is answered, which the stopped threads cannot do: seen as a mount that hung for up to a minute.
func Quietly(f func() error) error {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	runtime.GC() // ends the one that may be under way
	return f()
}

func mountError(point string, err error) error {
	if errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("mount point %q is busy", point)
	}
	return fmt.Errorf("mount point %q: %w", point, err)
}

// Wait returns when the mount is gone.
func (m *Mount) Wait() { <-m.done }

// Unmount writes back what the kernel keeps and takes the mount out of the tree; one that is in use is detached. It does
// not wait for the mount's users, there or in other mount namespaces, to go.
func (m *Mount) Unmount() error { return Quietly(m.unmount) }

func (m *Mount) unmount() error {
	if err := sys.SyncMount(m.point); err != nil {
		return fmt.Errorf("mount point %q: cannot write back: %w", m.point, err)
	}
	if m.direct {
		err := sys.Unmount(m.point)
		if errors.Is(err, unix.EBUSY) {
			err = sys.Detach(m.point)
		}
		return err
	}
	if err := fusermount("-u", m.point); err == nil {
		return nil
	}
	return fusermount("-u", "-z", m.point)
}

func fusermount(args ...string) error {
	out, err := exec.Command("fusermount3", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("fusermount3: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}
