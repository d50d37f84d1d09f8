package sys

import "golang.org/x/sys/unix"

// Handle is a file handle, by which a file system identifies an object as long as it exists,
// whatever its names (open_by_handle_at(2)). It is a comparable value. An object of another file
// system may have the same handle.
type Handle struct {
	// Type is the form of ID, which the file system chooses (enum fid_type of the kernel).
	Type int32
	// ID holds the bytes.
	ID string
}

// Handle returns the object's handle, without its directory's (in the kernel's words, not a
// connectable one). EOPNOTSUPP: the file system cannot find an object by one.
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

// StatHandle fills st with the attributes of an object of d's file system. ESTALE: no object has
// the handle. EPERM: the process may open objects by their names only, without CAP_DAC_READ_SEARCH
// in the first user namespace. The object may lie outside of d's layer, so StatHandle gives no
// access to it.
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
