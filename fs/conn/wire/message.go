// Package wire is the layout of FUSE messages in memory: numbers of requests, headers, and the
// fixed parts of requests and replies (linux/fuse.h).
//
// It has no locks. It does not read or write a connection, and does not serve requests.
package wire

import (
	"bytes"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// Sizes in bytes.
const (
	InHeaderSize  = int(unsafe.Sizeof(fuse.InHeader{}))  // struct fuse_in_header
	OutHeaderSize = int(unsafe.Sizeof(fuse.OutHeader{})) // struct fuse_out_header
	PageSize      = 4096
)

// Forget is struct fuse_forget_one: a node, and how many lookups of it the kernel gives back.
type Forget struct{ NodeID, Lookups uint64 }

// Rename is struct fuse_rename_in, of RENAME.
type Rename struct {
	fuse.InHeader
	NewDir uint64
}

// Header returns the header of a request. Precondition: in has InHeaderSize bytes at least.
func Header(in []byte) *fuse.InHeader { return (*fuse.InHeader)(unsafe.Pointer(&in[0])) }

// Argument returns the fixed part of a request with the header; nil if the request is too short.
func Argument[T any](in []byte) *T {
	if len(in) < int(unsafe.Sizeof(*new(T))) {
		return nil
	}
	return (*T)(unsafe.Pointer(&in[0]))
}

// Name returns the name after the fixed part of a request, without its NUL.
func Name(in []byte, fixed int) []byte {
	name := in[min(fixed, len(in)):]
	if end := bytes.IndexByte(name, 0); end >= 0 {
		name = name[:end]
	}
	return name
}

// NameString returns [Name] as a string in the memory of the request. It is valid until the next
// request.
func NameString(in []byte, fixed int) string {
	name := Name(in, fixed)
	return unsafe.String(unsafe.SliceData(name), len(name))
}

// Forgets returns the list of a BATCH_FORGET, in the memory of the request; nil if there is none.
func Forgets(in []byte) []Forget {
	const fixed = 8 // struct fuse_batch_forget_in: count, dummy
	if len(in) < InHeaderSize+fixed {
		return nil
	}
	list := in[InHeaderSize+fixed:]
	n := len(list) / int(unsafe.Sizeof(Forget{}))
	if n == 0 {
		return nil
	}
	return unsafe.Slice((*Forget)(unsafe.Pointer(&list[0])), n)
}

// Result clears and returns the fixed part of a reply. Precondition: out has room for it and for
// the header.
func Result[T any](out []byte) *T {
	r := (*T)(unsafe.Pointer(&out[OutHeaderSize]))
	*r = *new(T)
	return r
}

// PutHeader writes the header of a reply with size bytes after it. Precondition: out has
// OutHeaderSize bytes at least.
func PutHeader(out []byte, unique uint64, status fuse.Status, size int) {
	*(*fuse.OutHeader)(unsafe.Pointer(&out[0])) = fuse.OutHeader{
		Unique: unique, Status: -int32(status), Length: uint32(OutHeaderSize + size),
	}
}

// Status returns the status in the header of a reply.
func Status(out []byte) fuse.Status {
	return fuse.Status(-(*fuse.OutHeader)(unsafe.Pointer(&out[0])).Status)
}

// SetLength sets the length in the header of a reply.
func SetLength(out []byte, length int) {
	(*fuse.OutHeader)(unsafe.Pointer(&out[0])).Length = uint32(length)
}

// SizeOf returns the size of the fixed part of a request or a reply.
func SizeOf[T any](*T) int { return int(unsafe.Sizeof(*new(T))) }

// Bytes returns the memory of v.
func Bytes[T any](v *T) []byte { return unsafe.Slice((*byte)(unsafe.Pointer(v)), unsafe.Sizeof(*v)) }

// ReplyBuffer returns a buffer for replies with up to size bytes of data. The data begins at a
// page, right after the header.
func ReplyBuffer(size int) []byte {
	buf := make([]byte, size+2*PageSize)
	skip := PageSize - int(uintptr(unsafe.Pointer(&buf[0]))%PageSize)
	if skip < OutHeaderSize {
		skip += PageSize
	}
	return buf[skip-OutHeaderSize:]
}

// EntryID returns the node ID in a struct fuse_entry_out.
func EntryID(entry []byte) uint64 { return (*fuse.EntryOut)(unsafe.Pointer(&entry[0])).NodeId }

// DirentPlus returns the node ID of the first entry in the data of a READDIRPLUS, and the length of
// the entry.
func DirentPlus(data []byte) (id uint64, length int) {
	const entry, fixed = int(unsafe.Sizeof(fuse.EntryOut{})), 24 // struct fuse_dirent: ino, off, namelen, type
	if len(data) < entry+fixed {
		return 0, len(data)
	}
	name := int(*(*uint32)(unsafe.Pointer(&data[entry+16])))
	return EntryID(data), entry + (fixed+name+7)&^7
}
