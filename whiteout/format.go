package whiteout

import (
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/ondisk"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// Format is the form of whiteouts and opaque directories in one upper. A whiteout is a device, an
// empty file with an extended attribute, or else a marker.
type Format struct {
	// None: the upper takes no form of whiteout. What a lower has can be neither removed nor renamed
	// (EPERM), and a removed directory cannot be made again.
	None bool
	// Devices: a whiteout is a character device 0/0. [Forms].Default has it only if names can be
	// exchanged (RENAME_EXCHANGE): otherwise no single call replaces a directory by a device.
	Devices bool
	// WhiteoutXattrs: a whiteout is an empty file with the attribute overlay.whiteout, in a
	// directory whose attribute overlay.opaque is "x". Only with Xattrs. It is the form on the
	// mount of another overlay, which takes neither devices nor markers.
	WhiteoutXattrs bool
	// RenameWhiteout: renameat2(RENAME_WHITEOUT) leaves a whiteout device behind. Only with
	// Devices.
	RenameWhiteout bool
	// Xattrs is the namespace of the overlay's attributes in the upper. overlay.opaque makes a
	// directory opaque; with [ondisk.NoXattrs] the [OpaqueMarker] file does.
	Xattrs ondisk.Namespace
}

// InPlace reports whether a whiteout stands under the name that it hides. A marker stands beside
// that name.
func (f Format) InPlace() bool { return f.Devices || f.WhiteoutXattrs }

// String describes the format for a log.
func (f Format) String() string {
	form, opaque := "files "+Marker("NAME"), "files "+OpaqueMarker
	switch {
	case f.None:
		return "the upper takes none"
	case f.WhiteoutXattrs:
		form = "attributes " + f.Xattrs.Name(ondisk.Whiteout)
	case f.Devices:
		form = "devices 0/0"
	}
	if f.Xattrs != ondisk.NoXattrs {
		opaque = f.Xattrs.Name(ondisk.Opaque)
	}
	return form + ", opaque directories by " + opaque
}

// Missing describes for a log, with the reason, what the upper does without.
func (f Format) Missing() []string {
	switch {
	case f.Devices:
		return nil
	case f.None:
		return []string{"removals and renames of what a lower has (EPERM): the upper takes no form of whiteout"}
	}
	return []string{"whiteout devices: the upper takes none, cannot exchange names, or markers are wanted"}
}

// stage makes a whiteout of an in-place form under a name of the work directory.
func (f Format) stage(work *sys.Dir, name string) error {
	if f.Devices {
		return work.Mknod(name, deviceMode, deviceRdev)
	}
	if err := touch(work, name, 0o644); err != nil {
		return err
	}
	return work.At(name).SetXattr(f.Xattrs.Name(ondisk.Whiteout), nil, 0)
}

// allowXattrWhiteouts notes in the directory d that it may hold whiteouts of the xattr form, if
// that is the format. An opaque directory stays opaque: it needs no whiteouts.
func (f Format) allowXattrWhiteouts(d *sys.Dir) error {
	if !f.WhiteoutXattrs {
		return nil
	}
	err := d.Ref().SetXattr(f.Xattrs.Name(ondisk.Opaque), []byte(opaqueWhiteouts), unix.XATTR_CREATE)
	if err == unix.EEXIST {
		return nil
	}
	return err
}

// MakeOpaque makes d opaque. Precondition: no process can reach d, or no lower has anything below
// it.
func (f Format) MakeOpaque(d *sys.Dir) error {
	if f.Xattrs != ondisk.NoXattrs {
		return d.Ref().SetXattr(f.Xattrs.Name(ondisk.Opaque), []byte(opaqueYes), 0)
	}
	return touch(d, OpaqueMarker, 0o644)
}

// touch makes an empty file if there is none.
func touch(d *sys.Dir, name string, mode uint32) error {
	file, err := d.CreateFile(name, mode)
	if err == unix.EEXIST {
		return nil
	}
	if err != nil {
		return err
	}
	file.Close()
	return nil
}
