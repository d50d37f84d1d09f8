package sys

import "golang.org/x/sys/unix"

// Handle is a file handle: what a file system calls one of its objects, whatever its names, for as long as the object exists
// (open_by_handle_at(2)). It is a value that can be compared; a handle of another file system may be the same.
type Handle struct {
	// Type is the form of ID, of the file system's choice (enum fid_type of the kernel).
	Type int32
	// ID are the bytes.
	ID string
}

// Handle asks for the object's handle, without its directory's (not a connectable one, in the kernel's words).
// EOPNOTSUPP where the file system cannot find an object by one.
func (r Ref) Handle() (Handle, error) {
	if err := fault("name_to_handle_at", r.name); err != nil {
		return Handle{}, err
	}
	flags := 0
	if r.name == "" {
		flags = unix.AT_EMPTY_PATH
	}
	h, _, err := unix.NameToHandleAt(r.fd, r.name, flags)
	if err != nil {
		return Handle{}, err
	}
	return Handle{h.Type(), string(h.Bytes())}, nil
}

// StatHandle fills st with what there is to tell of an object of d's file system: ESTALE when there is none of that handle,
// EPERM to who may not open objects but by their names (CAP_DAC_READ_SEARCH of the first user namespace). The object may
// lie outside of d's layer, so no access to it is given.
func (d *Dir) StatHandle(h Handle, st *Stat) error {
	if err := fault("open_by_handle_at", ""); err != nil {
		return err
	}
	var fd int
	err := retry(func() (err error) {
		fd, err = unix.OpenByHandleAt(d.fd, unix.NewFileHandle(h.Type, []byte(h.ID)), unix.O_PATH|unix.O_CLOEXEC)
		return err
	})
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	return unix.Fstat(fd, st)
}
