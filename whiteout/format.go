package whiteout

import (
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/ondisk"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// Format is how absence is written in one upper.
type Format struct {
	// Devices: a whiteout is the character device 0/0; else it is a [Marker] file. Only where names can be exchanged too
	// (RENAME_EXCHANGE): without that a directory and a device cannot take each other's place in one step.
	Devices bool
	// WhiteoutXattrs: where devices cannot be made and this is wanted, or .wh. files cannot be made either, as on the mount of
	// another overlay, a whiteout is an empty file with an extended attribute, in a directory prepared by [Format.Admit].
	// Only with Xattrs.
	WhiteoutXattrs bool
	// RenameWhiteout: renameat2(RENAME_WHITEOUT) leaves such a device behind. Only with Devices.
	RenameWhiteout bool
	// Xattrs is the namespace of the overlay's extended attributes in this upper, by which a directory is made opaque too;
	// [ondisk.NoXattrs]: the [OpaqueMarker] file makes it so.
	Xattrs ondisk.Namespace
}

// InPlace reports whether a whiteout stands under the name that it hides; a [Marker] stands beside it.
func (f Format) InPlace() bool { return f.Devices || f.WhiteoutXattrs }

// String describes the format for a log.
func (f Format) String() string {
	form, opaque := "files "+Marker("NAME"), "files "+OpaqueMarker
	switch {
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

// Stage makes a whiteout of an in-place form under a name of the work directory.
func (f Format) Stage(work *sys.Dir, name string) error {
	if f.Devices {
		return work.Mknod(name, DeviceMode, DeviceRdev)
	}
	if err := touch(work, name); err != nil {
		return err
	}
	return work.At(name).SetXattr(f.Xattrs.Name(ondisk.Whiteout), nil, 0)
}

// Admit prepares the directory d for a whiteout of an in-place form. One that is opaque has nothing to hide and stays so.
func (f Format) Admit(d *sys.Dir) error {
	if !f.WhiteoutXattrs {
		return nil
	}
	err := d.Ref().SetXattr(f.Xattrs.Name(ondisk.Opaque), []byte(opaqueWhiteouts), unix.XATTR_CREATE)
	if err == unix.EEXIST {
		return nil
	}
	return err
}

// MarkOpaque makes d opaque. For a directory that nobody sees yet, or that nothing lies below.
func (f Format) MarkOpaque(d *sys.Dir) error {
	if f.Xattrs != ondisk.NoXattrs {
		return d.Ref().SetXattr(f.Xattrs.Name(ondisk.Opaque), []byte(opaqueYes), 0)
	}
	return touch(d, OpaqueMarker)
}

// touch makes an empty file, where there is none.
func touch(d *sys.Dir, name string) error {
	file, err := d.CreateFile(name, 0o644)
	if err == unix.EEXIST {
		return nil
	}
	if err != nil {
		return err
	}
	file.Close()
	return nil
}

// Names of the trials, outside the numbered names of staged objects.
const (
	trialDevice = "#probe-device"
	trialFile   = "#probe-file"
	trialMoved  = "#probe-moved"
	trialDir    = "#probe-dir"
	trialMarker = MarkerPrefix + "#probe"
)

// Wanted is what the user says of the format; what cannot be had is done without.
type Wanted struct {
	Names ondisk.Names
	// Markers leaves devices untried.
	Markers bool
	// Xattrs prefers attributes to .wh. files where there are no devices.
	Xattrs bool
}

// Probe finds the format by trying each way in the work directory, which must be the one the whiteouts will be made in,
// and leaves nothing there.
//
// A way that the file system or the kernel refuses is not there; a disk that is full or failing is an error, because an
// upper must not change its format with the weather.
func Probe(work *sys.Dir, wanted Wanted) (f Format, err error) {
	if err := removeTrials(work); err != nil {
		return Format{}, err
	}
	defer func() {
		if e := removeTrials(work); err == nil && e != nil {
			f, err = Format{}, e
		}
	}()
	if !wanted.Markers {
		if f.Devices, err = available(tryDevice(work)); err != nil {
			return Format{}, err
		}
	}
	if f.Devices {
		if f.RenameWhiteout, err = available(tryRenameWhiteout(work)); err != nil {
			return Format{}, err
		}
	}
	if f.Xattrs, err = probeOpaque(work, wanted.Names); err != nil {
		return Format{}, err
	}
	if f.Devices || f.Xattrs == ondisk.NoXattrs {
		return f, nil
	}
	if !wanted.Xattrs {
		if wanted.Markers {
			return f, nil
		}
		if markers, err := available(tryMarker(work)); err != nil || markers {
			return f, err
		}
	}
	f.WhiteoutXattrs, err = available(tryXattrWhiteout(work, f.Xattrs))
	return f, err
}

// ProbeLong finds the format of whiteouts whose markers would have names that are too long, where f takes markers: an
// extended attribute if there is one, else a device. Where there is neither it returns f. Names need not be exchangeable: without
// that, directories cannot be whited out so.
func ProbeLong(work *sys.Dir, f Format) (long Format, err error) {
	if f.InPlace() {
		return f, nil
	}
	if err := removeTrials(work); err != nil {
		return Format{}, err
	}
	defer func() {
		if e := removeTrials(work); err == nil && e != nil {
			long, err = Format{}, e
		}
	}()
	long = f
	if f.Xattrs != ondisk.NoXattrs {
		long.WhiteoutXattrs = true
		if ok, err := available(long.Stage(work, trialFile)); err != nil || ok {
			return long, err
		}
		long.WhiteoutXattrs = false
	}
	if err := work.Mknod(trialDevice, DeviceMode, DeviceRdev); err != nil {
		_, err = available(err)
		return f, err
	}
	if long.Devices, err = available(isDevice(work, trialDevice)); err != nil || !long.Devices {
		return long, err
	}
	long.RenameWhiteout, err = available(tryRenameWhiteout(work))
	return long, err
}

// probeOpaque makes a directory and finds out in which namespace it takes the attribute that makes it opaque.
func probeOpaque(work *sys.Dir, names ondisk.Names) (ondisk.Namespace, error) {
	if err := work.Mkdir(trialDir, 0o700); err != nil {
		return ondisk.NoXattrs, err
	}
	d, err := work.OpenDir(trialDir)
	if err != nil {
		return ondisk.NoXattrs, err
	}
	defer d.Close()
	for _, ns := range ondisk.Written {
		if !names.Own(ns) {
			continue
		}
		if ok, err := available(tryXattr(d, ns.Name(ondisk.Opaque))); err != nil || ok {
			return ns, err
		}
	}
	return ondisk.NoXattrs, nil
}

func tryMarker(work *sys.Dir) error {
	if err := touch(work, trialMarker); err != nil {
		return err
	}
	return work.Unlink(trialMarker)
}

// tryXattrWhiteout makes one and exchanges it for a directory, which is how a directory gets whited out.
func tryXattrWhiteout(work *sys.Dir, ns ondisk.Namespace) error {
	if err := (Format{Xattrs: ns, WhiteoutXattrs: true}).Stage(work, trialFile); err != nil {
		return err
	}
	return work.Rename(trialFile, work, trialDir, unix.RENAME_EXCHANGE)
}

// available turns the outcome of a trial into its meaning.
func available(err error) (bool, error) {
	switch err {
	case nil:
		return true, nil
	case unix.EIO, unix.ENOSPC, unix.EDQUOT, unix.EROFS, unix.ENOMEM, unix.EMFILE, unix.ENFILE, unix.ENOENT, unix.EEXIST:
		return false, err
	default:
		return false, nil
	}
}

// errOther says that a call succeeded and did something else than asked, as some network and user space file systems do.
const errOther = unix.EOPNOTSUPP

func tryDevice(work *sys.Dir) error {
	if err := work.Mknod(trialDevice, DeviceMode, DeviceRdev); err != nil {
		return err
	}
	if err := isDevice(work, trialDevice); err != nil {
		return err
	}
	if err := touch(work, trialFile); err != nil {
		return err
	}
	return work.Rename(trialDevice, work, trialFile, unix.RENAME_EXCHANGE)
}

// tryRenameWhiteout moves what tryDevice has left.
func tryRenameWhiteout(work *sys.Dir) error {
	if err := work.Rename(trialDevice, work, trialMoved, unix.RENAME_WHITEOUT); err != nil {
		return err
	}
	return isDevice(work, trialDevice)
}

func isDevice(work *sys.Dir, name string) error {
	var st sys.Stat
	if err := work.At(name).Stat(&st); err != nil {
		return err
	}
	if !sys.IsWhiteoutDevice(&st) {
		return errOther
	}
	return nil
}

func tryXattr(d *sys.Dir, name string) error {
	if err := d.Ref().SetXattr(name, []byte(opaqueYes), 0); err != nil {
		return err
	}
	value, err := d.Ref().GetXattr(name)
	if err != nil {
		return err
	}
	if string(value) != opaqueYes {
		return errOther
	}
	return nil
}

// removeTrials removes the trials of this run, or of one that was killed.
func removeTrials(work *sys.Dir) error {
	for _, name := range []string{trialDevice, trialFile, trialMoved, trialDir} {
		err := work.Unlink(name)
		if err == unix.EISDIR || err == unix.EPERM { // trialDir, or trialFile in its place
			err = work.Rmdir(name)
		}
		if err != nil && err != unix.ENOENT {
			return err
		}
	}
	return nil
}
