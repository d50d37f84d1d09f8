package main

import (
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/fuse-overlay/fuse-overlay/fs"
	"github.com/fuse-overlay/fuse-overlay/fs/conn"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// request is what the user asked for, understood.
type request struct {
	// called is the name the program was called by.
	called string

	help, version, foreground bool
	// fake: do all but mount.
	fake bool

	overlay fs.Config
	mount   conn.MountConfig
	// nfsExport: the mount is to be exported by handles that outlive it.
	nfsExport bool
	// given are the options that were given, by their names.
	given map[string]bool
	// allowRoot: the mount is for root alone, though root mounts it.
	allowRoot bool
	// logFile is where the log goes instead of stderr or the journal; empty when not asked for.
	logFile string
	// notes tell what was asked for and is not done, because there is nothing to be done.
	notes []string
	// ignored are arguments that nobody knows, let pass for the sake of compatName's callers.
	ignored []string
}

// withoutEnd is conn.Config.Timeout for names and attributes that the kernel may keep as long as it likes.
const withoutEnd time.Duration = -1

// parseRequest understands a command line. Called by compatName, or by `mount -s`, it lets unknown arguments pass,
// otherwise they are an error that names them.
func parseRequest(called string, argv []string) (*request, error) {
	req := &request{
		called: called,
		overlay: fs.Config{
			Conn: conn.Config{Timeout: withoutEnd},
			// Callers of that program know no note of a volatile mount, and so do not remove it.
			AfterVolatile: called == compatName,
			// Container engines mount the upper of a running container again to read it, sometimes without ro.
			BesideOther: called == compatName,
		},
		mount: conn.MountConfig{Type: called},
	}
	c, err := splitCommandLine(argv[min(1, len(argv)):], asMountHelper(argv))
	if err != nil {
		return nil, err
	}
	req.help, req.version = c.help, c.version
	if req.help || req.version {
		return req, nil
	}
	// As with all FUSE programs, watching the requests means staying in the foreground.
	req.foreground = c.foreground || c.debug
	req.mount.Debug = c.debug
	req.fake = c.fake

	if err := req.applyAll(c); err != nil {
		return nil, err
	}
	source, point, err := c.mountPoint()
	if err != nil {
		return nil, err
	}
	req.mount.Point = point
	if req.mount.Source == "" { // fsname= goes before the positional one
		req.mount.Source = source
	}
	if req.mount.Source == "" {
		req.mount.Source = called
	}
	if err := req.check(); err != nil {
		return nil, fmt.Errorf("%w%s", err, bareOption(c.positionals))
	}
	return req, nil
}

// applyAll puts all options into the request. Arguments that nothing is known of are an error that names them all, or are
// ignored where the caller expects that.
func (r *request) applyAll(c *commandLine) error {
	compat := r.called == compatName
	unknown := &unknownArguments{flags: c.unknown}
	for _, list := range c.optionLists {
		for _, field := range splitFields(list) {
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
	case compat || c.sloppy:
		r.ignored = slices.Concat(unknown.flags, unknown.options)
	case len(unknown.flags)+len(unknown.options) > 0:
		return unknown
	}
	return nil
}

// check finds what each option by itself cannot: options that are missing or do not go together.
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
		// Most likely a forgotten or misspelt upperdir; a read-only mount would be a late surprise.
		return fmt.Errorf("workdir=%s is of no use without an upperdir=", o.Work)
	case r.mount.AllowOther && r.allowRoot:
		return errors.New("allow_other and allow_root exclude each other")
	case o.Conn.IO == conn.IOPassthrough && o.Conn.Writeback == conn.WritebackOn:
		return errors.New("io=passthrough and writeback=1 exclude each other: with passthrough the kernel collects no writes")
	}
	return r.settle()
}

// complete fills in what follows from the rest and from who calls.
func (r *request) complete(euid int) error {
	if r.overlay.Upper == "" {
		r.mount.Flags |= syscall.MS_RDONLY
	}
	r.overlay.AccessTimes = sys.AccessTimes(r.mount.Flags)
	switch {
	case euid == 0 && !r.allowRoot:
		// What root mounts is for all users of the machine or container, as any other mount is.
		r.mount.AllowOther = true
	case euid != 0 && r.allowRoot:
		// The kernel lets in one user or all, and asks us too seldom for us to turn users away.
		return fmt.Errorf("option allow_root is %w for ordinary users", errUnsupported)
	}
	return nil
}
