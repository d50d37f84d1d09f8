package whiteout

import (
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// Format is how absence is written in one upper.
type Format struct {
	// Devices: a whiteout is the character device 0/0; else it is a [Marker] file. Only where names can be exchanged too
	// (RENAME_EXCHANGE): without that a directory and a device cannot take each other's place in one step.
	Devices bool
	// RenameWhiteout: renameat2(RENAME_WHITEOUT) leaves such a device behind. Only with Devices.
	RenameWhiteout bool
	// OpaqueXattr is the extended attribute that makes a directory opaque; empty: the [OpaqueMarker] file does.
	OpaqueXattr string
}

// MarkOpaque makes d opaque. For a directory that nobody sees yet, or that nothing lies below.
func (f Format) MarkOpaque(d *sys.Dir) error {
	if f.OpaqueXattr != "" {
		return d.Ref().SetXattr(f.OpaqueXattr, []byte(opaqueYes), 0)
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
)

// Probe finds the format by trying each way in the work directory, which must be the one the whiteouts will be made in,
// and leaves nothing there. forceMarkers leaves the device forms untried.
//
// A way that the file system or the kernel refuses is not there; a disk that is full or failing is an error, because an
// upper must not change its format with the weather.
func Probe(work *sys.Dir, forceMarkers bool) (f Format, err error) {
	if err := removeTrials(work); err != nil {
		return Format{}, err
	}
	defer func() {
		if e := removeTrials(work); err == nil && e != nil {
			f, err = Format{}, e
		}
	}()
	if !forceMarkers {
		if f.Devices, err = available(tryDevice(work)); err != nil {
			return Format{}, err
		}
	}
	if f.Devices {
		if f.RenameWhiteout, err = available(tryRenameWhiteout(work)); err != nil {
			return Format{}, err
		}
	}
	if err := work.Mkdir(trialDir, 0o700); err != nil {
		return Format{}, err
	}
	d, err := work.OpenDir(trialDir)
	if err != nil {
		return Format{}, err
	}
	defer d.Close()
	for _, name := range []string{trustedOpaque, userOpaque} {
		ok, err := available(tryXattr(d, name))
		if err != nil {
			return Format{}, err
		}
		if ok {
			f.OpaqueXattr = name
			break
		}
	}
	return f, nil
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
	for _, name := range []string{trialDevice, trialFile, trialMoved} {
		if err := work.Unlink(name); err != nil && err != unix.ENOENT {
			return err
		}
	}
	if err := work.Rmdir(trialDir); err != nil && err != unix.ENOENT {
		return err
	}
	return nil
}
