package ondisk

import (
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// FileXattrs holds the overlay's attributes of a layer's regular file.
type FileXattrs struct {
	// Metacopy: the file has its attributes and its size. A layer below has its data.
	Metacopy bool
	// Digest is the fs-verity digest of the file with the data; zero: it is not known.
	Digest sys.Digest
	// Redirect is where the layers below have the file, as [DirXattrs].Redirect. It is read only
	// with Metacopy.
	Redirect string
	// ByUser: the owner of the file may have written Metacopy or Redirect.
	ByUser bool
}

// ReadFile reads the attributes of a regular file. If the file has no extended attributes, it makes
// one call. EINVAL: the value of the metacopy attribute is invalid.
func (n Names) ReadFile(r sys.Ref) (x FileXattrs, err error) {
	names, err := r.ListXattr()
	if err != nil {
		return FileXattrs{}, err
	}
	metacopy, redirect := NoXattrs, NoXattrs
	for _, name := range names { // what only root can have written goes before what the owner can
		ns, attr, ok := n.Parse(name)
		switch {
		case !ok:
		case attr == Metacopy && (metacopy == NoXattrs || metacopy > ns):
			metacopy = ns
		case attr == Redirect && (redirect == NoXattrs || redirect > ns):
			redirect = ns
		}
	}
	if metacopy == NoXattrs {
		return FileXattrs{}, nil
	}
	value, err := r.GetXattr(metacopy.Name(Metacopy))
	if err != nil {
		return FileXattrs{}, ignoreNoData(err) // removed meanwhile
	}
	x.Metacopy, x.ByUser = true, metacopy.ByOwner() || redirect.ByOwner()
	if x.Digest, err = parseMetacopy(value); err != nil {
		return FileXattrs{}, err
	}
	if redirect != NoXattrs {
		value, err := r.GetXattr(redirect.Name(Redirect))
		if ignoreNoData(err) != nil {
			return FileXattrs{}, err
		}
		x.Redirect = string(value)
	}
	return x, nil
}

func ignoreNoData(err error) error {
	if err == unix.ENODATA {
		return nil
	}
	return err
}

// The value of the metacopy attribute (struct ovl_metacopy of fs/overlayfs/overlayfs.h): version,
// length of the value, flags, digest algorithm, digest; a byte each but the digest. The value is
// empty if there is no digest.
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

// MetacopyXattr returns the attribute of a file whose data is in a layer below. If digest is not
// zero, the data must have it. Precondition: ns is not [NoXattrs].
func (ns Namespace) MetacopyXattr(digest sys.Digest) (name string, value []byte) {
	if algorithm, sum := digest.Parts(); algorithm != 0 {
		value = append([]byte{metacopyVersion, byte(metacopyHeader + len(sum)), 0, algorithm}, sum...)
	}
	return ns.Name(Metacopy), value
}
