package sys

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"
)

// MaxDigest is the length of the longest digest (FS_VERITY_MAX_DIGEST_SIZE), in bytes.
const MaxDigest = 64

// Digest is a digest of a file's content, as fs-verity makes it. It is comparable. The zero value
// is none.
type Digest struct {
	algorithm, size uint8
	sum             [MaxDigest]byte
}

// NewDigest returns the digest sum, of at most [MaxDigest] bytes, made by an algorithm
// (FS_VERITY_HASH_ALG_*).
func NewDigest(algorithm uint8, sum []byte) Digest {
	d := Digest{algorithm: algorithm}
	d.size = uint8(copy(d.sum[:], sum))
	return d
}

// Parts returns the arguments of [NewDigest]. The algorithm of no digest is 0.
func (d Digest) Parts() (algorithm uint8, sum []byte) { return d.algorithm, d.sum[:d.size] }

// measureVerity is FS_IOC_MEASURE_VERITY of linux/fsverity.h.
const measureVerity = 0xc0046686

// Verity returns the digest that the file system guarantees. Zero: fs-verity does not protect the
// file.
func (f *File) Verity() (Digest, error) {
	if err := fault("ioctl", "FS_IOC_MEASURE_VERITY"); err != nil {
		return Digest{}, noVerity(err)
	}
	// struct fsverity_digest: algorithm and size, 16 bits each, then the digest. In the call, size
	// is the room for the digest.
	var arg [4 + MaxDigest]byte
	binary.NativeEndian.PutUint16(arg[2:], MaxDigest)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(f.fd), measureVerity, uintptr(unsafe.Pointer(&arg[0])))
	if errno != 0 {
		return Digest{}, noVerity(errno)
	}
	size := binary.NativeEndian.Uint16(arg[2:])
	return NewDigest(uint8(binary.NativeEndian.Uint16(arg[:])), arg[4:4+min(size, MaxDigest)]), nil
}

// noVerity returns nil for the errors of a file that fs-verity does not protect, or of a file
// system or kernel without it.
func noVerity(err error) error {
	if err == unix.ENODATA || err == unix.ENOTTY || err == unix.EOPNOTSUPP {
		return nil
	}
	return err
}
