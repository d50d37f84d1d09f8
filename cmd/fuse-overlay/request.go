package main

import (
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/fuse-overlay/fuse-overlay/fs"
	"github.com/fuse-overlay/fuse-overlay/fs/conn"
	"github.com/fuse-overlay/fuse-overlay/internal/mountargs"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// request is an interpreted command line.
type request struct {
	// called is the name by which the program was called.
	called string

	help, version, foreground bool
	// fake: do everything but mount.
	fake bool
	// remount: change the flags of a mount that exists. Only mount.Flags and mount.Point count.
	remount bool

	overlay fs.Config
	mount   conn.MountConfig
	// nfsExport: nfs_export=on, for handles that outlive the mount.
	nfsExport bool
	// given has the names of the options on the command line.
	given map[string]bool
	// allowRoot: the mount is for root alone, though root mounts it.
	allowRoot bool
	// logFile is where the log goes. Empty: stderr or the journal.
	logFile string
	// supervise: another process takes over when the daemon dies.
	supervise bool
	// logTo is what the log needs in the process that takes over.
	logTo logTarget
	// noControl: there is no control socket.
	noControl bool
	// noSandbox: the daemon keeps all its rights.
	noSandbox bool
	// syslog is where the log goes; nil: elsewhere.
	syslog *syslogConn
	// notes are log lines about options that have no effect.
	notes []string
	// ignored are unknown arguments, which callers of CompatName expect to be ignored.
	ignored []string
}

// withoutEnd is the conn.Config.Timeout that lets the kernel cache names and attributes without
// limit.
const withoutEnd time.Duration = -1

// parseRequest interprets a command line. It ignores unknown arguments for callers of CompatName
// and for `mount -s`. For others they are an error that names them.
func parseRequest(called string, argv []string) (*request, error) {
	req := &request{
		called: called,
		overlay: fs.Config{
			Conn: conn.Config{Timeout: withoutEnd},
			// Callers of that program do not know the note of a volatile mount, so they do not
			// remove it.
			AfterVolatile: called == mountargs.CompatName,
			// Container engines mount the upper of a running container again to read it, sometimes
			// without ro.
			BesideOther: called == mountargs.CompatName,
		},
		mount: conn.MountConfig{Type: called},
	}
	c, err := mountargs.Split(argv)
	if err != nil {
		return nil, err
	}
	req.help, req.version = c.Help, c.Version
	if req.help || req.version {
		return req, nil
	}
	if wantsRemount(c) {
		return req, req.parseRemount(c)
	}
	// As in all FUSE programs, -d includes -f.
	req.foreground = c.Foreground || c.Debug
	req.mount.Debug = c.Debug
	req.fake = c.Fake

	if err := req.applyAll(c); err != nil {
		return nil, err
	}
	source, point, err := mountPoint(c)
	if err != nil {
		return nil, err
	}
	req.mount.Point = point
	if req.mount.Source == "" { // fsname= wins over the positional argument
		req.mount.Source = source
	}
	if req.mount.Source == "" {
		req.mount.Source = called
	}
	if err := req.check(); err != nil {
		return nil, fmt.Errorf("%w%s", err, bareOption(c.Positionals))
	}
	return req, nil
}

// applyAll applies all options to the request. Unknown arguments are an error that names them all,
// or are ignored for callers that expect that.
func (r *request) applyAll(c *mountargs.Arguments) error {
	compat := r.called == mountargs.CompatName
	unknown := &unknownArguments{flags: c.Unknown}
	for _, list := range c.OptionLists {
		for _, field := range mountargs.Fields(list) {
			var ignored bool
			var err error
			if compat {
				ignored, err = r.applyCompat(field)
			} else {
				err = r.apply(field)
			}
			switch {
			case ignored || errors.Is(err, errUnknown):
				unknown.options = append(unknown.options, field)
			case err != nil:
				return err
			}
		}
	}
	switch {
	case compat || c.Sloppy:
		r.ignored = slices.Concat(unknown.flags, unknown.options)
	case len(unknown.flags)+len(unknown.options) > 0:
		return unknown
	}
	return nil
}

// check reports options that are missing, or that exclude each other.
func (r *request) check() error {
	o := &r.overlay
	o.ReadOnly = o.Upper != "" && r.mount.Flags&syscall.MS_RDONLY != 0
	switch {
	case len(o.Lowers) == 0 && len(o.DataOnly) > 0:
		return errors.New("data-only layers need another lower layer above them: lowerdir+=DIR")
	case len(o.Lowers) == 0:
		return errors.New("no lower layer given: -o lowerdir=DIR[:DIR]... is needed")
	case o.Upper != "" && o.Work == "" && !o.ReadOnly:
		return fmt.Errorf("upperdir=%s needs a workdir= on the same file system", o.Upper)
	case o.Upper == "" && o.Work != "":
		// The upperdir is probably forgotten or misspelt. The caller would notice a read-only mount
		// too late.
		return fmt.Errorf("workdir=%s is of no use without an upperdir=", o.Work)
	case r.mount.AllowOther && r.allowRoot:
		return errors.New("allow_other and allow_root exclude each other")
	case o.Conn.IO == conn.IOPassthrough && o.Conn.Writeback == conn.WritebackOn:
		return errors.New("io=passthrough and writeback=1 exclude each other: with passthrough the kernel collects no writes")
	}
	o.ReadByEngine = r.isReadByEngine()
	if err := r.resolveOptions(); err != nil {
		return err
	}
	return r.checkSupervise()
}

// complete sets what follows from the options and the user.
func (r *request) complete(euid int) error {
	if r.remount {
		return nil
	}
	if r.overlay.Upper == "" {
		r.mount.Flags |= syscall.MS_RDONLY
	}
	r.overlay.AccessTimes = sys.AccessTimes(r.mount.Flags)
	switch {
	case euid == 0 && !r.allowRoot:
		// A mount by root is for all users of the machine or container, as with other file systems.
		r.mount.AllowOther = true
	case euid != 0 && r.allowRoot:
		// The kernel lets in one user or all. It sends too few requests for the daemon to refuse
		// users.
		return fmt.Errorf("option allow_root is %w for plain users", errUnsupported)
	}
	return nil
}
