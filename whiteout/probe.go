package whiteout

import (
	"errors"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/ondisk"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// Names of the objects that probe makes. Names of staged objects are numbers.
const (
	trialDevice = "#probe-device"
	trialFile   = "#probe-file"
	trialMoved  = "#probe-moved"
	trialDir    = "#probe-dir"
	trialMarker = MarkerPrefix + "#probe"
)

// Wanted is the format that the options want. What the file system refuses is left out.
type Wanted struct {
	// Names are the private attributes: the upper gets attributes of these only.
	Names ondisk.Names
	// Markers: do not try devices.
	Markers bool
	// Xattrs: if there are no devices, prefer the xattr form to markers.
	Xattrs bool
}

// probe finds the format by trying each form in the work directory of the upper, and leaves nothing
// there.
//
// A form that the file system or the kernel refuses is left out. If the disk is full or fails,
// probe returns the error: the format of an upper must not depend on that.
func probe(work *sys.Dir, wanted Wanted) (f Format, err error) {
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
	if f.Devices || wanted.Markers && !wanted.Xattrs {
		return f, nil
	}
	xattrs := func() (ok bool, err error) {
		if f.Xattrs != ondisk.NoXattrs {
			f.WhiteoutXattrs, err = available(tryXattrWhiteout(work, f.Xattrs))
		}
		return f.WhiteoutXattrs, err
	}
	markers := func() (bool, error) { return available(tryMarker(work)) }
	forms := []func() (bool, error){markers, xattrs}
	if wanted.Xattrs {
		slices.Reverse(forms)
	}
	for _, form := range forms {
		if ok, err := form(); err != nil || ok {
			return f, err
		}
	}
	f.None = true
	return f, nil
}

// probeLong finds the format for names whose markers would be too long, if f has markers: the xattr
// form if there is one, else devices. If there is neither, it returns f. It tries devices without
// RENAME_EXCHANGE: if the file system has no such flag, a directory with a long name cannot be
// covered.
func probeLong(work *sys.Dir, f Format) (long Format, err error) {
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
		if ok, err := available(long.stage(work, trialFile)); err != nil || ok {
			return long, err
		}
		long.WhiteoutXattrs = false
	}
	if err := work.Mknod(trialDevice, deviceMode, deviceRdev); err != nil {
		_, err = available(err)
		return f, err
	}
	if long.Devices, err = available(isDevice(work, trialDevice)); err != nil || !long.Devices {
		return long, err
	}
	long.RenameWhiteout, err = available(tryRenameWhiteout(work))
	return long, err
}

// probeOpaque finds the namespace in which a directory takes the attribute overlay.opaque. It
// leaves the directory for tryXattrWhiteout.
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
		if !names.Has(ns) {
			continue
		}
		if ok, err := available(tryXattr(d, ns.Name(ondisk.Opaque))); err != nil || ok {
			return ns, err
		}
	}
	return ondisk.NoXattrs, nil
}

func tryMarker(work *sys.Dir) error {
	if err := touch(work, trialMarker, 0o644); err != nil {
		return err
	}
	return work.Unlink(trialMarker)
}

// tryXattrWhiteout makes a whiteout and exchanges it for the directory of probeOpaque, as
// [Maker.Cover] does.
func tryXattrWhiteout(work *sys.Dir, ns ondisk.Namespace) error {
	if err := (Format{Xattrs: ns, WhiteoutXattrs: true}).stage(work, trialFile); err != nil {
		return err
	}
	return work.Rename(trialFile, work, trialDir, unix.RENAME_EXCHANGE)
}

// available reports whether a trial succeeded. It returns errors that are about the disk or the
// process, not about the form.
func available(err error) (bool, error) {
	switch err {
	case nil:
		return true, nil
	case unix.EIO, unix.ENOSPC, unix.EDQUOT, unix.EROFS, unix.ENOMEM, unix.EMFILE, unix.ENFILE,
		unix.ENOENT, unix.EEXIST:
		return false, err
	default:
		return false, nil
	}
}

// errOther: a call succeeded and did something else. Some network file systems and file systems in
// user space do so.
var errOther = errors.New("the call did something else")

func tryDevice(work *sys.Dir) error {
	if err := work.Mknod(trialDevice, deviceMode, deviceRdev); err != nil {
		return err
	}
	if err := isDevice(work, trialDevice); err != nil {
		return err
	}
	if err := touch(work, trialFile, 0o644); err != nil {
		return err
	}
	return work.Rename(trialDevice, work, trialFile, unix.RENAME_EXCHANGE)
}

// tryRenameWhiteout moves the device that tryDevice has left.
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
	if !IsDevice(&st) {
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

// removeTrials removes the objects of this probe, or of one that was killed.
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
