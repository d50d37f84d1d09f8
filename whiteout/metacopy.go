package whiteout

import (
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

const (
	trustedMetacopy = trustedOverlay + "metacopy"
	userMetacopy    = userOverlay + "metacopy"
)

// FileMarks is what a regular file of a layer says of the layers below it.
type FileMarks struct {
	// Metacopy: the file has its attributes and its size, but not its data; a layer below has that.
	Metacopy bool
	// Digest is the digest that the file with the data must have (fs-verity); zero: none is known.
	Digest sys.Digest
	// Redirect is where the layers below have the file, as [Marks].Redirect. Read with Metacopy only.
	Redirect string
	// ByUser: Metacopy or Redirect is an attribute of namespace user., which the owner of the file may write.
	ByUser bool
}

// ReadFileMarks reads the marks of a regular file. One without extended attributes costs one call. EINVAL for a metacopy mark
// that makes no sense.
func (n Names) ReadFileMarks(r sys.Ref) (m FileMarks, err error) {
	names, err := r.ListXattr()
	if err != nil {
		return FileMarks{}, err
	}
	metacopy, redirect := "", ""
	for _, name := range names { // what only root may write goes before what everybody may
		if !n.mean(name) {
			continue
		}
		switch name {
		case trustedMetacopy:
			metacopy = name
		case trustedRedirect:
			redirect = name
		case userMetacopy:
			if metacopy == "" {
				metacopy = name
			}
		case userRedirect:
			if redirect == "" {
				redirect = name
			}
		}
	}
	if metacopy == "" {
		return FileMarks{}, nil
	}
	value, err := r.GetXattr(metacopy)
	if err != nil {
		return FileMarks{}, ignoreNoData(err) // removed meanwhile
	}
	m.Metacopy, m.ByUser = true, metacopy == userMetacopy || redirect == userRedirect
	if m.Digest, err = parseMetacopy(value); err != nil {
		return FileMarks{}, err
	}
	if redirect != "" {
		value, err := r.GetXattr(redirect)
		if ignoreNoData(err) != nil {
			return FileMarks{}, err
		}
		m.Redirect = string(value)
	}
	return m, nil
}

func ignoreNoData(err error) error {
	if err == unix.ENODATA {
		return nil
	}
	return err
}

// The layout of the mark's value (struct ovl_metacopy of fs/overlayfs/overlayfs.h): version, length of the whole, flags,
// digest algorithm, digest. A mark without a digest is empty.
const (
	metacopyHeader  = 4
	metacopyVersion = 0
)

func parseMetacopy(value []byte) (sys.Digest, error) {
	switch {
	case len(value) == 0:
		return sys.Digest{}, nil
	case len(value) < metacopyHeader, value[0] != metacopyVersion, int(value[1]) != len(value), value[2] != 0,
		len(value)-metacopyHeader > sys.MaxDigest, (value[3] == 0) != (len(value) == metacopyHeader):
		return sys.Digest{}, unix.EINVAL
	}
	return sys.NewDigest(value[3], value[metacopyHeader:]), nil
}

// Metacopy is the mark, as an extended attribute, of a file whose data is in a layer below, and must have that digest if it is
// not zero. Precondition: OpaqueXattr is not empty.
func (f Format) Metacopy(digest sys.Digest) (name string, value []byte) {
	if algorithm, sum := digest.Parts(); algorithm != 0 {
		value = append([]byte{metacopyVersion, byte(metacopyHeader + len(sum)), 0, algorithm}, sum...)
	}
	return f.Xattr("metacopy"), value
}
