package unpack

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"math"
	"path"
	"strings"

	securejoin "github.com/cyphar/filepath-securejoin"
	"github.com/opencontainers/umoci/pkg/fseval"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/ondisk"
	"github.com/fuse-overlay/fuse-overlay/internal/quote"
	"github.com/fuse-overlay/fuse-overlay/whiteout"
)

// Errors of entries that no layer may have.
var (
	errParent    = errors.New(`the path has the component "..", which may lead out of the layer`)
	errMarker    = errors.New("the name begins like a whiteout, but hides nothing")
	errInMarker  = errors.New("the path leads through the name of a whiteout")
	errWhiteout  = errors.New("a character device 0/0 would become a whiteout of the overlay")
	errNoDevices = errors.New("only root of the first user namespace can make device nodes")
)

// metaPrefix begins names that AUFS keeps for itself, as ".wh..wh.plnk". Engines ignore them.
const metaPrefix = whiteout.MarkerPrefix + whiteout.MarkerPrefix

// entry unpacks one entry of the archive, or notes what it hides.
func (u *unpacker) entry(h *tar.Header, data io.Reader) error {
	switch h.Typeflag {
	case tar.TypeXGlobalHeader: // of git archive; it has no object
		return nil
	case tar.TypeGNUSparse, tar.TypeCont: // data is without gaps
		h.Typeflag = tar.TypeReg
	}
	names, err := components(h.Name)
	if err != nil {
		return err
	}
	h.Name = path.Join(names...)
	if len(names) > 0 {
		skip, err := checkMarkers(names)
		if err != nil || skip {
			return err
		}
		if dir, name := path.Split(h.Name); whiteout.IsMarker(name) {
			return u.noteMarker(dir, name)
		}
	}
	if h.Typeflag == tar.TypeLink {
		target, err := components(h.Linkname)
		if err != nil {
			return fmt.Errorf("hard link to %s: %w", quote.Word(h.Linkname), err)
		}
		h.Linkname = path.Join(target...)
	}
	if err := u.checkDevice(h); err != nil {
		return err
	}
	if err := u.checkSpace(h); err != nil {
		return err
	}
	if err := storeXattrs(h); err != nil {
		return err
	}
	return u.extractor.UnpackEntry(u.stage.treePath, h, data)
}

// components splits a path of the archive into its names. An absolute path is one from the root of
// the layer. The root itself has no names.
func components(p string) (names []string, err error) {
	for name := range strings.SplitSeq(p, "/") {
		switch name {
		case "", ".":
		case "..":
			return nil, errParent
		default:
			names = append(names, name)
		}
	}
	return names, nil
}

// checkMarkers examines the names of a path that has any. skip: the entry is about AUFS alone.
func checkMarkers(names []string) (skip bool, err error) {
	last := len(names) - 1
	for i, name := range names {
		switch {
		case !whiteout.IsMarker(name) || i == last && name == whiteout.OpaqueMarker:
		case strings.HasPrefix(name, metaPrefix):
			return true, nil
		case i < last:
			return false, errInMarker
		default:
			if _, ok := whiteout.Hidden(name); !ok {
				return false, errMarker
			}
		}
	}
	return false, nil
}

// noteMarker notes what a marker hides. The directory is found as umoci finds those of all other
// entries: symbolic links that the layer has by now are followed inside it.
func (u *unpacker) noteMarker(dir, marker string) error {
	resolved, err := securejoin.SecureJoinVFS(u.stage.treePath, dir, fseval.Rootless)
	if err != nil {
		return err
	}
	dir = strings.TrimPrefix(strings.TrimPrefix(resolved, u.stage.treePath), "/")
	m := u.marksOf(dir)
	if name, ok := whiteout.Hidden(marker); ok {
		m.names = append(m.names, name)
	} else {
		m.opaque = true
	}
	return nil
}

// checkDevice refuses device nodes that this process cannot make, or that are no devices. Otherwise
// umoci would make an empty file.
func (u *unpacker) checkDevice(h *tar.Header) error {
	if h.Typeflag != tar.TypeChar && h.Typeflag != tar.TypeBlock {
		return nil
	}
	switch {
	case h.Devmajor < 0 || h.Devmajor > math.MaxUint32 || h.Devminor < 0 || h.Devminor > math.MaxUint32:
		return fmt.Errorf("there is no device %d/%d", h.Devmajor, h.Devminor)
	case h.Typeflag == tar.TypeChar && h.Devmajor == 0 && h.Devminor == 0:
		return errWhiteout
	case !u.devices:
		return errNoDevices
	}
	return nil
}

// bigFile is from which size on, in bytes, a file is compared with the free space. A header may
// give any size to a file with holes, and umoci writes holes as zeroes.
const bigFile = 1 << 20

func (u *unpacker) checkSpace(h *tar.Header) error {
	if h.Typeflag != tar.TypeReg || h.Size < bigFile {
		return nil
	}
	var st unix.Statfs_t
	if err := u.stage.dir.Ref().Statfs(&st); err != nil {
		return err
	}
	if free := st.Bavail * uint64(st.Bsize); uint64(h.Size) > free {
		return fmt.Errorf("the file has %d bytes, and only %d are free: %w", h.Size, free, unix.ENOSPC)
	}
	return nil
}

// hostXattrs are attributes of the machine on which a layer was made. The engines leave them out as
// well.
var hostXattrs = map[string]bool{ondisk.SELinux: true, "system.nfs4_acl": true}

// storeXattrs gives the attributes of an entry the names under which an overlay shows them as they
// are in the archive.
func storeXattrs(h *tar.Header) error {
	stored := map[string]string{}
	for name, value := range h.Xattrs { //nolint:staticcheck // umoci uses the field
		if hostXattrs[name] {
			continue
		}
		onDisk, ok := ondisk.Names{}.Stored(name)
		if !ok {
			return fmt.Errorf("the attribute %s would count as the overlay's own, and has no escaped form", quote.Word(name))
		}
		stored[onDisk] = value
	}
	h.Xattrs = stored //nolint:staticcheck // umoci uses the field
	return nil
}

// explain shortens an error of umoci to the call that failed, without the path of the staging
// directory, and adds what to do about an owner that cannot be set.
func explain(err error, h *tar.Header) error {
	var call *iofs.PathError
	if errors.As(err, &call) {
		if call.Op == "lchown" {
			return fmt.Errorf("cannot give it to user %d and group %d: %w; run the command as root, "+
				"in a user namespace that maps these, or with --squash", h.Uid, h.Gid, call.Err)
		}
		return fmt.Errorf("%s: %w", call.Op, call.Err)
	}
	var errno unix.Errno
	if h.Typeflag == tar.TypeLink && errors.As(err, &errno) {
		return fmt.Errorf("hard link to %s: %w", quote.Word(h.Linkname), errno)
	}
	return err
}
