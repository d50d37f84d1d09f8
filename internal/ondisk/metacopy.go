package ondisk

import (
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// FileXattrs is what a regular file of a layer says of the layers below it.
type FileXattrs struct {
	// Metacopy: the file has its attributes and its size, but not its data; a layer below has that.
	Metacopy bool
	// Digest is the digest that the file with the data must have (fs-verity); zero: none is known.
	Digest sys.Digest
	// Redirect is where the layers below have the file, as [DirXattrs].Redirect. Read with Metacopy only.
	Redirect string
	// ByUser: Metacopy or Redirect is an attribute of namespace user., which the owner of the file may write.
	ByUser bool
}

// ReadFile reads the attributes of a regular file. One without extended attributes costs one call. EINVAL for a metacopy
// attribute that makes no sense.
func (n Names) ReadFile(r sys.Ref) (x FileXattrs, err error) {
	names, err := r.ListXattr()
	if err != nil {
		return FileXattrs{}, err
	}
	metacopy, redirect := NoXattrs, NoXattrs
	for _, name := range names { // what only root may write goes before what everybody may
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
// not zero. Precondition: ns is not [NoXattrs].
func (ns Namespace) MetacopyXattr(digest sys.Digest) (name string, value []byte) {
	if algorithm, sum := digest.Parts(); algorithm != 0 {
		value = append([]byte{metacopyVersion, byte(metacopyHeader + len(sum)), 0, algorithm}, sum...)
	}
	return ns.Name(Metacopy), value
}
