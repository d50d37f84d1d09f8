package main

import (
	"os"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs"
	"github.com/fuse-overlay/fuse-overlay/fs/conn"
	"github.com/fuse-overlay/fuse-overlay/internal/host"
	"github.com/fuse-overlay/fuse-overlay/internal/sandbox"
)

// trapVariable makes a refused system call end the daemon, for tests.
const trapVariable = "_FUSE_OVERLAY_SANDBOX_TRAP"

// Capabilities that a daemon keeps. toRead are those for reading its layers: any file
// (CAP_DAC_READ_SEARCH, also by handle), without a change of access times (CAP_FOWNER), xattrs of
// namespace trusted., and passthrough (CAP_SYS_ADMIN).
var toRead = sandbox.SetOf(unix.CAP_DAC_READ_SEARCH, unix.CAP_FOWNER, unix.CAP_SYS_ADMIN)

// toWrite are those for an upper: any owner, mode, flag, device and xattr (CAP_MAC_ADMIN: a label
// that the policy of SELinux does not know), and the blocks that are reserved for root.
var toWrite = toRead | sandbox.SetOf(unix.CAP_DAC_OVERRIDE, unix.CAP_CHOWN, unix.CAP_FSETID, unix.CAP_MKNOD, unix.CAP_SETFCAP,
	unix.CAP_LINUX_IMMUTABLE, unix.CAP_SYS_RESOURCE, unix.CAP_MAC_ADMIN)

// confinement is how the daemon of a mount gives up its rights.
type confinement struct {
	req *request
	log *zap.Logger

	null   *os.File // /dev/null, until the keeper is started; nil: the daemon is not confined
	keeper *keeper  // set before the mount is served; nil: the daemon is not confined
	result string   // for the log
}

// prepareConfinement is called before the daemon leaves the mounts of its caller.
func prepareConfinement(req *request, log *zap.Logger) *confinement {
	c := &confinement{req: req, log: log, result: "off"}
	req.overlay.MayProtect = c.mayProtect
	if req.noSandbox {
		return c
	}
	var err error
	if c.null, err = os.OpenFile(os.DevNull, os.O_RDWR, 0); err != nil {
		c.notConfined(err)
	}
	return c
}

func (c *confinement) notConfined(err error) {
	c.log.Warn("the daemon keeps all its rights", zap.Error(err))
	c.result = "off: " + err.Error()
}

// confine takes all rights from the process that it does not need to serve the mount. No thread
// serves requests yet. Before, it starts the keeper, which fails for a program that is linked
// dynamically, as one with the race detector.
func (c *confinement) confine(m *conn.Mount, overlay *fs.Overlay) {
	if c.null == nil {
		return
	}
	k, err := startKeeper(c.req.called, m.Unmounting(), c.null, c.log)
	_ = c.null.Close()
	if err != nil { // the mount must end with a signal
		c.notConfined(err)
		return
	}
	m.SetOutside(k)
	c.keeper = k
	rights := sandbox.Rights{Capabilities: toWrite, ReconnectFD: -1, Trap: os.Getenv(trapVariable) != ""}
	if overlay.Mode() == fs.ModeReadOnly {
		rights.Capabilities = toRead
	}
	if c.req.syslog != nil {
		rights.ReconnectFD = c.req.syslog.descriptor()
	}
	c.result = sandbox.Confine(rights).String()
}

// mayProtect is host.MayProtect, by the keeper: a confined process may not look at others.
func (c *confinement) mayProtect(thread uint32) bool {
	if c.keeper == nil {
		return host.MayProtect(thread)
	}
	return c.keeper.mayProtect(thread)
}

// close ends the keeper. The mount is gone, or has failed.
func (c *confinement) close() {
	if c != nil && c.keeper != nil {
		c.keeper.close()
	}
}
