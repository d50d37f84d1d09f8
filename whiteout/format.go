package whiteout

import (
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// Format is how absence is written in one upper.
type Format struct {
	// Devices: a whiteout is the character device 0/0; else it is a [Marker] file. Only where names can be exchanged too
	// (RENAME_EXCHANGE): without that a directory and a device cannot take each other's place in one step.
	Devices bool
	// WhiteoutXattr: where devices cannot be made and this is wanted, or .wh. files cannot be made either, as on the mount of
	// another overlay, a whiteout is an empty file with this extended attribute, in a directory prepared by [Format.Admit].
	// Else empty.
	WhiteoutXattr string
	// RenameWhiteout: renameat2(RENAME_WHITEOUT) leaves such a device behind. Only with Devices.
	RenameWhiteout bool
	// OpaqueXattr is the extended attribute that makes a directory opaque; empty: the [OpaqueMarker] file does.
	OpaqueXattr string
}

// InPlace reports whether a whiteout stands under the name that it hides; a [Marker] stands beside it.
func (f Format) InPlace() bool { return f.Devices || f.WhiteoutXattr != "" }

// Xattr is the name of the overlay's own extended attribute what, in the namespace that this upper takes. Precondition:
// OpaqueXattr is not empty.
func (f Format) Xattr(what string) string { return strings.TrimSuffix(f.OpaqueXattr, "opaque") + what }

// Trusted reports whether the overlay's attributes are those of namespace trusted., which any object takes.
func (f Format) Trusted() bool { return strings.HasPrefix(f.OpaqueXattr, trustedOverlay) }

// Stage makes a whiteout of an in-place form under a name of the work directory.
func (f Format) Stage(work *sys.Dir, name string) error {
	if f.Devices {
		return work.Mknod(name, DeviceMode, DeviceRdev)
	}
	if err := touch(work, name); err != nil {
		return err
	}
	return work.At(name).SetXattr(f.WhiteoutXattr, nil, 0)
}

// Admit prepares the directory d for a whiteout of an in-place form. One that is opaque has nothing to hide and stays so.
func (f Format) Admit(d *sys.Dir) error {
	if f.WhiteoutXattr == "" {
		return nil
	}
	err := d.Ref().SetXattr(f.OpaqueXattr, []byte(opaqueWhiteouts), unix.XATTR_CREATE)
	if err == unix.EEXIST {
		return nil
	}
	return err
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

// ReadingFormat is the format of an upper that is only read, as far as reading needs it: the namespace of its attributes. trusted:
// the daemon may read attributes of namespace trusted.
func ReadingFormat(names Names, trusted bool) Format {
	if trusted && names.mean(trustedOpaque) {
		return Format{OpaqueXattr: trustedOpaque}
	}
	return Format{OpaqueXattr: userOpaque}
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
	Names Names
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
	if f.OpaqueXattr, err = probeOpaque(work, wanted.Names); err != nil {
		return Format{}, err
	}
	if f.Devices || f.OpaqueXattr == "" {
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
	name := f.Xattr("whiteout")
	ok, err := available(tryXattrWhiteout(work, name))
	if ok {
		f.WhiteoutXattr = name
	}
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
	if f.OpaqueXattr != "" {
		long.WhiteoutXattr = f.Xattr("whiteout")
		if ok, err := available(long.Stage(work, trialFile)); err != nil || ok {
			return long, err
		}
		long.WhiteoutXattr = ""
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

// probeOpaque makes a directory and finds out by which extended attribute it can be made opaque; empty: by none.
func probeOpaque(work *sys.Dir, names Names) (string, error) {
	if err := work.Mkdir(trialDir, 0o700); err != nil {
		return "", err
	}
	d, err := work.OpenDir(trialDir)
	if err != nil {
		return "", err
	}
	defer d.Close()
	for _, name := range []string{trustedOpaque, userOpaque} {
		if !names.mean(name) {
			continue
		}
		if ok, err := available(tryXattr(d, name)); err != nil || ok {
			return name, err
		}
	}
	return "", nil
}

func tryMarker(work *sys.Dir) error {
	if err := touch(work, trialMarker); err != nil {
		return err
	}
	return work.Unlink(trialMarker)
}

// tryXattrWhiteout makes one and exchanges it for a directory, which is how a directory gets whited out.
func tryXattrWhiteout(work *sys.Dir, name string) error {
	if err := (Format{WhiteoutXattr: name}).Stage(work, trialFile); err != nil {
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
